"""Plots of a study as SVG text: lines over source length, whiskers from the least to the most."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 30, 36
# Readable by those who see no red or green (Okabe and Ito's palette).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
TICKS = (1.0, 2.0, 5.0)


@dataclass(frozen=True, kw_only=True)
class Point:
    """A median at ``x``, and its least and most."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes, both logarithmic; lines by their names."""

    title: str
    lines: tuple[tuple[str, tuple[Point, ...]], ...]


def figure(panels: Sequence[Panel], x_label: str, y_label: str, columns: int = 2) -> str:
    """One picture of all panels, on white so that it can be read on any page."""
    rows = math.ceil(len(panels) / columns)
    wide, high = WIDTH * columns, HEIGHT * rows
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" '
        f'height="{high}" font-family="sans-serif" font-size="11">',
        f'<rect width="{wide}" height="{high}" fill="#ffffff"/>',
    ]
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        parts.append(f'<g transform="translate({column * WIDTH} {row * HEIGHT})">')
        parts += drawn(panel, x_label, y_label)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def drawn(panel: Panel, x_label: str, y_label: str) -> list[str]:
    """The parts of one panel."""
    points = [point for _, line in panel.lines for point in line]
    xs = sorted({point.x for point in points})
    across = Axis(xs[0] / 1.15, xs[-1] * 1.15, LEFT, WIDTH - RIGHT)
    down = Axis(
        min(p.low for p in points) / 1.2, max(p.high for p in points) * 1.2, HEIGHT - BOTTOM, TOP
    )
    parts = [text(LEFT, 14, panel.title, weight="bold")]
    for value in down.ticks():
        y = down.at(value)
        parts.append(line_of([(LEFT, y), (WIDTH - RIGHT, y)], "#dddddd", 1))
        parts.append(text(LEFT - 4, y + 4, f"{value:g}", anchor="end"))
    parts += [text(across.at(x), HEIGHT - BOTTOM + 14, f"{x:g}", anchor="middle") for x in xs]
    parts.append(text(WIDTH - RIGHT, HEIGHT - 6, x_label, anchor="end"))
    parts.append(text(LEFT, TOP - 5, y_label))
    for number, (name, line) in enumerate(panel.lines):
        colour = COLOURS[number % len(COLOURS)]
        parts.append(line_of([(across.at(p.x), down.at(p.y)) for p in line], colour, 2))
        for point in line:
            x = across.at(point.x)
            parts.append(line_of([(x, down.at(point.low)), (x, down.at(point.high))], colour, 1))
            parts.append(
                f'<circle cx="{x:.1f}" cy="{down.at(point.y):.1f}" r="3" fill="{colour}"/>'
            )
        parts.append(text(LEFT + 130 * number, HEIGHT - 6, f"● {name}", colour=colour))
    return parts


@dataclass(frozen=True)
class Axis:
    """A logarithmic scale from values to places on the page."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """1, 2 and 5 times powers of ten that lie on the axis."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        values = (tick * 10.0**power for power in powers for tick in TICKS)
        return [value for value in values if self.low <= value <= self.high]


def line_of(points: Iterable[tuple[float, float]], colour: str, width: int) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>'


def text(
    x: float,
    y: float,
    words: str,
    *,
    anchor: str = "start",
    weight: str = "normal",
    colour: str = "#222222",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" '
        f'fill="{colour}">{escape(words)}</text>'
    )
