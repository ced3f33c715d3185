"""The gate every export passes: the same prompts through the checkpoint and through the bundle.

Float32 graphs are held to a logit difference, step by step and relative to the logits' scale;
narrower ones to the share of steps at which they choose the checkpoint's token, those of 16 bits to
a wider difference besides. Rows of a call are held to the same rows alone. The tokens fed are the
checkpoint's greedy ones, so one early difference does not hide what follows.
"""

from __future__ import annotations

import json
import wave
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgegen.devices import DeviceOptions, Session, device_named
from edgegen.devices.device import Feeds
from edgegen.errors import CheckpointError, ExportError, ParityError
from edgegen.frame import frame_of
from edgegen.manifest import Cache, Parity, PromptParity, Variant, held_as

from .checkpoint import TokenizerFiles
from .families.base import Family
from .ops.companion_ops import keys_in_one_go
from .options import LEAST_GROUP, ExportOptions
from .reference import Logits, Reference, reference_of
from .stepper import Stepper, memory_of

DEVICES: Mapping[str, str] = {"onnx": "ort-cpu", "openvino": "ov-cpu"}
# Largest logit difference over the largest logit, float32 against float32.
TOLERANCE: Mapping[str, float] = {"onnx": 1e-4, "openvino": 1e-3}
# The same of 16 bits: more than rounding weights and activations to 8 of them does to a deep model,
# less than what a curve left out does (a cap on logits keeps every choice).
HALVES: Mapping[str, float] = {"fp16": 0.1, "bf16": 0.1}
# What other rows of a call may change a row of narrower graphs by, and padding an encoder's: codes
# of activations tip over (0.06 was seen); to see what is hidden changes a row by its whole scale.
ROWS = 0.25
TOKENS = 24
# What rounding may change a call's last row by when logits are asked of it alone.
LAST = 0.05
# Rows that are computed alone and again in calls: where a call begins, and sizes of it. Kernels
# change with a call's rows and with the rows that stand, at powers of two above all.
CALLS: Mapping[int, tuple[int, ...]] = {0: (2, 5, 17), 3: (2, 13, 33), 8: (8, 16), 15: (9, 20)}
# Calls around a count of keys from which on scores are summed in another way, rows from it on.
BESIDE: Mapping[int, tuple[int, ...]] = {
    **{-8: (8, 16), -4: (3, 8), -2: (8,), -1: (8,)},
    **{0: (3, 8, 16), 1: (8,), 2: (8,)},
}


@dataclass(frozen=True)
class Example:
    """A prompt ready to run: encoder source, decoder prompt, and the checkpoint's answer."""

    text: str
    source: Mapping[str, Any]
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    logits: Logits  # [prompt + answer - 1, V]


