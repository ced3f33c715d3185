"""Two profiles against each other: which numbers changed by more than a threshold, and which way.

Only ratios of the same run on both sides are compared, and a change of a time counts only when the
spreads of the repetitions do not overlap either: one disturbed repetition is no regression.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from edgegen.errors import InputError, UnknownName
from edgegen.registry import unknown

from .record import Machine, Profile
from .summary import Summary, Value

Key = tuple[Value, ...]
Verdict = Literal["slower", "faster", "larger", "smaller", ""]
KEY = ("bundle", "machine", "device", "threads", "precision", "format", "case", "drafter")
TIMES = ("ttft_ms", "request_ttft_ms", "tpot_ms", "e2e_ms")
SIZES = ("load_ms", "rss_after_load_mb", "peak_rss_mb", "bundle_mb")
METRICS = (*TIMES, *SIZES)


@dataclass(frozen=True, kw_only=True)
class Change:
    """``ratio`` is after / before of the medians: above 1 is slower or larger. ``verdict`` is empty
    within the threshold, and where the spreads of a time overlap."""

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
        where = " ".join(str(part) for part in self.key if part is not None)
        return f"{where}: {self.name} {self.before:.3f} -> {self.after:.3f}, {self.verdict}"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """``ratios`` are all that were compared; ``notes`` what a reader must know beside them."""

    ratios: tuple[Change, ...]
    notes: tuple[str, ...]

    @property
    def changes(self) -> tuple[Change, ...]:
        return tuple(one for one in self.ratios if one.verdict)

    @property
    def worse(self) -> tuple[Change, ...]:
        return tuple(one for one in self.ratios if one.worse)


def compare(
    before: Profile, after: Profile, threshold: float = 1.1, metrics: Sequence[str] = METRICS
) -> Comparison:
    """What both measured, by ratio; beyond ``threshold`` (1.1 is 10 %) it is a change.

    Raises ``InputError`` when they share no run or come of different machines, and ``UnknownName``
    for a metric that is none of ``METRICS``.
    """
    if not threshold > 1:
        raise InputError(f"threshold must be above 1 (1.1 is 10 %), got {threshold}.")
    for name in metrics:
        if name not in METRICS:
            raise UnknownName(unknown("metric", name, list(METRICS)))
    _same_machine(before.machine, after.machine)
    old, new = _by_key(before), _by_key(after)
    shared = [key for key in old if key in new]
    alike = [key for key in shared if _inputs(old[key]) == _inputs(new[key])]
    if not alike:
        raise InputError(
            "the two profiles share no bundle, device, threads, precision, case and drafter"
            + (" with the same inputs." if shared else ".")
        )
    return Comparison(
        ratios=tuple(
            change
            for key in alike
            for change in _changes(key, old[key], new[key], threshold, metrics)
        ),
        notes=tuple(_notes(before, after, old, new, alike)),
    )


def _same_machine(before: Machine, after: Machine) -> None:
    one, two = (f"{each.processor}, {each.cores} cores" for each in (before, after))
    if one != two:
        raise InputError(
            f"profiles of different machines are not compared: {one} and {two}; profile both on "
            "one."
        )


def _notes(
    before: Profile,
    after: Profile,
    old: dict[Key, Summary],
    new: dict[Key, Summary],
    alike: Sequence[Key],
) -> Iterator[str]:
    """Lines on software, weights, inputs and runs that are not the same on both sides."""
    was, now = before.machine, after.machine
    versions = {"python": (was.python, now.python), "system": (was.system, now.system)}
    versions |= {
        name: (was.versions.get(name, "none"), now.versions.get(name, "none"))
        for name in {**was.versions, **now.versions}
    }
    told = [f"{name} {one} -> {two}" for name, (one, two) in versions.items() if one != two]
    if told:
        yield f"Other versions: {', '.join(told)}."
    weights = {
        str(key[0])
        for key in alike
        if old[key].run.subject.decode_sha256 != new[key].run.subject.decode_sha256
    }
    if weights:
        yield f"Other decode graphs: {', '.join(sorted(weights))}."
    inputs = {str(key[KEY.index("case")]) for key in old if key in new and key not in alike}
    if inputs:
        yield f"Other inputs, not compared: {', '.join(sorted(inputs))}."
    counts = [sum(key not in other for key in mine) for mine, other in ((old, new), (new, old))]
    for count, side in zip(counts, ("first", "second"), strict=True):
        if count:
            yield f"In the {side} alone, not compared: {count} of its results."


def _by_key(profile: Profile) -> dict[Key, Summary]:
    found: dict[Key, Summary] = {}
    for summary in profile.summaries:
        row = summary.row()
        found[tuple(row[name] for name in KEY)] = summary
    return found


def _inputs(summary: Summary) -> object:
    """What tells one input from another: the lengths asked for and those of every source."""
    case = summary.case
    sources = {
        (one.item, one.audio_seconds, tuple(part.source_tokens for part in one.passes))
        for one in case.requests
        if one.drafter == summary.drafter
    }
    return case.prompt_tokens, case.new_tokens, sources


def _changes(
    key: Key, old: Summary, new: Summary, threshold: float, metrics: Sequence[str]
) -> Iterator[Change]:
    before, after = old.row(), new.row()
    for name in metrics:
        was, now = before[name], after[name]
        if not isinstance(was, float) or not isinstance(now, float) or was <= 0 or now <= 0:
            continue
        beyond = max(was, now) / min(was, now) > threshold and _apart(name, old, new)
        verdict = _verdict(name, now > was) if beyond else ""
        yield Change(key=key, name=name, before=was, after=now, verdict=verdict)


def _apart(name: str, old: Summary, new: Summary) -> bool:
    """Whether the ends over the repetitions leave room between; sizes have none."""
    if name not in TIMES:
        return True
    was, now = old.times[name], new.times[name]
    return now.low > was.high or now.high < was.low


def _verdict(name: str, more: bool) -> Verdict:
    if name.endswith("_ms"):
        return "slower" if more else "faster"
    return "larger" if more else "smaller"
