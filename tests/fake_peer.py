"""A peer that does what its settings say: takes its time, writes its tokens, falls over."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from peers.protocol import Outcome, Request, Run, Settings, Unavailable

PACKAGES = ("msgspec", "no-such-package")


def load(settings: Settings, threads: int) -> Run:
    """``log`` gets a line a run; ``tokens`` are written for each source, ``drop`` fewer than asked;
    the ``dies`` run ends the process and the ``fails`` run raises."""
    if "refuses" in settings:
        raise Unavailable(settings["refuses"])
    print("words that are no answer")
    runs = 0

    def run(request: Request) -> Outcome:
        nonlocal runs
        runs += 1
        with Path(settings["log"]).open("a", encoding="utf-8") as log:
            log.write(f"{settings['name']} {threads} {request.new_tokens}\n")
        if runs == settings.get("dies"):
            print("out of ink", file=sys.stderr, flush=True)
            os._exit(3)
        if runs == settings.get("fails"):
            raise ValueError("no such\ntoken")
        time.sleep(settings.get("seconds", 0.0) * request.new_tokens)
        wanted = settings.get("tokens", [7])
        tokens = (wanted * request.new_tokens)[: request.new_tokens - settings.get("drop", 0)]
        if settings.get("fickle"):
            tokens = [runs, *tokens[1:]]
        return Outcome(tokens=[tokens for _ in request.sources], timings={"encode": 0.25})

    return run