class Gate:
    """Runs the reference once and any number of variants against it."""

    def __init__(self, family: Family, options: ExportOptions) -> None:
        self.family, self.options = family, options
        reference = reference_of(family)
        self.name = reference.name
        prompts = options.parity_prompts or family.parity_prompts
        self.examples = [self._example(reference, text) for text in prompts]

    def _example(self, reference: Reference, text: str) -> Example:
        source, prompt = inputs_of(self.family, text)
        ends = frozenset(self.family.generation().end)
        positions = self.family.generation().max_positions
        room = min(TOKENS, positions - len(prompt) + 1) if positions else TOKENS
        if room < 2:
            raise ExportError(f"parity prompt {text[:40]!r} leaves no room to generate.")
        answer = reference.greedy(source, prompt, room, ends)
        together = len(prompt) if self.family.shape.bidirectional_prompt else 0
        logits = reference.logits(source, [*prompt, *answer[:-1]], together)
        if np.isnan(logits).any():
            raise CheckpointError(
                f"the checkpoint's own outputs are no numbers on prompt {text[:40]!r}; its weights "
                "are damaged or overflow, fetch it again."
            )
        return Example(text, source, tuple(prompt), tuple(answer), logits)

    def check(self, folder: Path, variants: Mapping[str, Variant]) -> Parity:
        """Run one set of variants; raises ``ParityError`` with the worst prompt."""
        decode = variants["decode"]
        device = device_named(DEVICES[decode.format])
        sessions = {
            name: device.compile(folder / variant.file, variant, DeviceOptions())
            for name, variant in variants.items()
        }
        try:
            prompts = [self._prompt(example, sessions, decode) for example in self.examples]
            rows = max(self._rows(example, sessions, decode) for example in self.examples)
        finally:
            for session in sessions.values():
                session.close()
        steps = sum(prompt.tokens for prompt in prompts)
        agreement = sum(prompt.agreement * prompt.tokens for prompt in prompts) / steps
        parity = Parity(
            format=decode.format,
            weight_format=decode.precision.weight_format,
            memory=decode.precision.memory,
            cache=decode.cache.held,
            head=decode.precision.head,
            reference=self.name,
            max_error=max(prompt.error for prompt in prompts),
            rows_error=rows,
            agreement=agreement,
            prompts=tuple(prompts),
        )
        judge(parity, self.options)
        return parity

    def _memory(self, example: Example, sessions: Mapping[str, Session]) -> dict[str, Any]:
        return memory_of(sessions, example.source) if self.family.shape.encoder else {}

    def _stepper(
        self, memory: Feeds, sessions: Mapping[str, Session], variant: Variant, rows: int
    ) -> Stepper:
        size = self.family.shape.vocabulary
        return Stepper(sessions["decode"], variant, memory, rows, vocabulary=size)

    def _prompt(
        self, example: Example, sessions: Mapping[str, Session], variant: Variant
    ) -> PromptParity:
        """The prompt as one call, then the checkpoint's tokens one at a time."""
        tokens = [*example.prompt, *example.answer[:-1]]
        memory = self._memory(example, sessions)
        stepper = self._stepper(memory, sessions, variant, len(tokens))
        together = self.family.shape.bidirectional_prompt
        rows = [stepper.decode(example.prompt, together=together)]
        rows += [stepper.decode([token]) for token in example.answer[:-1]]
        logits = np.concatenate(rows)
        chosen = logits[len(example.prompt) - 1 :].argmax(-1)
        return PromptParity(
            prompt=example.text,
            tokens=len(example.answer),
            agreement=float((chosen == np.array(example.answer)).mean()),
            error=relative(logits, example.logits),
        )

    def _rows(self, example: Example, sessions: Mapping[str, Session], variant: Variant) -> float:
        """Rows in calls of many sizes against the same rows one at a time."""
        known = [*example.prompt, *example.answer[:-1]]
        memory = self._memory(example, sessions)
        # Of one attention over source and text the source's rows come first, however it is kept.
        first = memory["source_mask"].shape[1] if self.family.shape.merged else 0
        sizes = calls_looked_at(variant.cache, first)
        most = max(at + max(calls) for at, calls in sizes.items())
        room = min(most, self.family.generation().max_positions or most)
        tokens = [token for _, token in zip(range(room), cycle(known), strict=False)]
        stepper = self._stepper(memory, sessions, variant, room + max(CALLS[3]))
        many: list[tuple[int, Logits]] = []
        alone: list[Logits] = []
        for at, token in enumerate(tokens):
            counts = {stepper.alike(n) for n in sizes.get(at, ()) if at + n <= room}
            calls = [tokens[at : at + n] for n in sorted(counts)]
            many += [(at, stepper.decode(call, stand=False)) for call in calls]
            for call in calls[-1:]:  # as prompts are fed
                check_last(stepper.decode(call, stand=False, last=True), many[-1][1])
            alone.append(stepper.decode([token]))
        truth = np.concatenate(alone)
        return max(relative(rows, truth[at : at + len(rows)]) for at, rows in many)


def calls_looked_at(cache: Cache, first: int) -> Mapping[int, tuple[int, ...]]:
    """Sizes of calls by the row of the text at which they begin; ``first`` rows lie before it."""
    found = dict(CALLS)
    # Where no edge is told, a call may pass a count of keys; a recurrent state has none.
    untold = () if cache.kind == "recurrent" else keys_in_one_go(cache.head_dim)
    for edge in cache.edges or untold:
        for offset, sizes in BESIDE.items():
            if (at := edge - first + offset) >= 0:
                found[at] = (*found.get(at, ()), *sizes)
    return found


