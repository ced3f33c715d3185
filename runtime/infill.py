"""Gaps in a text, filled by a decoder that was trained on marks for them.

The prompt is the text with a mark for each gap, then what says that the text is over, then the mark
that is asked for; its answer ends with a token of its own, and the next mark asks for the next gap
(CodeGen2, arXiv 2305.02309). The text goes on in the same cache: nothing is fed twice.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from time import perf_counter

from edgegen.errors import InputError
from edgegen.manifest import Infill, Manifest

from .engine import Engine
from .options import GenerationOptions
from .task import Gaps, Opening, Record, decode
from .tokenizer import Tokenizer


@dataclass(frozen=True)
class Filled:
    """The whole text, and what was put into each gap."""

    text: str
    spans: tuple[str, ...]


class Infilling:
    """Fills gaps with one bundle. Raises ``InputError`` when its model has no marks for them."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer) -> None:
        self.engine, self.tokenizer = engine, tokenizer
        self.record = marks_of(engine.manifest)

    def run(
        self, gaps: Gaps, options: GenerationOptions, record: Record
    ) -> Generator[str, None, Filled]:
        """Pieces join to the whole text: what stands around the gaps and what fills them."""
        start = perf_counter()
        parts = self.parts(gaps)
        marks = list(self.record.marks.values())
        tokenised = [self.tokenizer.encode(part, add_special=False) for part in parts]
        tokenised = self.shortened(tokenised, options, record)
        tokens = [*tokenised[0]]
        for mark, ids in zip(marks, tokenised[1:], strict=False):
            tokens += [mark, *ids]
        tokens += self.record.separator
        # Several beams leave a tree of rows behind, which no other text can follow.
        decoder = self.engine.decoder(None, options) if options.num_beams == 1 else None
        spans: list[str] = []
        for at, (mark, part) in enumerate(zip(marks, parts[:-1], strict=False)):
            if part:
                yield part
            tokens.append(mark)
            before = len(record.tokens)
            opening = Opening(
                prompt=tokens,
                source=[token for later in tokenised[at + 1 :] for token in later],
                decoder=decoder,
                tokenize_seconds=perf_counter() - start if not at else 0.0,
                stop=options.stop,
                further_ends=(self.record.end,),
            )
            spans.append((yield from decode(self.engine, self.tokenizer, opening, options, record)))
            tokens = [*tokens, *self.answer(record.tokens[before:])]
        if parts[-1]:
            yield parts[-1]
        whole = "".join(text for pair in zip(parts, [*spans, ""], strict=True) for text in pair)
        return Filled(whole, tuple(spans))

    def answer(self, tokens: Sequence[int]) -> list[int]:
        """What was generated for a gap, ended as an answer is, however it ended."""
        ends = (*self.engine.manifest.generation.end, self.record.end)
        inner = tokens[:-1] if tokens and tokens[-1] in ends else tokens
        return [*inner, self.record.end]

    def parts(self, gaps: Gaps) -> list[str]:
        """The texts around the gaps, one more than there are gaps."""
        found = marked(gaps.prefix if gaps.suffix is None else gaps.prefix + gaps.suffix,
                       list(self.record.marks))  # fmt: skip
        first, last = next(iter(self.record.marks)), list(self.record.marks)[-1]
        if gaps.suffix is None:
            if len(found) < 2:
                raise InputError(
                    f"the text has no gap: put {first} where one is, or give prefix and suffix."
                )
            return found
        if len(found) > 1:
            raise InputError(
                f"prefix and suffix have one gap between them, but {first} is in them; give the "
                f"text with its marks, {first} to {last}, and no suffix."
            )
        return [gaps.prefix, gaps.suffix]

    def shortened(
        self, parts: list[list[int]], options: GenerationOptions, record: Record
    ) -> list[list[int]]:
        """What is too long loses its outer ends, the suffix down to half of the room first."""
        defaults = self.engine.manifest.generation
        spare = 2 * len(parts) + len(self.record.separator)
        new = (options.max_new_tokens or defaults.max_new_tokens) * (len(parts) - 1)
        limit = defaults.max_positions
        count = sum(map(len, parts)) + spare
        if not limit or count < limit:
            return parts
        room = max(limit - new - spare, (limit - spare) // 2)
        said = f"the text around the gaps has {count} tokens and the model takes {limit}"
        if not options.truncate:
            raise InputError(f"{said}; shorten it, or allow truncate=True.")
        first, *inner, last = parts
        outer = room - sum(map(len, inner))
        if outer < 2:
            raise InputError(f"{said}, most of them between gaps; fill fewer at a time.")
        kept = last[: max(outer // 2, outer - len(first))]
        head = first[len(first) - min(len(first), outer - len(kept)) :]
        record.warn(f"{said}; only {len(head)} before and {len(kept)} after were used.")
        return [head, *inner, kept]


def marks_of(manifest: Manifest) -> Infill:
    """How the bundle's model fills gaps. Raises ``InputError`` when it does not."""
    if manifest.infill is None:
        raise InputError(
            f"{manifest.name} cannot fill gaps: {manifest.model_type} has no marks for them here; "
            "give a prompt, or take a bundle of a model that has, such as CodeGen2."
        )
    return manifest.infill


def marked(text: str, marks: Sequence[str]) -> list[str]:
    """The text cut at its marks. Raises ``InputError`` when they are not the first ones in
    order."""
    parts: list[str] = []
    rest = text
    for mark in marks:
        before, found, after = rest.partition(mark)
        strange = next((other for other in marks if other in before), None)
        if strange is not None or mark in after:
            raise InputError(
                f"gaps are marked {marks[0]}, {marks[1] if len(marks) > 1 else '...'} and so on in "
                f"the order of the text, each once; {strange or mark} is not where it should be."
            )
        parts.append(before)
        if not found:
            return parts
        rest = after
    return [*parts, rest]
