"""From numbers to places on an axis, and the round numbers that stand along it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor, log10

STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True)
class Scale:
    """Linear: ``low`` lies at ``start`` and ``high`` at ``end``, in the units of the drawing."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, wanted: int) -> list[float]:
        """Round numbers from ``low`` to ``high``, about as many as ``wanted``."""
        step = round_step((self.high - self.low) / max(1, wanted))
        first, last = ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]


def fitted(values: Iterable[float], start: float, end: float, *, zero: bool = True) -> Scale:
    """A scale with a little room behind the largest value; from 0 unless ``zero`` is False."""
    found = list(values) or [0.0]
    low, high = (0.0 if zero else min(found)), max(found)
    room = 0.06 * (high - low) or abs(high) or 1.0
    return Scale(low if zero else low - room, high + room, start, end)


def round_step(rough: float) -> float:
    """The least of 1, 2, 2.5, 5 times a power of ten that is no less than ``rough``."""
    if rough <= 0:
        return 1.0
    power = 10.0 ** floor(log10(rough))
    return next(step * power for step in STEPS if step * power >= rough * (1 - 1e-9))


def tick_text(value: float) -> str:
    """A round number as a label."""
    return f"{value:,.6g}" if abs(value) < 1e6 else f"{value:,.0f}"
