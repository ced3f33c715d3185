"""edgegen on speech, greedy, English."""

from __future__ import annotations

from edgegen import GenerationOptions

from ..protocol import Outcome, Request, Run, Settings
from .audio import samples
from .edgegen_text import PACKAGES as PACKAGES
from .edgegen_text import opened, timings


def load(settings: Settings, threads: int) -> Run:
    pipeline = opened(settings, threads)
    options = GenerationOptions(language="en", draft=settings.get("draft", "none"))

    def run(request: Request) -> Outcome:
        results = [pipeline.generate(samples(path), options) for path in request.audio]
        return Outcome(texts=[result.text for result in results], timings=timings(results))

    return run
