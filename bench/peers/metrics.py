"""Numbers of a turn, their medians over rounds, and ratios between two contestants.

A ratio is taken in each round and the median of those is told: what disturbed a round disturbed
both sides of its ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from .record import Entry, Turn, WorkRecord


@dataclass(frozen=True, kw_only=True)
class Metric:
    """``of`` gives None where a turn does not tell. Less is better in all of them."""

    title: str
    unit: str
    of: Callable[[Turn], float | None]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Median and range over the rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def over(cls, values: Sequence[float]) -> Spread | None:
        if not values:
            return None
        return cls(median=median(values), least=min(values), most=max(values))


def _first_token(turn: Turn) -> float | None:
    first = turn.parts.get("first")
    return 1e3 * first.seconds if first else None


def _whole(turn: Turn) -> float | None:
    whole = turn.parts.get("whole")
    return 1e3 * whole.seconds if whole else None


def _per_token(turn: Turn) -> float | None:
    """What tokens after the first cost: a whole generation less one of a single token."""
    first, whole = turn.parts.get("first"), turn.parts.get("whole")
    if first is None or whole is None:
        return None
    later = sum(whole.tokens) - sum(first.tokens)
    return 1e3 * (whole.seconds - first.seconds) / later if later > 0 else None


def _own(name: str) -> Callable[[Turn], float | None]:
    """A time the peer itself told, summed over the turn's requests."""

    def of(turn: Turn) -> float | None:
        told = [part.timings[name] for part in turn.parts.values() if name in part.timings]
        return 1e3 * sum(told) if told else None

    return of


def _seconds(turn: Turn) -> float:
    return sum(part.seconds for part in turn.parts.values())


def _each_token(turn: Turn) -> float | None:
    count = sum(sum(part.tokens) for part in turn.parts.values())
    return 1e3 * _seconds(turn) / count if count else None


def _each_source(turn: Turn) -> float | None:
    count = sum(len(part.tokens) for part in turn.parts.values())
    return 1e3 * _seconds(turn) / count if count else None


def _together(turn: Turn) -> float | None:
    """A text's share of a batch."""
    batch = turn.parts.get("batch")
    return 1e3 * batch.seconds / len(batch.tokens) if batch else None


def _of_alone(turn: Turn) -> float | None:
    """That share over what a text takes alone: the inverse of what a batch brings."""
    alone, together = turn.parts.get("alone"), _together(turn)
    if alone is None or together is None:
        return None
    return together / (1e3 * alone.seconds / len(alone.tokens))


METRICS: dict[str, Metric] = {
    "together": Metric(title="a text in the batch", unit="ms", of=_together),
    "of_alone": Metric(title="of one alone", unit="", of=_of_alone),
    "per_token": Metric(title="each later token", unit="ms", of=_per_token),
    "first_token": Metric(title="first token", unit="ms", of=_first_token),
    "whole": Metric(title="all tokens", unit="ms", of=_whole),
    "total": Metric(title="all of it", unit="ms", of=lambda turn: 1e3 * _seconds(turn)),
    "each_token": Metric(title="each token, encoding included", unit="ms", of=_each_token),
    "each_source": Metric(title="each source", unit="ms", of=_each_source),
    "encode": Metric(title="encoding, as it says itself", unit="ms", of=_own("encode")),
    "decode": Metric(title="decoding, as it says itself", unit="ms", of=_own("decode")),
    "start": Metric(
        title="process start to first token", unit="ms", of=lambda turn: 1e3 * turn.start_seconds
    ),
    "resident": Metric(
        title="resident after loading", unit="MB", of=lambda turn: turn.resident / 1e6 or None
    ),
    "peak": Metric(title="peak resident", unit="MB", of=lambda turn: turn.peak / 1e6 or None),
}


def by_round(entry: Entry, metric: str) -> dict[int, float]:
    """Where a turn gave no number, its round is left out."""
    found = {turn.round: METRICS[metric].of(turn) for turn in entry.turns}
    return {number: value for number, value in found.items() if value is not None}


def spread(entry: Entry, metric: str) -> Spread | None:
    return Spread.over(list(by_round(entry, metric).values()))


def ratio(entry: Entry, other: Entry, metric: str) -> Spread | None:
    """How many times ``other``'s number is ``entry``'s: above 1, ``entry`` is the better."""
    mine, theirs = by_round(entry, metric), by_round(other, metric)
    shared = [number for number in mine if number in theirs and mine[number] > 0]
    return Spread.over([theirs[number] / mine[number] for number in shared])


def best_threads(work: WorkRecord, contestant: str, metric: str) -> Entry | None:
    """The contestant with the number of threads whose median is least."""
    entries = [entry for entry in work.present if entry.contestant == contestant]
    known = [(found.median, entry) for entry in entries if (found := spread(entry, metric))]
    return min(known, key=lambda pair: pair[0])[1] if known else None


def best_peer(entries: Sequence[Entry], metric: str) -> Entry | None:
    """The fastest that is not ours."""
    known = [
        (found.median, entry)
        for entry in entries
        if not entry.ours and (found := spread(entry, metric))
    ]
    return min(known, key=lambda pair: pair[0])[1] if known else None
