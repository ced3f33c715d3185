"""Cold and warm: from no process at all to the first token, and the memory it takes."""

from __future__ import annotations

from collections.abc import Sequence

from ..record import Memory, Profile, Run
from ..report import significant
from ..summary import MB, Summary, longest
from .drawing import Axes, Drawing, both, legend
from .scales import Scale, fitted
from .section import Section
from .view import ms, names_of

ROW = 40
Parts = list[tuple[str, float]]
COLD = (("start", "host"), ("load", "stage"), ("first request", "decode"), ("warm", "accepted"))
HELD = (("own memory", "decode"), ("mapped files", "stage"), ("to the peak", "peak"))


def cold_and_warm(profile: Profile) -> Section:
    """Seconds until the first token of a fresh process, and of a request when all is warm."""
    firsts = _firsts(profile)
    rows = [(name, _cold(one)) for name, one in firsts]
    name, best = min(firsts, key=lambda one: sum(time for _, time in _cold(one[1])[:-1]))
    cold = sum(time for _, time in _cold(best)[:-1])
    warm = best.times["request_ttft_ms"].median
    says = f"{name}: {ms(cold)} from nothing to the first token, {ms(warm)} when warm."
    says += _compiled(profile)
    return Section(
        title="Cold and warm",
        says=says,
        body=both(lambda width: _bars(rows, COLD, "time to the first token (ms)", width))
        + legend([one for one, _ in COLD], [kind for _, kind in COLD]),
    )


def memory(profile: Profile) -> Section:
    """Resident memory when loaded, what of it is mapped files, and the peak."""
    firsts = _firsts(profile)
    rows = [(name, _held(one.run)) for name, one in firsts]
    highest = {name: sum(size for _, size in parts) for name, parts in rows}
    least = min(highest, key=highest.__getitem__)
    says = (
        f"{least} peaks lowest, at {significant(highest[least])} MB. Own memory and mapped files "
        "are of a loaded bundle before its first request; the peak is over loading and all cases."
    )
    return Section(
        title="Memory",
        says=says,
        body=both(lambda width: _bars(rows, HELD, "resident memory (MB)", width))
        + legend([one for one, _ in HELD], [kind for _, kind in HELD]),
    )


def _firsts(profile: Profile) -> list[tuple[str, Summary]]:
    """The first plain summary of each run, by what differs among them."""
    found = {id(one.run): one for one in reversed(profile.summaries) if one.drafter == "none"}
    ones = [found[id(run)] for run in profile.runs if id(run) in found]
    return list(zip(names_of(ones), ones, strict=True))


def _cold(one: Summary) -> Parts:
    load, first = one.run.load, one.run.cases[0].requests[0].timings.request_ttft_ms
    return [
        ("start", 1e3 * load.started_seconds),
        ("load", 1e3 * load.load_seconds),
        ("first request", first),
        ("warm", one.times["request_ttft_ms"].median),
    ]


def _held(run: Run) -> Parts:
    after: Memory = run.load.after
    peaks = [case.peak for case in run.cases if case.peak is not None]
    peak = max([after.resident, *peaks])
    own = after.resident if after.anonymous is None else after.anonymous
    mapped = after.resident - own
    parts = (own, mapped, peak - after.resident)
    return [(name, size / MB) for (name, _), size in zip(HELD, parts, strict=True)]


def _compiled(profile: Profile) -> str:
    found = [run.load for run in profile.runs if run.load.compile_cached_seconds]
    if not found:
        return " No device here kept compiled graphs between loads."
    ratio = max(
        longest(one.compile_seconds) / max(1e-9, longest(one.compile_cached_seconds))
        for one in found
    )
    return f" A cache of compiled graphs made compiling up to {ratio:.1f} times as fast."


def _bars(
    rows: Sequence[tuple[str, Parts]], kinds: Sequence[tuple[str, str]], across: str, width: int
) -> str:
    """A bar a row of its parts end to end; ``warm`` stands alone, under its row's bar."""
    axes = Axes(across=across, up="", left=12, right=44)
    drawing = Drawing(width, axes.top + ROW * len(rows) + axes.bottom, across)
    left, right, top, bottom = axes.field(width, drawing.height)
    x = fitted((_whole(parts) for _, parts in rows), left, right)
    _across(drawing, x, top, bottom)
    colour = dict(kinds)
    for at, (name, parts) in enumerate(rows):
        y, now = top + at * ROW, 0.0
        drawing.text(left, y + 12, name, "label", "start")
        for part, value in parts:
            title, kind = f"{name}, {part}: {significant(value)}", f"fill {colour[part]}"
            if part == "warm":
                drawing.box(x(0), y + 29, max(1.0, x(value) - x(0)), 4, kind, title)
                continue
            drawing.box(x(now), y + 17, x(value) - x(0), 11, kind, title)
            now += value
        drawing.text(x(now) + 5, y + 27, significant(now), "value", "start")
    drawing.text((left + right) / 2, drawing.height - 5, across, "name")
    return drawing.svg()


def _whole(parts: Parts) -> float:
    return sum(value for part, value in parts if part != "warm")


def _across(drawing: Drawing, x: Scale, top: float, bottom: float) -> None:
    for value in x.ticks(4):
        drawing.line(x(value), top, x(value), bottom, "grid")
        drawing.text(x(value), bottom + 17, f"{value:,.6g}")
