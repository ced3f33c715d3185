"""What ``edgegen run`` writes: text as it comes, lines, JSON objects, subtitles, times."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, Self

from edgegen.errors import EdgegenError, InputError, UnknownName
from edgegen.manifest import Manifest
from edgegen.registry import unknown
from edgegen.runtime.subtitles import clock, srt, vtt

from .inputs import Input

if TYPE_CHECKING:
    from edgegen.runtime.options import GenerationOptions
    from edgegen.runtime.pipeline import Pipeline
    from edgegen.runtime.result import Result, Timings

KINDS = ("text", "json", "srt", "vtt")
SUBTITLES: dict[str, Callable[..., str]] = {"srt": srt, "vtt": vtt}
TIMES = ("tokenize_ms", "features_ms", "encode_ms", "first_decode_ms", "ttft_ms",
         "request_ttft_ms", "tpot_ms", "decode_tps", "e2e_ms")  # fmt: skip
DRAFTED = ("draft_tokens_proposed", "draft_tokens_accepted", "draft_acceptance_rate",
           "mean_acceptance_length", "draft_ms", "verify_ms", "reruns", "flips",
           "flip_rate")  # fmt: skip
# A model's text may hold what a terminal obeys.
CONTROLS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


@dataclass(frozen=True, kw_only=True)
class Output:
    """``terminal``: standard output is one, so text is written as it is made."""

    kind: str
    timings: bool
    terminal: bool

    @classmethod
    def of(cls, kind: str, *, timings: bool) -> Self:
        """Raises ``UnknownName``."""
        if kind not in KINDS:
            raise UnknownName(unknown("output format", kind, list(KINDS)))
        return cls(kind=kind, timings=timings, terminal=sys.stdout.isatty())

    def checked(self, options: GenerationOptions) -> GenerationOptions:
        """The options, with the timestamps that subtitles need. Raises ``InputError``."""
        if options.logprobs is not None and self.kind != "json":
            raise InputError("--logprobs are written by --json alone; add it.")
        return options.with_changes(timestamps=True) if self.kind in SUBTITLES else options

    def check_bundle(self, manifest: Manifest, options: GenerationOptions) -> None:
        """Raises ``InputError`` for what only a speech model does."""
        if manifest.speech is not None:
            return
        asked = {
            f"--output-format {self.kind}": self.kind in SUBTITLES,
            "--timestamps": options.timestamps,
            "--task": options.task is not None,
        }
        if manifest.translation is None:
            asked["--language"] = options.language is not None
            asked["--source-language"] = options.source_language is not None
        if wrong := [name for name, is_asked in asked.items() if is_asked]:
            raise InputError(f"{manifest.name} is a text model; {wrong[0]} is for speech models.")

    def write(self, pipeline: Pipeline, item: Input, options: GenerationOptions) -> None:
        """Generate from one source and write what comes of it."""
        if item.blank:
            self._blank(item)
            return
        try:
            result = self._generate(pipeline, item, options)
        except EdgegenError as error:
            if not item.name or item.name in str(error):
                raise
            raise type(error)(f"{item.name}: {error}") from error
        if item.conversation is not None:
            item.conversation.append({"role": "assistant", "content": result.text})
        self._aside(pipeline, item, result)

    def write_together(
        self,
        pipeline: Pipeline,
        items: Sequence[Input],
        options: GenerationOptions,
        size: int,
        workers: int,
    ) -> None:
        """The same for several sources, ``size`` of them decoded together by each worker."""
        sources: list[Any] = [item.source for item in items if not item.blank]
        results = iter(pipeline.generate(sources, options, batch_size=size, workers=workers))
        for item in items:
            if item.blank:
                self._blank(item)
                continue
            result = next(results)
            _put(self._said(item, result))
            self._aside(pipeline, item, result)

    def _aside(self, pipeline: Pipeline, item: Input, result: Result) -> None:
        """What a result says beside its text, on standard error."""
        where = f"{item.name}: " if item.name else ""
        for warning in result.warnings:
            print(f"edgegen: {where}{warning}", file=sys.stderr)
        if self.timings:
            times = {"load_ms": 1e3 * pipeline.load_seconds, **times_of(result.timings)}
            words = "  ".join(f"{name} {number(value)}" for name, value in times.items())
            print(f"edgegen: {where}{words}", file=sys.stderr)

    def _generate(self, pipeline: Pipeline, item: Input, options: GenerationOptions) -> Result:
        streams = self.kind == "text" and self.terminal and not options.timestamps
        streams = streams and options.num_return_sequences == 1
        with closing(pipeline.stream(item.source, options)) as stream:
            for piece in stream:
                if streams:
                    _put(piece.translate(CONTROLS))
            result = stream.result
        if streams:
            _put("" if result.text.endswith("\n") else "\n")
        else:
            _put(self._said(item, result))
        return result

    def _said(self, item: Input, result: Result) -> str:
        """All of a result, as it is written at once."""
        if self.kind == "json":
            return _json_line({"source": item.name or None, **record(result)})
        if self.kind in SUBTITLES:
            return SUBTITLES[self.kind](result.segments)
        if len(result.hypotheses) > 1:
            return "".join(
                f"{one.score:.4f}\t{' '.join(one.text.splitlines())}\n" for one in result.hypotheses
            ).translate(CONTROLS if self.terminal else {})
        text = timed(result) if result.segments else result.text
        if item.line:  # a line out for every line in
            text = " ".join(text.splitlines())
        if self.terminal:
            text = text.translate(CONTROLS)
        return text if text.endswith("\n") else text + "\n"

    def _blank(self, item: Input) -> None:
        nothing: dict[str, Any] = {
            "source": item.name,
            "text": "",
            "tokens": [],
            "finish_reason": None,
        }
        _put(_json_line(nothing) if self.kind == "json" else "\n")


def record(result: Result) -> dict[str, Any]:
    """A result as JSON values: times in milliseconds, segments in seconds."""
    return {
        "text": result.text,
        "tokens": list(result.tokens),
        "finish_reason": result.finish_reason,
        "hypotheses": [
            {
                "text": one.text,
                # No text held the condition: JSON has no infinity.
                "score": one.score if isfinite(one.score) else None,
                "tokens": list(one.tokens),
                "finish_reason": one.finish_reason,
            }
            for one in result.hypotheses
        ],
        "spans": list(result.spans),
        "language": result.language,
        "segments": [
            {"start": one.start, "end": one.end, "text": one.text, "tokens": list(one.tokens)}
            for one in result.segments
        ],
        "logprobs": [
            {"logprob": one.logprob, "alternatives": [list(pair) for pair in one.alternatives]}
            for one in result.logprobs
        ],
        "lossless": result.lossless,
        "speculation": result.speculation,
        "devices": dict(result.devices),
        "placement": result.placement,
        "fallbacks": [asdict(one) for one in result.fallbacks],
        "cached_source": result.cached_source,
        "warnings": list(result.warnings),
        "timings": times_of(result.timings),
    }


def times_of(timings: Timings) -> dict[str, float]:
    """The numbers of docs/metrics.md that this request has."""
    names = [*TIMES]
    names += ["rtfx"] if timings.audio_seconds else []
    names += DRAFTED if timings.draft_tokens_proposed else []
    found: dict[str, float] = {name: getattr(timings, name) for name in names}
    return {"tokens": timings.tokens, **found}


def number(value: float) -> str:
    return (
        str(value) if isinstance(value, int) else f"{value:.4g}" if value < 1000 else f"{value:.0f}"
    )


def timed(result: Result) -> str:
    """Segments, a line each, with their times."""
    return "".join(
        f"[{clock(one.start)} --> {clock(one.end)}] {one.text.strip()}\n" for one in result.segments
    )


def _json_line(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False) + "\n"


def _put(text: str) -> None:
    """Written at once, so that the next program in a pipe need not wait."""
    sys.stdout.write(text)
    sys.stdout.flush()
