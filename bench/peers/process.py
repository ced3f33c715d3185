"""The driver's end of a worker: start it, ask it, and say in one line how it ended."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

from .protocol import Unavailable

BENCH = Path(__file__).resolve().parent.parent
PATIENCE = 900.0  # seconds until an answer must have come
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class Process:
    """A worker. Every failure is an ``Unavailable`` with one line; the worker has then ended."""

    def __init__(
        self, python: Sequence[str], environment: Mapping[str, str], patience: float = PATIENCE
    ) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._patience = patience
        paths = os.pathsep.join([str(BENCH), *filter(None, [environment.get("PYTHONPATH")])])
        self._child = subprocess.Popen(
            [*python, "-m", "peers.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **environment, "PYTHONPATH": paths},
        )

    def ask(self, do: str, **details: Any) -> dict[str, Any]:
        """The answer. Raises ``Unavailable``."""
        child = self._child
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(json.dumps({"do": do, **details}).encode() + b"\n")
            child.stdin.flush()
        except OSError:
            raise Unavailable(self._death()) from None
        line = self._line(child.stdout.fileno())
        if line is None:
            self.close()
            raise Unavailable(f"no answer within {self._patience:.0f} s")
        if not line:
            raise Unavailable(self._death())
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            self.close()
            raise Unavailable(str(answer["failed"]))
        return answer

    def cpu_seconds(self) -> float:
        """Processor time of the worker so far, by the system's ticks; 0 where it does not tell."""
        try:
            text = Path(f"/proc/{self._child.pid}/stat").read_text()
        except OSError:
            return 0.0
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def close(self) -> None:
        """End the worker, by force if it does not go."""
        child = self._child
        if child.stdin is not None and not child.stdin.closed:
            with suppress(OSError):  # it may have gone already
                child.stdin.write(b'{"do": "stop"}\n')
                child.stdin.close()
        try:
            child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdout is not None:
            child.stdout.close()
        self._errors.close()

    def _line(self, descriptor: int) -> bytes | None:
        """A whole line; what there is of it when the worker ended; None when time ran out."""
        found, end = b"", monotonic() + self._patience
        while not found.endswith(b"\n"):
            ready, _, _ = select.select([descriptor], [], [], max(0.0, end - monotonic()))
            if not ready:
                return None
            part = os.read(descriptor, 1 << 20)
            if not part:
                return b""
            found += part
        return found

    def _death(self) -> str:
        status = self._child.wait()
        ended = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        self._errors.seek(0)
        said = [line.strip() for line in self._errors if line.strip()]
        self.close()
        return f"the process ended with {ended}: {(said or ['it said nothing'])[-1][:300]}"
