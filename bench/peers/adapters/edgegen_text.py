"""edgegen on token ids and texts.

Lengths are fixed by ``min_new_tokens`` = ``max_new_tokens``, which forbids the end mark.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import edgegen
from edgegen import GenerationOptions

from ..protocol import Outcome, Request, Run, Settings

if TYPE_CHECKING:
    from edgegen import Pipeline, Result

# Texts decoded together where a work wants throughput.
BATCH = 32
PACKAGES = ("edgegen", "onnxruntime", "openvino", "numpy")


def load(settings: Settings, threads: int) -> Run:
    drafter = settings.get("draft", "none")
    pipeline = opened(settings, threads)
    several = threads > 1 and settings.get("device", "ort-cpu") == "ort-cpu"

    @cache
    def batches() -> Pipeline:
        """A worker a core does more than one on all of them, once there are texts for each."""
        return opened(settings, 1) if several else pipeline

    ends = set(pipeline.bundle.manifest.generation.end)

    def run(request: Request) -> Outcome:
        options = options_for(request, drafter)
        sources: list[Any] = [list(source) for source in request.sources] or list(request.texts)
        if request.batch:
            workers = threads if several else 1
            results = batches().generate(sources, options, batch_size=BATCH, workers=workers)
        else:
            results = [pipeline.generate(source, options) for source in sources]
        return Outcome(
            tokens=[without_end(result, ends) for result in results] if request.sources else [],
            texts=[result.text for result in results],
            timings=timings(results),
        )

    return run


def opened(settings: Settings, threads: int) -> Pipeline:
    """The bundle as the settings say; costs of drafts are measured where drafts are made."""
    return edgegen.load(
        settings["model"],
        settings.get("device", "ort-cpu"),
        threads,
        exact=settings.get("exact", True),
        calibrate=settings.get("draft", "none") != "none",
    )


def options_for(request: Request, drafter: str) -> GenerationOptions:
    return GenerationOptions(
        max_new_tokens=request.new_tokens or None,
        min_new_tokens=request.least,
        draft=drafter,
        num_beams=request.beams,
    )


def without_end(result: Result, ends: set[int]) -> list[int]:
    tokens = list(result.tokens)
    return tokens[:-1] if tokens and tokens[-1] in ends else tokens


def timings(results: list[Result]) -> dict[str, float]:
    """Seconds, over all sources."""
    times = [result.timings for result in results]
    found = {
        "encode": sum(one.features_ms + one.encode_ms for one in times) / 1e3,
        "decode": sum(step.seconds for one in times for step in one.steps),
        "backend": sum(step.decode_seconds for one in times for step in one.steps),
    }
    drafted = sum(one.draft_tokens_proposed for one in times)
    if drafted:
        found["draft"] = sum(one.draft_ms for one in times) / 1e3
    return found
