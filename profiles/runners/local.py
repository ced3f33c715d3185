"""This computer: the trials one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgegen.errors import EdgegenError
from edgegen.progress import Progress

from ..apart import run_apart
from ..machine import this_machine
from ..trial import Trial
from .base import Failed, Measured


class Local:
    """Needs nothing."""

    def measure(self, trials: Sequence[Trial], progress: Progress) -> Iterator[Measured | Failed]:
        machine = this_machine()
        for trial in trials:
            progress(str(trial))
            try:
                yield Measured(run_apart(trial), machine)
            except EdgegenError as error:
                yield Failed(trial, error)
