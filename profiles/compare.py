"""Two profiles against each other: which numbers changed by more than a threshold, and which way.

Only ratios of the same run on both sides are compared, and a change of a time counts only when the
spreads of the repetitions do not overlap either: one disturbed repetition is no regression.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgegen.errors import InputError, UnknownName
from edgegen.registry import unknown
from edgegen.runtime.parts import DEFAULT
from edgegen.runtime.placement import by_part

from .record import Machine, Missing, Profile, Run
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

    @property
    def where(self) -> str:
        return _words(self.key)

    def __str__(self) -> str:
        return f"{self.where}: {self.name} {self.before:.3f} -> {self.after:.3f}, {self.verdict}"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """``ratios`` are all that were compared; ``notes`` what a reader must know beside them.

    ``missing`` is what the first profile measured and the second could not.
    """

    ratios: tuple[Change, ...]
    notes: tuple[str, ...]
    missing: tuple[Missing, ...] = ()

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

    Raises ``InputError`` when they share no run, come of different machines or hold two results of
    one key, and ``UnknownName`` for a metric that is none of ``METRICS``.
    """
    if not threshold > 1:
        raise InputError(f"threshold must be above 1 (1.1 is 10 %), got {threshold}.")
    for name in metrics:
        if name not in METRICS:
            raise UnknownName(unknown("metric", name, list(METRICS)))
    _same_machine(before.machine, after.machine)
    old, new = _by_key(before, "first"), _by_key(after, "second")
    gone = [summary.run for key, summary in old.items() if key not in new]
    missing = tuple(one for one in after.missing if any(_is_of(one, run) for run in gone))
    shared = [key for key in old if key in new]
    alike = [key for key in shared if _inputs(old[key]) == _inputs(new[key])]
    if not alike and not missing:
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
        notes=(*_notes(before, after, old, new, alike), *map(_lost, missing)),
        missing=missing,
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


def _lost(missing: Missing) -> str:
    return f"Measured in the first, missing in the second: {str(missing).removesuffix('.')}."


def _is_of(missing: Missing, run: Run) -> bool:
    """Whether a run is what could not be measured. A bundle is known by its own name or by its
    folder's; devices are named for all parts or by part."""
    subject, place = run.subject, run.place
    weights = by_part(missing.precision, "")
    asked, had = by_part(missing.device), by_part(place.device)
    parts = {name.partition("+")[0] for name in run.load.compile_seconds}
    return (
        missing.bundle in (subject.name, Path(subject.path).name)
        and missing.threads == place.threads
        and weights.get("decode", weights.get(DEFAULT)) in (None, subject.weight_format)
        and all(asked.get(p, asked[DEFAULT]) == had.get(p, had[DEFAULT]) for p in parts)
    )


def _by_key(profile: Profile, side: str) -> dict[Key, Summary]:
    """Raises ``InputError`` for two of a key: one would hide the other."""
    found: dict[Key, Summary] = {}
    for summary in profile.summaries:
        row = summary.row()
        key = tuple(row[name] for name in KEY)
        if key in found:
            raise InputError(
                f"the {side} profile holds two results of {_words(key)}; save each in a file of "
                "its own."
            )
        found[key] = summary
    return found


def _words(key: Key) -> str:
    return " ".join(str(part) for part in key if part is not None)


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
