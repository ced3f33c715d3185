"""One bundle on one device, measured in this process: load, warm up, repeat, write down.

Nothing but the requests runs while one is timed: memory is read and records are made between them.
"""

from __future__ import annotations

import gc
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import msgspec

from edgegen.manifest import Manifest, Variant
from edgegen.runtime.opening import load
from edgegen.runtime.options import GenerationOptions
from edgegen.runtime.pipeline import Pipeline
from edgegen.runtime.result import Pass, Result
from edgegen.runtime.speculation import rows_of
from edgegen.runtime.text import TextTask
from edgegen.runtime.tokenizer import Tokenizer

from . import memory
from .record import Case, Load, Memory, PassRecord, Place, Request, Run, StepRecord, Subject
from .workload import Job, Workload, cut_ids, jobs


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What one process is told to measure. ``drafters`` run in turns, on the same sources."""

    bundle: str
    device: str
    threads: int
    workload: Workload
    drafters: tuple[str, ...] = ("none",)
    num_assistant_tokens: int | None = None
    precision: str | None = None
    exact: bool = True

    def __str__(self) -> str:
        count = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        words = (Path(self.bundle).name, self.precision, "on", self.device)
        return f"{' '.join(filter(None, words))}, {count}"


def run(trial: Trial, started_seconds: float = 0.0) -> Run:
    """Measure. ``started_seconds`` is what this process needed until now, 0 when it was not started
    for the trial. Raises what ``load`` and ``generate`` raise."""
    gc.collect()
    before = memory.sample()
    speculates = any(drafter != "none" for drafter in trial.drafters)
    pipeline = _open(trial, calibrate=speculates)
    compile_seconds = dict(pipeline.engine.compile_seconds)  # others are compiled when needed
    after = memory.sample()
    with pipeline:
        task = pipeline.task
        tokenizer = task.source if isinstance(task, TextTask) else None
        found = jobs(trial.workload, pipeline.bundle.manifest, tokenizer)
        cases = tuple(_case(trial, pipeline, tokenizer, job, after) for job in found)
        subject, place = _subject(pipeline), _place(trial, pipeline)
    first = cases[0].requests[0].timings.request_ttft_ms / 1e3
    return Run(
        subject=subject,
        place=place,
        load=Load(
            load_seconds=pipeline.load_seconds,
            compile_seconds=compile_seconds,
            compile_cached_seconds=_compile_cached(trial),
            started_seconds=started_seconds,
            first_token_seconds=(
                started_seconds + pipeline.load_seconds + first if started_seconds else 0.0
            ),
            before=before,
            after=after,
        ),
        cases=cases,
    )


def _open(trial: Trial, cache_dir: Path | None = None, *, calibrate: bool = False) -> Pipeline:
    return load(
        trial.bundle,
        trial.device,
        trial.threads,
        precision=trial.precision,
        exact=trial.exact,
        cache_dir=cache_dir,
        calibrate=calibrate,
    )


def _compile_cached(trial: Trial) -> dict[str, float]:
    """Seconds to compile with the device's cache warm; empty when it wrote none."""
    with TemporaryDirectory(prefix="edgegen-cache-") as folder:
        _open(trial, Path(folder)).close()
        if not any(Path(folder).iterdir()):
            return {}
        with _open(trial, Path(folder)) as pipeline:
            return dict(pipeline.engine.compile_seconds)


def _case(
    trial: Trial, pipeline: Pipeline, tokenizer: Tokenizer | None, job: Job, loaded: Memory
) -> Case:
    workload = trial.workload
    gc.collect()
    memory.reset_peak()
    requests: list[Request] = []
    for repetition in range(-workload.warmups, workload.repetitions):
        # Turned about each time, so that no drafter always comes first.
        turned = (repetition + workload.warmups) % 2
        order = trial.drafters[::-1] if turned else trial.drafters
        for item in range(len(job.sources)):
            requests += [
                _request(trial, pipeline, tokenizer, job, item, repetition, drafter)
                for drafter in order
            ]
    left = memory.sample()
    return Case(
        name=job.name,
        prompt_tokens=_length(job),
        new_tokens=job.new_tokens,
        requests=tuple(requests),
        memory=left,
        peak=memory.highest(loaded, left),
    )


