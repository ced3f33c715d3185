"""One text in the ids of two bundles: the target's, which it is written in, and the draft's.

Three ways, the first that fits: the vocabularies are one; they coincide but for a few tokens, so
ids are looked up by the token's spelling; they differ, so the text between special tokens is
tokenised anew for the other side (universal assisted generation: Timor et al., "Accelerating LLM
Inference with Lossless Speculative Decoding Algorithms for Heterogeneous Vocabularies", 2025).
Whatever is lost on the way makes a draft worse and never the text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from edgegen.manifest import Manifest, Speech

from ..tokenizer import Listed, TextStream, Tokenizer

# Share of the larger vocabulary that must be in both for ids to be looked up one by one.
COINCIDING = 0.95
BROKEN = "\ufffd"  # what half a character decodes to


@dataclass(frozen=True, kw_only=True)
class Side:
    """A bundle's words: its manifest and the tokenizers of its source and of what it writes."""

    manifest: Manifest
    source: Tokenizer
    target: Tokenizer

    @classmethod
    def of(cls, manifest: Manifest, tokenizers: Mapping[str, Tokenizer]) -> Side:
        source = tokenizers["source"]
        return cls(manifest=manifest, source=source, target=tokenizers.get("target", source))


class Bridge(Protocol):
    """One growing text on both sides. Lives for one generation."""

    def read(self, tokens: Sequence[int]) -> list[int]:
        """The draft's ids for all of the decoder's ``tokens``, to which later calls only add."""
        ...

    def write(self, drafted: Sequence[int]) -> list[int]:
        """The target's ids for what the draft wrote after the text last read."""
        ...


class Same:
    """One vocabulary, the same special ids: nothing to do."""

    def read(self, tokens: Sequence[int]) -> list[int]:
        return list(tokens)

    def write(self, drafted: Sequence[int]) -> list[int]:
        return list(drafted)


@dataclass(frozen=True, kw_only=True)
class Specials:
    """Ids that mean something instead of spelling it, matched by meaning.

    ``to_draft`` is None where the draft has no such token; its text goes on without it.
    """

    to_draft: Mapping[int, int | None]
    to_target: Mapping[int, int]
    start: tuple[int, ...]
    draft_start: tuple[int, ...]

    @classmethod
    def between(cls, target: Manifest, draft: Manifest) -> Specials:
        to_draft: dict[int, int | None] = {}
        to_target: dict[int, int] = {}
        pairs = _speech_pairs(target.speech, draft.speech, target.vocabulary)
        pairs += [(end, (*draft.generation.end, None)[0]) for end in target.generation.end]
        for one, other in pairs:
            to_draft[one] = other
            if other is not None:
                to_target.setdefault(other, one)
        if target.generation.end:
            to_target |= dict.fromkeys(draft.generation.end, target.generation.end[0])
        return cls(
            to_draft=to_draft,
            to_target=to_target,
            start=target.generation.start,
            draft_start=draft.generation.start,
        )

    @property
    def equal(self) -> bool:
        same = all(one == other for one, other in self.to_draft.items())
        return same and self.start == self.draft_start

    def opening(self, tokens: Sequence[int]) -> tuple[list[int], int]:
        """The draft's start tokens, and how many of the target's they stand for."""
        found = tuple(tokens[: len(self.start)]) == self.start
        return (list(self.draft_start), len(self.start)) if found else ([], 0)


def _speech_pairs(
    target: Speech | None, draft: Speech | None, vocabulary: int
) -> list[tuple[int, int | None]]:
    """Languages, tasks and marks by name, timestamps by the time they stand for."""
    if target is None or draft is None:
        return []
    pairs: list[tuple[int, int | None]] = [
        (token, draft.languages.get(name)) for name, token in target.languages.items()
    ]
    pairs += [(token, draft.tasks.get(name)) for name, token in target.tasks.items()]
    for name in ("no_timestamps", "no_speech", "start_of_previous"):
        one, other = getattr(target, name), getattr(draft, name)
        if one > 0:
            pairs.append((one, other if other > 0 else None))
    if target.timestamp_begin > 0:
        shift = draft.timestamp_begin - target.timestamp_begin
        same_step = draft.timestamp_begin > 0 and (
            draft.seconds_per_timestamp == target.seconds_per_timestamp
        )
        pairs += [
            (token, token + shift if same_step else None)
            for token in range(target.timestamp_begin, vocabulary)
        ]
    return pairs


