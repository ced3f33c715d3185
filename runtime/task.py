"""What a bundle can be asked to do: a source in, pieces of text out, a result at the end."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

from numpy.typing import NDArray

from edgegen.errors import EdgegenWarning, InputError

from .asking import Call, Writing, answered
from .decoder import Decoder
from .engine import Engine, Memory
from .generation import Hypothesis, Step
from .options import GenerationOptions
from .result import Pass, Result, ScoredText
from .sampling import TokenScore
from .stopping import FinishReason
from .tokenizer import Tokenizer
from .writer import Writer

Message = Mapping[str, str]


@dataclass(frozen=True)
class Gaps:
    """A text to be completed inside: between ``prefix`` and ``suffix``, or with ``suffix`` None
    wherever ``prefix`` has one of the bundle's marks (``<mask_1>``, ``<mask_2>``...)."""

    prefix: str
    suffix: str | None = None


# Text, token ids, a conversation, a text with gaps, samples, or the path of an audio file.
Source = str | Path | Sequence[int] | Sequence[Message] | Gaps | NDArray[Any]
# Yields what may be shown; returns the result.
Running = Writing[Result]


class Task(Protocol):
    """One kind of input and output."""

    def run(self, source: Source, options: GenerationOptions) -> Running: ...


@dataclass(kw_only=True)
class Record:
    """What a request has gathered so far; a cancelled one still has its part."""

    started: float = field(default_factory=perf_counter)
    passes: list[Pass] = field(default_factory=list[Pass])
    tokens: list[int] = field(default_factory=list[int])
    hypotheses: list[ScoredText] = field(default_factory=list[ScoredText])
    scores: list[TokenScore] = field(default_factory=list[TokenScore])
    reasons: list[FinishReason] = field(default_factory=list[FinishReason])
    warnings: list[str] = field(default_factory=list[str])

    def best(self) -> tuple[ScoredText, ...]:
        """Those of a whole text: of several parts, each has its own."""
        return tuple(self.hypotheses) if len(self.passes) == 1 else ()

    def warn(self, message: str) -> None:
        self.warnings.append(message)
        warnings.warn(message, EdgegenWarning, stacklevel=4)


@dataclass(frozen=True, kw_only=True)
class Opening:
    """A pass about to decode: its memory, its prompt, and what drafters may copy from."""

    prompt: Sequence[int]
    source: Sequence[int] = ()
    memory: Memory | None = None
    decoder: Decoder | None = None
    tokenize_seconds: float = 0.0
    # Decoder calls made on ``decoder`` before the loop: which language, whether anyone speaks.
    detect_seconds: float = 0.0
    stop: tuple[str, ...] = ()
    # Tokens that are no text: timestamps.
    hidden: Sequence[int] = ()
    # End tokens besides the bundle's.
    further_ends: Sequence[int] = ()


def decode(
    engine: Engine,
    tokenizer: Tokenizer,
    opening: Opening,
    options: GenerationOptions,
    record: Record,
) -> Generator[str, None, str]:
    """Run one pass of the loop into ``record``; yields pieces, returns the pass's whole text."""
    return answered(decoding(engine, tokenizer, opening, options, record))


def decoding(
    engine: Engine,
    tokenizer: Tokenizer,
    opening: Opening,
    options: GenerationOptions,
    record: Record,
) -> Writing[str]:
    """The same, with the decode calls left to whoever drives it."""
    started = perf_counter()
    silent = (*engine.manifest.generation.end, *opening.further_ends, *opening.hidden)
    check_whole(options, record)
    beams = options.num_beams > 1
    writer = Writer(tokenizer, silent, () if beams else opening.stop)
    read = partial(read_text, tokenizer, frozenset(silent))
    decoder = opening.decoder or engine.decoder(opening.memory, options)
    generation = engine.generation(
        decoder,
        options,
        prompt_length=len(opening.prompt),
        memory=opening.memory,
        encode=encoder_of(tokenizer),
        text=writer.so_far if opening.stop and not beams else None,
        read=read,
        stop=opening.stop,
        further_ends=opening.further_ends,
    )
    memory = opening.memory or Memory({})
    opened = perf_counter()
    steps: list[Step] = []
    reason: FinishReason = "cancelled"
    try:
        generation.begin(opening.prompt, opening.source)
        while reason == "cancelled":
            answer = yield Call(decoder, generation.ask())
            step = generation.hear(answer)
            steps.append(step)
            record.tokens += step.tokens
            record.scores += step.scores
            reason = writer.take(step) or reason
            record.hypotheses += [scored(text, read) for text in step.hypotheses]
            yield writer
    finally:
        record.reasons.append(reason)
        record.passes.append(
            Pass(
                tokenize_seconds=opening.tokenize_seconds,
                features_seconds=memory.features_seconds,
                encode_seconds=memory.encode_seconds,
                open_seconds=opened - started,
                detect_seconds=opening.detect_seconds,
                steps=tuple(steps),
                source_tokens=len(opening.source),
                cached_source=memory.cached,
            )
        )
    return writer.whole()


def check_whole(options: GenerationOptions, record: Record) -> None:
    """Raises ``InputError`` where several texts are wanted of a source that has several passes."""
    if options.num_return_sequences > 1 and record.passes:
        raise InputError(
            f"num_return_sequences={options.num_return_sequences}: the input is worked through in "
            "parts (sentences, windows of audio), each with texts of its own; give one at a time."
        )


def read_text(tokenizer: Tokenizer, hidden: frozenset[int], tokens: Sequence[int]) -> str:
    """The text of tokens, without those that are no text."""
    return tokenizer.decode([token for token in tokens if token not in hidden])


def scored(found: Hypothesis, read: Callable[[Sequence[int]], str]) -> ScoredText:
    return ScoredText(
        text=read(found.tokens)[: found.cut.text_length],
        tokens=found.tokens,
        score=found.score,
        finish_reason=found.cut.reason or "stop",
    )


def encoder_of(tokenizer: Tokenizer) -> Callable[[str], Sequence[int]]:
    return lambda text: tokenizer.encode(text, add_special=False)