def _length(job: Job) -> int:
    before, behind = job.frame
    return len(before) + job.cut + len(behind) if job.cut else 0


def _request(
    trial: Trial,
    pipeline: Pipeline,
    tokenizer: Tokenizer | None,
    job: Job,
    item: int,
    repetition: int,
    drafter: str,
) -> Request:
    source = job.sources[item]
    options = GenerationOptions(
        max_new_tokens=job.new_tokens or None,
        min_new_tokens=job.new_tokens,
        draft=drafter,
        num_assistant_tokens=trial.num_assistant_tokens,
    )
    if job.cut and isinstance(source, str) and tokenizer is not None:
        start = perf_counter()
        ids = cut_ids(job, source, tokenizer)
        tokenize_seconds = perf_counter() - start
        result = pipeline.generate(ids, options)
    else:
        tokenize_seconds, result = 0.0, pipeline.generate(source, options)
    return record(result, drafter, item, repetition, tokenize_seconds)


def record(
    result: Result, drafter: str, item: int, repetition: int, tokenize_seconds: float = 0.0
) -> Request:
    """The raw record of a result; ``tokenize_seconds`` were spent before it was asked for.

    A negative ``repetition`` is a warm-up.
    """
    timings = result.timings
    return Request(
        drafter=drafter,
        item=item,
        repetition=repetition,
        warm_up=repetition < 0,
        passes=tuple(
            _pass(one, 0.0 if index else tokenize_seconds)
            for index, one in enumerate(timings.passes)
        ),
        wall_seconds=timings.wall_seconds + tokenize_seconds,
        read_seconds=timings.read_seconds,
        audio_seconds=timings.audio_seconds,
        finish_reason=result.finish_reason,
        lossless=result.lossless,
    )


def _pass(one: Pass, more_seconds: float) -> PassRecord:
    return PassRecord(
        source_tokens=one.source_tokens,
        tokenize_seconds=one.tokenize_seconds + more_seconds,
        features_seconds=one.features_seconds,
        encode_seconds=one.encode_seconds,
        open_seconds=one.open_seconds,
        detect_seconds=one.detect_seconds,
        steps=tuple(
            StepRecord(
                step.tokens,
                step.drafted,
                step.accepted,
                step.rows,
                step.draft_seconds,
                step.decode_seconds,
                step.seconds,
                step.reruns,
                step.flips,
            )
            for step in one.steps
        ),
    )


def _subject(pipeline: Pipeline) -> Subject:
    bundle, variant = pipeline.bundle, pipeline.engine.variants["decode"]
    manifest = bundle.manifest
    return Subject(
        path=str(bundle.path),
        name=manifest.name,
        family=manifest.family,
        task=manifest.task,
        parameters=manifest.parameters,
        size=bundle.size,
        decode_sha256=next(f.sha256 for f in manifest.files if f.path == variant.file),
        source=manifest.provenance.source,
        revision=manifest.provenance.revision,
        format=variant.format,
        weight_format=variant.precision.weight_format,
        lowering=variant.lowering,
        cache=variant.cache.kind,
        rows=rows_of(pipeline.engine),
        agreement=_agreement(manifest, variant),
    )


def _device(pipeline: Pipeline) -> str:
    """The device of all parts, or of each where they differ."""
    found = pipeline.engine.devices
    if len(set(found.values())) == 1:
        return pipeline.engine.device.name
    return "+".join(f"{part}={name}" for part, name in found.items())


def _agreement(manifest: Manifest, variant: Variant) -> float | None:
    made = (variant.format, variant.precision.weight_format)
    return next(
        (
            one.agreement
            for one in manifest.parity
            if not one.skipped and (one.format, one.weight_format) == made
        ),
        None,
    )


def _place(trial: Trial, pipeline: Pipeline) -> Place:
    device = pipeline.engine.device
    return Place(
        device=_device(pipeline),
        threads=trial.threads,
        exact=trial.exact,
        details=device.describe(),
    )
