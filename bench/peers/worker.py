"""A contestant's process: loads one adapter, runs what it is asked, and sleeps in between.

    python -m peers.worker

Questions come on standard input. Answers go to what was standard output when the process began;
whatever libraries print goes to standard error, so that it cannot be taken for an answer.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any, TextIO

from .protocol import Request, Run, one_line

STATUS = Path("/proc/self/status")


class Worker:
    """Answers questions until ``stop`` or the end of the input."""

    def __init__(self, answers: TextIO) -> None:
        self._answers = answers
        self._run: Run | None = None

    def serve(self, questions: TextIO) -> None:
        for line in questions:
            question = json.loads(line)
            if question["do"] == "stop":
                return
            try:
                answer = getattr(self, question["do"])(question)
            except Exception as error:  # an adapter may raise anything; the driver goes on
                answer = {"failed": one_line(error)}
            self._answers.write(json.dumps(answer) + "\n")
            self._answers.flush()

    def load(self, question: Mapping[str, Any]) -> dict[str, Any]:
        start = perf_counter()
        adapter: Any = import_module(question["adapter"])
        self._run = adapter.load(question["settings"], question["threads"])
        seconds = perf_counter() - start
        return {"seconds": seconds, "versions": versions(adapter.PACKAGES)}

    def run(self, question: Mapping[str, Any]) -> dict[str, Any]:
        if self._run is None:
            raise RuntimeError("nothing was loaded")
        request = Request.of(question["request"])
        start, cpu = perf_counter(), os.times()
        outcome = self._run(request)
        seconds, after = perf_counter() - start, os.times()
        spent = after.user + after.system - cpu.user - cpu.system
        return {"seconds": seconds, "cpu_seconds": spent, **asdict(outcome)}

    def memory(self, _: Mapping[str, Any]) -> dict[str, int]:
        """Bytes; empty where the system does not tell."""
        fields = {"VmRSS": "resident", "VmHWM": "peak"}
        lines = STATUS.read_text().splitlines() if STATUS.exists() else []
        pairs = [line.split(":") for line in lines if line.partition(":")[0] in fields]
        return {fields[name]: 1024 * int(value.split()[0]) for name, value in pairs}


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    Worker(answers).serve(sys.stdin)
    # Libraries whose threads or objects fall over at exit have nothing left to do.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
