"""A recording heard window by window: only what is still ahead is held in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from time import perf_counter

import numpy as np

from .audio import Samples


class Recording:
    """Samples by position. Positions asked for never go back.

    ``read_seconds`` is the time spent fetching and ``heard`` the samples fetched, so far.
    """

    def __init__(self, parts: Iterable[Samples], window: int) -> None:
        self._parts: Iterator[Samples] = iter(parts)
        self._window = window
        self._held: Samples = np.zeros(0, np.float32)
        self._start = 0  # position of the first sample held
        self.read_seconds = 0.0

    @property
    def heard(self) -> int:
        return self._start + self._held.size

    def window(self, position: int) -> Samples:
        """Up to a window of samples from ``position``; fewer at the end, none after it."""
        self._fetch(position + self._window)
        passed = min(position - self._start, self._held.size)
        self._held, self._start = self._held[passed:], self._start + passed
        return self._held[: self._window]

    def goes_beyond(self, position: int) -> bool:
        """Whether there is sound after ``position``."""
        self._fetch(position + 1)
        return self.heard > position

    def _fetch(self, end: int) -> None:
        """Fetch until the samples before ``end`` are held, or all there are."""
        start = perf_counter()
        missing = end - self.heard
        found = [self._held]
        while missing > 0 and (part := next(self._parts, None)) is not None:
            found.append(part)
            missing -= part.size
        if len(found) > 1:
            self._held = np.concatenate(found)
        self.read_seconds += perf_counter() - start
