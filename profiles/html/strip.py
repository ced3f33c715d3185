"""Every token of one request by the time since the one before: stalls and drafts are seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from ..record import Profile, Request
from .drawing import Axes, Drawing, both, legend
from .scales import Scale, fitted
from .section import Section
from .view import ms, names_of, title_of, typical

TITLE = "Token by token"
MOST_TOKENS, MOST_ROWS, HEIGHT = 160, 4, 92


@dataclass(frozen=True)
class Token:
    """``gap`` in ms since the token before; ``kind`` says whether a draft brought it."""

    gap: float
    kind: str


def strip(profile: Profile) -> Section:
    """The drafters of the fastest run's longest case, one row each."""
    longest = max(profile.summaries, key=lambda one: (one.tokens, one.source_tokens)).case.name
    same = [one for one in profile.summaries if one.case.name == longest]
    chosen = min(same, key=lambda one: one.times["tpot_ms"].median)
    rows = [one for one in same if one.run is chosen.run][:MOST_ROWS]
    found = [tokens_of(typical(one)) for one in rows]
    if max(map(len, found)) < 2:
        return Section(title=TITLE, says="Needs two tokens or more: -n 16.")
    at = rows.index(chosen) if chosen in rows else 0
    gaps = [token.gap for token in found[at][1:]]
    worst = max(range(len(gaps)), key=lambda index: gaps[index])
    drafted = sum(token.kind == "accepted" for token in found[at])
    says = (
        f"{title_of(rows[at])}: gaps of {ms(median(gaps))} in the middle, the longest "
        f"{ms(gaps[worst])} before token {worst + 2}"
    )
    says += f"; {drafted} of {len(found[at])} tokens came with a draft." if drafted else "."
    if max(map(len, found)) > MOST_TOKENS:
        says += f" The first {MOST_TOKENS} are drawn."
    names = names_of(rows)
    return Section(
        title=TITLE,
        says=says,
        body=both(lambda width: _draw(names, [one[1:MOST_TOKENS] for one in found], width))
        + legend(
            ("plain step", "step with a draft", "accepted with the token before"),
            ("decode", "draft", "accepted"),
        ),
    )


def tokens_of(request: Request) -> list[Token]:
    """In the order they were emitted; the first of each pass has no gap and counts as 0."""
    found: list[Token] = []
    for one in request.passes:
        for at, step in enumerate(one.steps):
            kind = "draft" if step.drafted else "decode"
            gap = 1e3 * step.seconds if at else 0.0
            found += [Token(0.0 if more else gap, "accepted" if more else kind)
                      for more in range(len(step.tokens))]  # fmt: skip
    return found


def _draw(names: Sequence[str], rows: Sequence[Sequence[Token]], width: int) -> str:
    axes = Axes(across="token (position in the output)", up="ms", top=20)
    drawing = Drawing(width, 20 + HEIGHT * len(rows) + axes.bottom, TITLE)
    left, right, _, _ = axes.field(width, drawing.height)
    most = max(map(len, rows))
    x = Scale(1.5, most + 1.5, left, right)
    highest = [token.gap for row in rows for token in row]
    for at, (name, row) in enumerate(zip(names, rows, strict=True)):
        top, bottom = 20.0 + at * HEIGHT + 8, 20.0 + (at + 1) * HEIGHT - 12
        y = fitted(highest, bottom, top)
        drawing.text(left, top - 7, name, "label", "start")
        for value in y.ticks(2):
            drawing.line(left, y(value), right, y(value), "grid")
            drawing.text(left - 7, y(value) + 4, f"{value:.6g}", anchor="end")
        for place, token in enumerate(row, 2):
            step = (right - left) / most
            high = max(2.5, bottom - y(token.gap))
            drawing.box(x(place - 0.5), bottom - high, max(0.8, step - 0.6), high,
                        f"fill {token.kind}", f"token {place}: {ms(token.gap)}")  # fmt: skip
        drawing.line(left, bottom, right, bottom, "axis")
        drawing.text(13, (top + bottom) / 2, "gap (ms)", "name", turn=True)
    foot = drawing.height - axes.bottom
    for value in map(float, Scale(2.0, most + 1.0, left, right).ticks(5)):
        if value.is_integer():
            drawing.text(x(value), foot + 10, f"{value:.0f}")
    drawing.text((left + right) / 2, drawing.height - 5, axes.across, "name")
    return drawing.svg()