class Mapped:
    """Ids looked up one by one. A token the draft lacks is left out of what the draft reads."""

    def __init__(
        self, to_draft: Mapping[int, int | None], to_target: Mapping[int, int], specials: Specials
    ) -> None:
        self._to_draft, self._to_target, self._specials = to_draft, to_target, specials
        self._ids: list[int] = []
        self._seen = 0

    def read(self, tokens: Sequence[int]) -> list[int]:
        if self._seen == 0:
            self._ids, self._seen = self._specials.opening(tokens)
        for token in tokens[self._seen :]:
            found = self._to_draft.get(token)
            if found is not None:
                self._ids.append(found)
        self._seen = len(tokens)
        return list(self._ids)

    def write(self, drafted: Sequence[int]) -> list[int]:
        out: list[int] = []
        for token in drafted:
            if token not in self._to_target:
                break
            out.append(self._to_target[token])
        return out


@dataclass(kw_only=True)
class Realigned:
    """Text tokenised anew. Words that later tokens cannot change are tokenised once; the last
    word of the text is kept open, since it may go on."""

    target: Tokenizer
    encode_target: Callable[[str], list[int]]
    encode_draft: Callable[[str], list[int]]
    decode_draft: Callable[[Sequence[int]], str]
    specials: Specials
    before: Sequence[int]  # what the draft's tokenizer puts before a text
    _settled: list[int] = field(default_factory=list[int])
    _seen: int = 0
    # The open end: tokens and the text each of them added.
    _open: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    _open_ids: list[int] = field(default_factory=list[int])

    def __post_init__(self) -> None:
        self._stream = TextStream(self.target)

    def read(self, tokens: Sequence[int]) -> list[int]:
        if self._seen == 0:
            start, self._seen = self.specials.opening(tokens)
            self._settled = start or list(self.before)
        for token in tokens[self._seen :]:
            if token in self.specials.to_draft:
                self._settle(len(self._open))
                special = self.specials.to_draft[token]
                self._settled += [] if special is None else [special]
            elif token >= 0:
                self._open.append((token, self._stream.push([token])))
        self._seen = len(tokens)
        words = (at for at in range(len(self._open) - 1, 0, -1) if self._open[at][1][:1].isspace())
        self._settle(next(words, 0))
        self._open_ids = self.encode_draft(self._open_text())
        return [*self._settled, *self._open_ids]

    def write(self, drafted: Sequence[int]) -> list[int]:
        if self._open and not self._open[-1][1]:
            return []  # in the middle of a character
        out: list[int] = []
        run: list[int] = []
        for token in drafted:
            special = self.specials.to_target.get(token)
            if special is None:
                run.append(token)
                continue
            out += [*self._spelled(run, goes_on=not out), special]
            run = []
        return out + self._spelled(run, goes_on=not out)

    def _open_text(self, upto: int | None = None) -> str:
        return "".join(text for _, text in self._open[:upto])

    def _settle(self, count: int) -> None:
        if count:
            self._settled += self.encode_draft(self._open_text(count))
            del self._open[:count]

    def _spelled(self, run: list[int], *, goes_on: bool) -> list[int]:
        """Target ids of the draft's ids ``run``, which continue the open word or a new text."""
        before = self._open_ids if goes_on else []
        shared = len(self.decode_draft(before))
        text = self.decode_draft([*before, *run])[shared:].split(BROKEN)[0]
        if not text:
            return []
        if not goes_on or not self._open:
            return self.encode_target(text)
        said = [token for token, _ in self._open]
        whole = self.encode_target(self._open_text() + text)
        if whole[: len(said)] == said:
            return whole[len(said) :]
        # The word is cut otherwise now that it goes on: continue where the texts agree.
        shown = self._open_text().lstrip()
        for at in range(1, len(whole)):
            if self.target.decode(whole[:at]).lstrip() == shown:
                return whole[at:]
        return self.encode_target(text)


