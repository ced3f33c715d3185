"""What the charts look at: summaries with short names, and the request that stands for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from ..record import Profile, Request
from ..report import significant
from ..summary import Summary

Key = tuple[str, ...]


@dataclass(frozen=True)
class Series:
    """Summaries of one bundle, device, number of threads and drafter, by length."""

    name: str
    summaries: tuple[Summary, ...]


def parts_of(summary: Summary) -> dict[str, str]:
    """All that tells one summary from another, the case aside."""
    subject, place = summary.run.subject, summary.run.place
    return {
        "bundle": subject.name,
        "precision": subject.weight_format,
        "format": subject.format,
        "device": place.device,
        "threads": "1 thread" if place.threads == 1 else f"{place.threads} threads",
        "exact": "" if place.exact else "fast arithmetic",
        "drafter": "plain" if summary.drafter == "none" else f"draft {summary.drafter}",
        "machine": summary.run.machine,
    }


def names_of(summaries: Sequence[Summary], leave: Sequence[str] = ()) -> list[str]:
    """Each by what differs among them, and by its bundle where nothing does."""
    found = [parts_of(summary) for summary in summaries]
    differ = [
        part
        for part in (found[0] if found else {})
        if part not in leave and len({one[part] for one in found}) > 1
    ]
    # A bundle's name usually says its precision and format.
    if "bundle" in differ:
        pairs = {(one["bundle"], one["precision"], one["format"]) for one in found}
        if len(pairs) == len({one["bundle"] for one in found}):
            differ = [part for part in differ if part not in ("precision", "format")]
    if "bundle" in differ:
        found = shortened(found)
    return [" · ".join(filter(None, (one[part] for part in differ or ["bundle"]))) for one in found]


def shortened(found: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Bundles without the words before a hyphen that all their names begin with."""
    words = [one["bundle"].split("-") for one in found]
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*words, strict=False))
    cut = min(sum(1 for _ in alike), min(map(len, words)) - 1)
    return [{**one, "bundle": "-".join(name[cut:])} for one, name in zip(found, words, strict=True)]


def series(profile: Profile, *, plain: bool) -> list[Series]:
    """Lines of a chart; ``plain`` leaves the other drafters out."""
    chosen = [one for one in profile.summaries if not plain or one.drafter == "none"]
    groups: dict[Key, list[Summary]] = {}
    for one in chosen:
        groups.setdefault(tuple(parts_of(one).values()), []).append(one)
    names = names_of([group[0] for group in groups.values()])
    return [Series(name, tuple(group)) for name, group in zip(names, groups.values(), strict=True)]


def typical(summary: Summary) -> Request:
    """The measured request whose wall time is the median's, or next below it."""
    mine = [
        one
        for one in summary.case.requests
        if one.drafter == summary.drafter and not one.warm_up
    ]  # fmt: skip
    return sorted(mine, key=lambda one: one.wall_seconds)[(len(mine) - 1) // 2]


def title_of(summary: Summary) -> str:
    """The whole name of a summary, in words."""
    found = {**parts_of(summary), "case": summary.case.name}
    bundle = found.pop("bundle")
    return f"{bundle}: {', '.join(filter(None, found.values()))}"


def ms(value: float) -> str:
    return f"{significant(value)} ms"
