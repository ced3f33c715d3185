"""A trial in a process of its own: started, awaited, its answer or its death read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import msgspec

from edgegen import errors
from edgegen.errors import DeviceError, EdgegenError

from .child import Answer
from .record import Run
from .trial import Trial


def run_apart(trial: Trial) -> Run:
    """``run`` in a fresh process. Raises what it raised there, and ``DeviceError`` if it died."""
    with TemporaryDirectory(prefix="edgegen-profile-") as folder:
        told, answered = Path(folder, "trial.json"), Path(folder, "answer.json")
        told.write_bytes(msgspec.json.encode(trial))
        # The same places as here and in the same order, so that the same edgegen is found.
        paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
        command = [sys.executable, "-P", "-m", "edgegen.profiles.child", str(told), str(answered)]
        ended = subprocess.run(
            [*command, repr(monotonic())],
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            check=False,
        )
        if ended.returncode or not answered.exists():
            raise DeviceError(_death(trial, ended.returncode, ended.stderr))
        answer = msgspec.json.decode(answered.read_bytes(), type=Answer)
    if answer.run is None:
        raise raised(answer)
    return answer.run


def raised(answer: Answer) -> EdgegenError:
    """The error an answer tells of, of the class it had."""
    kinds: dict[str, type[EdgegenError]] = {
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, EdgegenError)
    }
    return kinds.get(answer.error, EdgegenError)(answer.message)


def _death(trial: Trial, status: int, said: str) -> str:
    ended = f"status {status}"
    if status < 0:
        ended = f"signal {signal.Signals(-status).name}"
    last = (said.strip().splitlines() or ["it said nothing"])[-1][:300]
    return (
        f"profiling {Path(trial.bundle).name} on {trial.device}: "
        f"the process ended with {ended}: {last}"
    )
