"""Text to text: translation, correction, summaries, and continuations of a prompt."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import numpy as np

from edgegen.errors import InputError

from . import chat
from .engine import Engine
from .options import GenerationOptions
from .result import Result, Timings, weakest
from .sentences import split
from .task import Opening, Record, Running, Source, decode
from .tokenizer import Tokenizer


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
        passes = self._encoded if self.has_encoder else self._prompted
        text = yield from passes(source, options, record)
        return Result(
            text=text,
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
        self, source: Source, options: GenerationOptions, record: Record
    ) -> Generator[str, None, str]:
        if not isinstance(source, str):
            return (yield from self._pass(token_ids(source), options, record))
        if not self.defaults.sentences:
            if not source.strip():
                raise InputError("the text is empty; give some text to generate from.")
            return (yield from self._pass(source, options, record))
        room = self.defaults.max_source - len(self.defaults.source_suffix)
        whole = ""
        for sentence in split(source, max_tokens=max(room, 0), count=self._count):
            if sentence.before:
                yield sentence.before
            part = ""
            if sentence.text:
                part = yield from self._pass(sentence.text, options, record)
            if sentence.after:
                yield sentence.after
            whole += sentence.before + part + sentence.after
        return whole

    def _count(self, text: str) -> int:
        return len(self.source.encode(text))

    def _pass(
        self, source: str | Sequence[int], options: GenerationOptions, record: Record
    ) -> Generator[str, None, str]:
        with_model = self.engine.drafts_with_model(options)
        start = perf_counter()
        ids, seen = self._source_ids(source, options, record)
        tokenize_seconds = perf_counter() - start
        opening = Opening(
            prompt=seen if self.defaults.prompt_from_source else self.defaults.start,
            source=seen,
            memory=self.engine.remember_ids(ids, draft=with_model),
            tokenize_seconds=tokenize_seconds,
            stop=options.stop,
        )
        return (yield from decode(self.engine, self.target, opening, options, record))

    def _source_ids(
        self, source: str | Sequence[int], options: GenerationOptions, record: Record
    ) -> tuple[list[int], Sequence[int]]:
        """Ids for the encoder, and the same text in the target's ids for drafters."""
        defaults = self.defaults
        if isinstance(source, str):
            body = [*defaults.source_prefix, *self.source.encode(source), *defaults.source_suffix]
        else:
            body = check_ids(source, self.engine.manifest.vocabulary)
        if defaults.max_source and len(body) > defaults.max_source:
            keep = "last" if defaults.prompt_from_source else "first"
            body = shortened(body, defaults.max_source, options, record, keep=keep)
        if self.target is self.source:
            return body, body
        text = source if isinstance(source, str) else self.source.decode(source)
        return body, self.target.encode(text, add_special=False)

    # --------------------------------------------------------- decoder-only

    def _prompted(
        self, source: Source, options: GenerationOptions, record: Record
    ) -> Generator[str, None, str]:
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
        return (yield from decode(self.engine, self.target, opening, options, record))

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
            ("language", options.language is not None),
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
) -> list[int]:
    """``ids`` cut to ``limit`` with a warning; refused when the options say so.

    ``takes`` is what the model has room for when part of that is kept for new tokens.
    """
    said = f"the input has {len(ids)} tokens and the model takes {takes or limit}"
    if not options.truncate:
        raise InputError(f"{said}; shorten it, or allow truncate=True.")
    record.warn(f"{said}; only the {keep} {limit} were used.")
    # The end mark of a source stays where it was.
    return [*ids[: limit - 1], ids[-1]] if keep == "first" else ids[-limit:]
