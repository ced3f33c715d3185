"""The process a trial is measured in: nothing of earlier runs is in its memory.

``python -m edgegen.profiles.child TRIAL ANSWER STARTED``: the files of the trial and of what came
of it, and the parent's monotonic clock, in seconds, when it started this process.
"""

from __future__ import annotations

import sys
from pathlib import Path
from time import monotonic

import msgspec

from edgegen.errors import EdgegenError

from .record import Run
from .trial import Trial, run


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The run, or the error's class and message."""

    run: Run | None = None
    error: str = ""
    message: str = ""


def main(arguments: list[str]) -> int:
    """Measure the trial and write the answer."""
    trial_file, answer_file, started = arguments
    trial = msgspec.json.decode(Path(trial_file).read_bytes(), type=Trial)
    # The monotonic clock is the machine's, so both processes read the same one.
    started_seconds = monotonic() - float(started)
    try:
        answer = Answer(run=run(trial, started_seconds))
    except EdgegenError as error:
        answer = Answer(error=type(error).__name__, message=str(error))
    Path(answer_file).write_bytes(msgspec.json.encode(answer))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