def check_last(alone: Logits, rows: Logits) -> None:
    """Raises ``ParityError`` where a call that is asked for its last row says another thing."""
    error = relative(alone, rows[-1:])
    if not error <= LAST:
        raise ParityError(
            f"the last row of a call of {len(rows)} differs by {error:.1e} of its scale when no "
            "other is asked for; report it, or export with --no-parity to look at it."
        )


def inputs_of(family: Family, text: str) -> tuple[Mapping[str, Any], list[int]]:
    """What the encoder takes of a prompt, and the decoder's prompt."""
    defaults, speech = family.generation(), family.speech()
    tokenizers = family.checkpoint.tokenizers
    if speech is not None:
        start = [*defaults.start, *list(speech.languages.values())[:1]]
        start += [speech.tasks["transcribe"]] if speech.tasks else []
        start += [speech.no_timestamps] if speech.no_timestamps else []
        return {"samples": read_wave(text, speech.window_samples, speech.padded)}, start
    if family.image() is not None:
        return {"pixel_values": drawn(text, family.shape.picture)}, [*defaults.start]
    if not tokenizers:
        raise ExportError("the checkpoint has no tokenizer; use --no-parity to export anyway.")
    frame = frame_of(defaults, family.translation())
    ids = encode(tokenizers["source"], text, add_special=not frame.bare)
    if not family.shape.encoder:
        return {}, check_ids(ids or list(defaults.start), text, family.shape.vocabulary)
    ids = check_ids(frame.around(ids), text, family.source_vocabulary)
    if 0 < defaults.max_source < len(ids):
        raise ExportError(
            f"the text {text[:40]!r} has {len(ids)} tokens and the encoder takes "
            f"{defaults.max_source}; shorten it."
        )
    return {"input_ids": ids}, ids if defaults.prompt_from_source else list(frame.start)


def check_ids(ids: list[int], text: str, vocabulary: int) -> list[int]:
    """Raises ``ExportError`` for ids that the table has no row for."""
    if ids and max(ids) >= vocabulary:
        raise ExportError(
            f"the text {text[:40]!r}: the tokenizer gives id {max(ids)} and the model's table "
            f"has {vocabulary} rows; use the tokenizer of this checkpoint."
        )
    return ids


def judge(parity: Parity, options: ExportOptions, agrees: str = "chooses its token") -> None:
    """Raises ``ParityError`` with the worst prompt. ``agrees`` is what agreement is a share of."""
    worst = max(parity.prompts, key=lambda prompt: (1 - prompt.agreement, prompt.error))
    where = f"on prompt {worst.prompt[:40]!r}"
    if held_as(parity) == "fp32":
        limit = TOLERANCE[parity.format]
        if not parity.max_error <= limit:  # a NaN must fail too
            raise ParityError(
                f"{parity.format} fp32: outputs differ from {parity.reference} by "
                f"{parity.max_error:.2e} of their scale, allowed {limit:.0e}, {where}; "
                "report it, or export with --no-parity to look at it."
            )
    elif not parity.agreement >= options.min_agreement:
        raise ParityError(
            f"{parity.format} {held_as(parity)}: {agrees} as the checkpoint does at "
            f"{parity.agreement:.1%}, needed {options.min_agreement:.0%}, worst {where} "
            f"({worst.agreement:.0%}); use {' or '.join(nearer(parity, options))}."
        )
    judge_errors(parity)


def judge_errors(parity: Parity) -> None:
    """Raises ``ParityError`` for what agreement does not show: outputs of 16 bits that are off, and
    rows that others change."""
    held, exact = held_as(parity), held_as(parity) == "fp32"
    limit = HALVES.get(held, np.inf)
    if not parity.max_error <= limit and not exact:
        raise ParityError(
            f"{parity.format} {held}: outputs differ from {parity.reference} by "
            f"{parity.max_error:.2e} of their scale, allowed {limit:.0e}; use fp32, and report it "
            "where that is refused too."
        )
    limit = TOLERANCE[parity.format] if exact else ROWS
    if not parity.rows_error <= limit:
        raise ParityError(
            f"{parity.format} {held}: rows of one call differ from the same rows alone by "
            f"{parity.rows_error:.2e} of their scale, allowed {limit:.0e}; report it, or export "
            "with --no-parity to look at it."
        )


