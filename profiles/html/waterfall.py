"""One request from the call to its text: every stage where it began and how long it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..record import PassRecord, Profile, Request, StepRecord
from ..report import significant
from ..summary import Summary
from .drawing import WIDE, Axes, Drawing, both, legend
from .scales import fitted
from .section import Section
from .view import ms, title_of, typical

TITLE = "Where the time of one request goes"
ROW = 24
KINDS = ("draft", "decode", "host")


@dataclass(frozen=True)
class Bar:
    """A stretch of time in ms in one row; ``kind`` is its colour."""

    row: str
    kind: str
    start: float
    length: float


def waterfall(profile: Profile) -> Section:
    """The typical request of the run that was fastest from end to end in the longest case."""
    last = max(profile.summaries, key=lambda one: (one.source_tokens, one.tokens)).case
    same = [one for one in profile.summaries if one.case.name == last.name]
    shown = min(same, key=lambda one: one.times["e2e_ms"].median)
    request = typical(shown)
    found = bars(request)
    rows = list(dict.fromkeys(bar.row for bar in found))
    longest = max(rows, key=lambda row: _total(found, row))
    return Section(
        title=TITLE,
        says=f"{title_of(shown)}: {ms(1e3 * request.wall_seconds)} in all for "
        f"{len(request.tokens)} tokens, of which {longest} took {ms(_total(found, longest))}; the "
        f"first token was there after {ms(request.timings.request_ttft_ms)}.",
        body=both(lambda width: _draw(found, rows, request, shown, width))
        + legend(("stage", *KINDS), ("stage", *KINDS)),
    )


def bars(request: Request) -> list[Bar]:
    """Stages in their order; what no clock was on is ``other``, at the end."""
    now = 1e3 * request.read_seconds
    found = [Bar("read", "stage", 0.0, now)] if now else []
    for index, one in enumerate(request.passes):
        stages = (
            ("tokenise", one.tokenize_seconds),
            ("features", one.features_seconds),
            ("encode", one.encode_seconds),
            ("open", one.open_seconds),
            ("detect", one.detect_seconds),
        )
        for name, seconds in stages:
            if seconds:
                found.append(Bar(name, "stage", now, 1e3 * seconds))
                now += 1e3 * seconds
        now = _steps(one, index, now, found)
    rest = 1e3 * request.wall_seconds - now
    return [*found, Bar("other", "host", now, rest)] if rest > 0 else found


def _steps(one: PassRecord, index: int, now: float, found: list[Bar]) -> float:
    for at, step in enumerate(one.steps):
        row = "first decode" if not at and not index else "verify" if step.drafted else "decode"
        for kind, seconds in _parts(step):
            found.append(Bar(row, kind, now, 1e3 * seconds))
            now += 1e3 * seconds
    return now


def _parts(step: StepRecord) -> Sequence[tuple[str, float]]:
    host = step.seconds - step.decode_seconds - step.draft_seconds
    return ("draft", step.draft_seconds), ("decode", step.decode_seconds), ("host", host)


def _total(found: Sequence[Bar], row: str) -> float:
    return sum(bar.length for bar in found if bar.row == row)


def _draw(
    found: Sequence[Bar], rows: Sequence[str], request: Request, shown: Summary, width: int
) -> str:
    axes = Axes(across="time since the call (ms)", up="", left=86, right=58)
    drawing = Drawing(width, axes.top + ROW * len(rows) + axes.bottom, f"{TITLE}: {shown.drafter}")
    left, right, top, bottom = axes.field(width, drawing.height)
    x = fitted([1e3 * request.wall_seconds], left, right)
    for value in x.ticks(3 if width < WIDE else 6):
        drawing.line(x(value), top, x(value), bottom, "grid")
        drawing.text(x(value), bottom + 17, f"{value:,.6g}")
    for at, row in enumerate(rows):
        y = top + at * ROW
        drawing.text(left - 8, y + 16, row, "label", "end")
        for bar in found:
            if bar.row == row and bar.length > 0:
                title = f"{row}, {bar.kind}: {ms(bar.length)} from {ms(bar.start)}"
                length = max(0.6, x(bar.length) - x(0))
                drawing.box(x(bar.start), y + 4, length, ROW - 8, f"fill {bar.kind}", title)
        drawing.text(width - 2, y + 16, significant(_total(found, row)), "value", "end")
    first = x(request.timings.request_ttft_ms)
    drawing.line(first, top, first, bottom, "rule")
    drawing.text((left + right) / 2, drawing.height - 5, axes.across, "name")
    return drawing.svg()
