"""Text to text: translation, correction, summaries, and continuations of a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import numpy as np

from edgegen.errors import InputError
from edgegen.frame import Frame

from . import chat
from .asking import Encoding, Writing
from .engine import Engine, Memory
from .infill import Infilling
from .options import GenerationOptions
from .result import Result, Timings, weakest
from .sentences import split
from .task import Gaps, Opening, Record, Running, Source, decoding
from .tokenizer import Tokenizer
from .translation import frame_for


class TextTask:
    """Encoder-decoder and decoder-only text models."""

    def __init__(self, engine: Engine, tokenizers: Mapping[str, Tokenizer]) -> None:
        self.engine = engine
        self.source = tokenizers["source"]
        self.target = tokenizers.get("target", self.source)
        self.defaults = engine.manifest.generation
        self.has_encoder = "encode" in engine.variants

    def run(self, source: Source, options: GenerationOptions) -> Running:
        record = Record()
        if isinstance(source, Path):
            raise InputError(f"{source}: this is a text model; read the file and give its text.")
        refuse_speech(options)
        frame = frame_for(self.engine.manifest, options)
        spans: tuple[str, ...] = ()
        if isinstance(source, Gaps):
            filled = yield from Infilling(self.engine, self.target).run(source, options, record)
            text, spans = filled.text, filled.spans
        elif self.has_encoder:
            told = options
            if frame.forced:
                told = options.with_changes(forced=(*frame.forced, *options.forced))
            text = yield from self._encoded(source, frame, told, record)
        else:
            text = yield from self._prompted(source, options, record)
        return Result(
            text=text,
            spans=spans,
            tokens=tuple(record.tokens),
            finish_reason=weakest(record.reasons),
            timings=Timings(
                passes=tuple(record.passes), wall_seconds=perf_counter() - record.started
            ),
            lossless=self.engine.lossless(options),
            speculation=self.engine.speculation.note(options),
            logprobs=tuple(record.scores),
            hypotheses=record.best(),
            warnings=tuple(record.warnings),
        )

    # ------------------------------------------------------ encoder-decoder

    def _encoded(
        self, source: Source, frame: Frame, options: GenerationOptions, record: Record
    ) -> Writing[str]:
        if not isinstance(source, str):
            return (yield from self._pass(token_ids(source), frame, options, record))
        if not self.defaults.sentences:
            if not source.strip():
                raise InputError("the text is empty; give some text to generate from.")
            return (yield from self._pass(source, frame, options, record))
        room = self.defaults.max_source - len(frame.around([]))
        whole = ""
        for sentence in split(source, max_tokens=max(room, 0), count=self._count):
            if sentence.before:
                yield sentence.before
            part = ""
            if sentence.text:
                part = yield from self._pass(sentence.text, frame, options, record)
            if sentence.after:
                yield sentence.after
            whole += sentence.before + part + sentence.after
        return whole

    def _count(self, text: str) -> int:
        return len(self.source.encode(text))

    def _pass(
        self,
        source: str | Sequence[int],
        frame: Frame,
        options: GenerationOptions,
        record: Record,
    ) -> Writing[str]:
        with_model = self.engine.drafts_with_model(options)
        start = perf_counter()
        ids, seen = self._source_ids(source, frame, options, record)
        tokenize_seconds = perf_counter() - start
        memory: Memory = yield Encoding(self.engine, ids, with_model)
        opening = Opening(
            prompt=seen if self.defaults.prompt_from_source else frame.start,
            source=seen,
            memory=memory,
            tokenize_seconds=tokenize_seconds,
            stop=options.stop,
        )
        return (yield from decoding(self.engine, self.target, opening, options, record))

    def _source_ids(
        self,
        source: str | Sequence[int],
        frame: Frame,
        options: GenerationOptions,
        record: Record,
    ) -> tuple[list[int], Sequence[int]]:
        """Ids for the encoder, and the same text in the target's ids for drafters."""
        limit, end = self.defaults.max_source, 1
        if not isinstance(source, str):
            body = check_ids(source, self._source_vocabulary())
        elif frame.bare:
            body = frame.around(self.source.encode(source, add_special=False))
            end = len(frame.after)
        else:
            body = self.source.encode(source)
        if limit and len(body) > limit:
            keep = "last" if self.defaults.prompt_from_source else "first"
            body = shortened(body, limit, options, record, keep=keep, end=end)
        if self.target is self.source:
            return body, body
        text = source if isinstance(source, str) else self.source.decode(source)
        return body, self.target.encode(text, add_special=False)

    def _source_vocabulary(self) -> int:
        """How many ids a source may use: those of the output where both have one tokenizer."""
        if self.target is self.source:
            return self.engine.manifest.vocabulary
        return self.source.vocab_size

    # --------------------------------------------------------- decoder-only

    def _prompted(self, source: Source, options: GenerationOptions, record: Record) -> Writing[str]:
        start = perf_counter()
        prompt = self._prompt_ids(source)
        limit = self.defaults.max_positions
        if limit and len(prompt) > limit:
            room = max(1, limit - (options.max_new_tokens or self.defaults.max_new_tokens))
            prompt = shortened(prompt, room, options, record, keep="last", takes=limit)
        opening = Opening(
            prompt=prompt,
            source=(),
            tokenize_seconds=perf_counter() - start,
            stop=options.stop,
        )
        return (yield from decoding(self.engine, self.target, opening, options, record))

    def _prompt_ids(self, source: Source) -> list[int]:
        if isinstance(source, str):
            ids = self.source.encode(source)
        elif is_conversation(source):
            ids = self.source.encode(self._rendered(source), add_special=False)
        else:
            ids = check_ids(token_ids(source), self.engine.manifest.vocabulary)
        ids = ids or list(self.defaults.start)
        if not ids:
            raise InputError("the prompt is empty; give some text to continue.")
        return ids

    def _rendered(self, messages: Any) -> str:
        template = self.engine.manifest.chat
        if template is None:
            raise InputError("this bundle has no chat template; give the prompt as text.")
        return chat.render(template, messages)


