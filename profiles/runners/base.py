"""What an engine of a sweep is: trials in, and for each what came of it and on which machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from edgegen.errors import EdgegenError
from edgegen.progress import Progress

from ..record import Machine, Run
from ..trial import Trial


@dataclass(frozen=True)
class Measured:
    """A trial that was run."""

    run: Run
    machine: Machine


@dataclass(frozen=True)
class Failed:
    """A trial that was not. ``machine`` is the node's name, empty for this computer."""

    trial: Trial
    error: EdgegenError
    machine: str = ""


class Runner(Protocol):
    """Measures trials, on each machine one at a time and each in a process of its own."""

    def measure(self, trials: Sequence[Trial], progress: Progress) -> Iterable[Measured | Failed]:
        """What came of the trials, as they end. Raises ``EdgegenError`` where none can be run."""
        ...
