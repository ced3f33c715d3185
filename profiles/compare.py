"""Two profiles against each other: which numbers changed by more than a threshold, and which way.

Only ratios of the same run on both sides are compared, and a change counts only when the spreads of
the repetitions do not overlap either: one disturbed repetition is no regression.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgegen.errors import InputError

from .record import Profile
from .summary import Summary, Value

Key = tuple[Value, ...]
Verdict = Literal["slower", "faster", "larger", "smaller"]
KEY = ("bundle", "device", "threads", "precision", "format", "case", "drafter")
TIMES = ("ttft_ms", "request_ttft_ms", "tpot_ms", "e2e_ms")
SIZES = ("load_ms", "rss_after_load_mb", "peak_rss_mb", "bundle_mb")


@dataclass(frozen=True, kw_only=True)
class Change:
    """``ratio`` is after / before of the medians: above 1 is slower or larger."""

    key: Key
    name: str
    before: float
    after: float
    verdict: Verdict

    @property
    def ratio(self) -> float:
        return self.after / self.before

    @property
    def worse(self) -> bool:
        return self.verdict in ("slower", "larger")

    def __str__(self) -> str:
        where = " ".join(str(part) for part in self.key)
        return f"{where}: {self.name} {self.before:.3f} -> {self.after:.3f}, {self.verdict}"


def compare(before: Profile, after: Profile, threshold: float = 0.1) -> tuple[Change, ...]:
    """Changes beyond ``threshold`` (0.1 is 10 %) of what both profiles measured.

    Raises ``InputError`` when they share no run or come of different machines.
    """
    if threshold <= 0:
        raise InputError(f"threshold must be above 0, got {threshold}.")
    if before.machine.processor != after.machine.processor:
        raise InputError(
            f"profiles of different machines are not compared: {before.machine.processor} and "
            f"{after.machine.processor}."
        )
    old = {_key(summary): summary for summary in before.summaries}
    new = {_key(summary): summary for summary in after.summaries}
    shared = [key for key in old if key in new]
    if not shared:
        raise InputError("the two profiles share no bundle, device, threads, case and drafter.")
    return tuple(
        change for key in shared for change in _changes(key, old[key], new[key], threshold)
    )


def _key(summary: Summary) -> Key:
    row = summary.row()
    return tuple(row[name] for name in KEY)


def _changes(key: Key, old: Summary, new: Summary, threshold: float) -> Sequence[Change]:
    found: list[Change] = []
    for name in TIMES:
        was, now = old.times[name], new.times[name]
        apart = now.low > was.high or now.high < was.low
        if apart and _beyond(was.median, now.median, threshold):
            verdict: Verdict = "slower" if now.median > was.median else "faster"
            found.append(_change(key, name, was.median, now.median, verdict))
    before, after = old.row(), new.row()
    for name in SIZES:
        low, high = before[name], after[name]
        if isinstance(low, float) and isinstance(high, float) and _beyond(low, high, threshold):
            more: Verdict = "slower" if name.endswith("_ms") else "larger"
            less: Verdict = "faster" if name.endswith("_ms") else "smaller"
            found.append(_change(key, name, low, high, more if high > low else less))
    return found


def _change(key: Key, name: str, before: float, after: float, verdict: Verdict) -> Change:
    return Change(key=key, name=name, before=before, after=after, verdict=verdict)


def _beyond(before: float, after: float, threshold: float) -> bool:
    if before <= 0 or after <= 0:
        return False
    return max(before, after) / min(before, after) > 1 + threshold