def nearer(parity: Parity, options: ExportOptions) -> Iterator[str]:
    """What would bring such graphs nearer to the checkpoint, and how to have them as they are."""
    if parity.head != "full":
        yield "no --head"
    if "int8" in (parity.memory, parity.cache):
        yield "keys and values in fp32"
    if options.integer:
        yield "no --integer"
    if parity.weight_format == "int4":
        yield "int8"
    if parity.weight_format in ("int8", "int4") and options.group_size > LEAST_GROUP:
        yield "a smaller --group-size"
    yield "a lower --min-agreement"


def worst(checks: Sequence[Parity]) -> Parity:
    """One record for decode graphs of one format: the least agreement and the largest errors."""
    found = min(checks, key=lambda parity: (parity.agreement, -parity.max_error))
    return msgspec.structs.replace(
        found,
        max_error=max(parity.max_error for parity in checks),
        rows_error=max(parity.rows_error for parity in checks),
    )


def one_each(checks: Sequence[Parity]) -> list[Parity]:
    """A record for each way of holding weights, keys and head, in the order they come."""
    kinds = dict.fromkeys(map(held_as, checks))
    return [worst([one for one in checks if held_as(one) == kind]) for kind in kinds]


def relative(found: Logits, truth: Logits) -> float:
    """Largest difference over the largest magnitude of the truth, infinite where a logit is missing
    (-inf: of a word outside the shortlist) in one of them only, and where no number is told."""
    there = np.isfinite(truth)
    if (np.isfinite(found) != there).any() or np.isnan(truth).any() or not there.any():
        return float("inf")
    return float(np.abs(found[there] - truth[there]).max() / np.abs(truth[there]).max())


def encode(tokenizer: TokenizerFiles, text: str, *, add_special: bool = True) -> list[int]:
    """Ids as the runtime's tokenizer gives them, by default its own special tokens included."""
    if tokenizer.kind == "bytes":
        return [*(byte + tokenizer.offset for byte in text.encode()), 1]
    from tokenizers import Tokenizer

    reader = Tokenizer.from_str(tokenizer.data.decode())
    reader.no_truncation()
    reader.no_padding()
    found = reader.encode(text, add_special_tokens=add_special)
    if not tokenizer.vocabulary:
        return list(found.ids)
    numbers: dict[str, int] = json.loads(tokenizer.vocabulary)
    return [numbers.get(piece, numbers["<unk>"]) for piece in found.tokens]


def read_wave(name: str, length: int, padded: bool) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A 16 kHz mono 16-bit wave file of at most ``length`` samples; ``padded``: of exactly that."""
    path = Path(name) if Path(name).is_file() else Path(__file__).parent / "speech" / name
    try:
        with wave.open(str(path), "rb") as file:
            kind = (file.getframerate(), file.getnchannels(), file.getsampwidth())
            data = file.readframes(length)
    except (OSError, wave.Error, EOFError) as error:
        raise ExportError(f"parity speech {name}: cannot be read ({error}).") from error
    if kind != (16000, 1, 2):
        raise ExportError(
            f"parity speech {name}: expected 16000 Hz, 1 channel, 16 bits; got {kind[0]} Hz, "
            f"{kind[1]} channels, {8 * kind[2]} bits."
        )
    samples = np.frombuffer(data, "<i2").astype(np.float32) / 32768.0
    return np.pad(samples, (0, length - len(samples))) if padded else samples


def drawn(name: str, shape: tuple[int, int, int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A picture ``[channels, height, width]`` in about -1 to 1: waves drawn by the name's letters,
    the same for the same name."""
    random = np.random.default_rng(list(name.encode()))
    rows, columns = np.mgrid[: shape[1], : shape[2]] / max(shape[1:])
    waves = random.uniform(1, 20, (shape[0], 4, 3))
    parts = [[np.sin(a * rows + b * columns + c) for a, b, c in channel] for channel in waves]
    return np.asarray(np.mean(parts, axis=1), np.float32)


def prompts_of(path: Path) -> Sequence[str]:
    """``--parity-prompts FILE``: one prompt a line (for speech: one wave file a line)."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"parity prompts {path}: cannot be read ({error}).") from error
    found = [line for line in lines if line]
    if not found:
        raise ExportError(f"parity prompts {path}: the file has no line of text.")
    return found