class Translation:
    """How two bundles' ids relate: made once when they are loaded, shared by threads."""

    way: Literal["same", "mapped", "realigned"]

    def __init__(self, target: Side, draft: Side) -> None:
        self._target, self._draft = target, draft
        self.specials = Specials.between(target.manifest, draft.manifest)
        self._to_draft: dict[int, int | None] = {}
        self._to_target: dict[int, int] = {}
        ours, theirs = listed(target.target), listed(draft.target)
        common = [token for token in ours if token in theirs]
        if ours and ours == theirs and self._same_ids():
            self.way = "same"
        elif len(common) >= COINCIDING * max(len(ours), len(theirs), 1):
            self.way = "mapped"
            pairs = {ours[token]: theirs[token] for token in common}
            back = {other: one for one, other in pairs.items()}
            self._to_draft = {**pairs, **self.specials.to_draft}
            self._to_target = {**back, **self.specials.to_target}
        else:
            self.way = "realigned"
            self._encode_target = speller(target.target)
            self._encode_draft = speller(draft.target)
        self.same_source = listed(target.source) == listed(draft.source)

    def _same_ids(self) -> bool:
        ours, theirs = self._target.manifest, self._draft.manifest
        return ours.vocabulary == theirs.vocabulary and self.specials.equal

    def bridge(self) -> Bridge:
        """For one generation."""
        if self.way == "same":
            return Same()
        if self.way == "mapped":
            return Mapped(self._to_draft, self._to_target, self.specials)
        draft = self._draft.target
        return Realigned(
            target=self._target.target,
            encode_target=self._encode_target,
            encode_draft=self._encode_draft,
            decode_draft=draft.decode,
            specials=self.specials,
            before=() if "encode" in self._draft.manifest.components else draft.encode(""),
        )

    def unshared(self) -> tuple[int, ...]:
        """The draft's ids that no target token stands for; known where ids are looked up."""
        if self.way != "mapped":
            return ()
        every = range(self._draft.manifest.vocabulary)
        return tuple(token for token in every if token not in self._to_target)

    def source(self, ids: Sequence[int]) -> list[int]:
        """The target's source ids as the draft's encoder wants them, its own prefix included."""
        ours, theirs = self._target.manifest.generation, self._draft.manifest.generation
        body = _without(ids, ours.source_prefix, ours.source_suffix)
        if not self.same_source:
            body = self._draft.source.encode(self._target.source.decode(body))
        whole = [*theirs.source_prefix, *body, *theirs.source_suffix]
        if theirs.max_source and len(whole) > theirs.max_source:
            return [*whole[: theirs.max_source - 1], whole[-1]]
        return whole


def _without(ids: Sequence[int], prefix: Sequence[int], suffix: Sequence[int]) -> list[int]:
    body = list(ids)
    if prefix and body[: len(prefix)] == list(prefix):
        del body[: len(prefix)]
    if suffix and body[-len(suffix) :] == list(suffix):
        del body[-len(suffix) :]
    return body


def listed(tokenizer: Tokenizer) -> dict[str, int]:
    """Its tokens; empty for one that cannot list them."""
    return tokenizer.tokens() if isinstance(tokenizer, Listed) else {}


def speller(tokenizer: Tokenizer) -> Callable[[str], list[int]]:
    """Text in the middle of a text to ids, without special tokens.

    Some tokenizers put a space before whatever they are given; theirs is taken away first.
    """

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special=False) if text else []

    one, other = encode("a"), encode("b")
    if encode("a b") == [*one, *other] != [*one, *encode(" b")]:
        return lambda text: encode(text.removeprefix(" "))
    return encode
