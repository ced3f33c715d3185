"""How times grow: to the first token with the source, and a token's with the output."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..record import Profile
from ..summary import Spread, Summary
from .drawing import COLOURS, Axes, Drawing, both, legend
from .scales import fitted
from .section import Section
from .view import Series, ms, series

HEIGHT = 270
Length = Callable[[Summary], float]
Point = tuple[float, Spread]


def ttft_by_source(profile: Profile) -> Section:
    """Plain decoding: a drafter has no part in the first token."""
    return _section(
        profile,
        title="Time to first token against source length",
        names=("source length (tokens)", "time to first token (ms)"),
        length=lambda one: one.source_tokens,
        number="ttft_ms",
        missing="Needs two lengths of the source or more: -p 32,128,512.",
        plain=True,
    )


def tpot_by_output(profile: Profile) -> Section:
    """Every drafter."""
    return _section(
        profile,
        title="Time per token against output length",
        names=("output length (tokens)", "time per token (ms)"),
        length=lambda one: one.tokens,
        number="tpot_ms",
        missing="Needs two lengths of the output or more: -n 16,64,256.",
        plain=False,
    )


def _section(
    profile: Profile, *, title: str, names: tuple[str, str], length: Length, number: str,
    missing: str, plain: bool,
) -> Section:  # fmt: skip
    lines = [
        (one, points)
        for one in series(profile, plain=plain)
        if len(points := _points(one, length, number)) > 1
    ]
    if not lines:
        return Section(title=title, says=missing)
    lines.sort(key=lambda line: line[1][-1][1].median)
    shown = lines[:COLOURS]
    fastest, slowest = shown[0], lines[-1]
    first, last = fastest[1][0], fastest[1][-1]
    says = (
        f"{fastest[0].name} goes from {ms(first[1].median)} at {first[0]:.0f} tokens to "
        f"{ms(last[1].median)} at {last[0]:.0f}. Lines are medians, bars the ends over all "
        "repetitions."
    )
    if len(lines) > 1:
        says += f" Slowest at the longest: {slowest[0].name}, {ms(slowest[1][-1][1].median)}."
    if len(lines) > len(shown):
        says += f" The {len(shown)} fastest of {len(lines)} are drawn; the table has all."
    return Section(
        title=title,
        says=says,
        body=both(lambda width: _draw(title, names, shown, width))
        + legend([one.name for one, _ in shown]),
    )


def _points(one: Series, length: Length, number: str) -> list[Point]:
    """By length; of several cases with the same, the last."""
    found = {length(summary): summary.times[number] for summary in one.summaries}
    return sorted(found.items(), key=lambda point: point[0])


def _draw(
    title: str, names: tuple[str, str], lines: Sequence[tuple[Series, list[Point]]], width: int
) -> str:
    axes = Axes(across=names[0], up=names[1])
    drawing = Drawing(width, HEIGHT, title)
    left, right, top, bottom = axes.field(width, HEIGHT)
    x = fitted((at for _, points in lines for at, _ in points), left, right)
    y = fitted((spread.high for _, points in lines for _, spread in points), bottom, top)
    axes.draw(drawing, x, y)
    for index, (one, points) in enumerate(lines):
        drawing.path([(x(at), y(spread.median)) for at, spread in points], f"line c{index}")
        for at, spread in points:
            drawing.line(x(at), y(spread.low), x(at), y(spread.high), f"whisker c{index}")
            said = f"{one.name}, {at:.0f} tokens: {ms(spread.median)} "
            said += f"({ms(spread.low)} to {ms(spread.high)})"
            drawing.mark(x(at), y(spread.median), index, said)
    return drawing.svg()