def refuse_speech(options: GenerationOptions) -> None:
    """What only a speech model can do is not silently left out."""
    asked = [
        name
        for name, given in (
            ("task", options.task is not None),
            ("timestamps", options.timestamps),
        )
        if given
    ]
    if asked:
        raise InputError(f"{', '.join(asked)}: for speech models; this bundle takes text.")


def is_conversation(source: object) -> bool:
    """Whether this is a list of messages."""
    if not isinstance(source, list | tuple):
        return False
    items = cast(Sequence[object], source)
    return bool(items) and isinstance(items[0], Mapping)


def token_ids(source: object) -> list[int]:
    """Token ids given as a sequence or an integer array."""
    array = np.asarray(source)
    if array.ndim == 3:
        raise InputError(
            f"input {list(array.shape)} of {array.dtype}: a picture, and this bundle reads text "
            "alone; use an image-to-text model."
        )
    if array.ndim != 1 or array.size == 0 or not np.issubdtype(array.dtype, np.integer):
        raise InputError(
            f"input {str(source)[:60]!r} ({type(source).__name__}): "
            "expected text, or a flat sequence of token ids."
        )
    return [int(token) for token in array]


def check_ids(ids: Sequence[int], vocabulary: int) -> list[int]:
    bad = [token for token in ids if not 0 <= token < vocabulary]
    if bad:
        raise InputError(f"token id {bad[0]} is outside the vocabulary of {vocabulary}.")
    return list(ids)


def shortened(
    ids: list[int],
    limit: int,
    options: GenerationOptions,
    record: Record,
    *,
    keep: str,
    takes: int = 0,
    end: int = 1,
) -> list[int]:
    """``ids`` cut to ``limit`` with a warning; refused when the options say so.

    ``end``: how many of the last stay where they were when the ``first`` are kept: end marks.
    ``takes`` is what the model has room for when part of that is kept for new tokens.
    """
    said = f"the input has {len(ids)} tokens and the model takes {takes or limit}"
    if not options.truncate:
        raise InputError(f"{said}; shorten it, or allow truncate=True.")
    record.warn(f"{said}; only the {keep} {limit} were used.")
    return [*ids[: limit - end], *ids[len(ids) - end :]] if keep == "first" else ids[-limit:]
