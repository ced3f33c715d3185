"""OpenVINO GenAI's WhisperPipeline, greedy, English."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from openvino_genai import (  # type: ignore[import-not-found,unused-ignore] # pyright: ignore
    WhisperPipeline,
)

from ..protocol import Outcome, Request, Run, Settings
from .audio import samples

PACKAGES = ("openvino-genai", "openvino")


def load(settings: Settings, threads: int) -> Run:
    chosen = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    pipeline = WhisperPipeline(settings["model"], "CPU", **chosen)

    @cache
    def floats(path: str) -> list[float]:
        """What the pipeline takes, made once and never while timed."""
        return [float(sample) for sample in samples(path)]

    def run(request: Request) -> Outcome:
        texts: list[str] = []
        timings = {"encode": 0.0, "decode": 0.0}
        for path in request.audio:
            found = pipeline.generate(floats(path), language="<|en|>", task="transcribe")
            texts.append(str(found).strip())
            raw = found.perf_metrics.whisper_raw_metrics
            timings["encode"] += seconds(raw.features_extraction_durations)
            timings["encode"] += seconds(raw.encode_inference_durations)
            timings["decode"] += seconds(raw.decode_inference_durations)
        return Outcome(texts=texts, timings=timings)

    return run


def seconds(durations: Iterable[float]) -> float:
    """It counts in microseconds."""
    return sum(durations) / 1e6
