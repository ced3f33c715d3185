"""Numbers for people, computed from a profile's records by the definitions of docs/metrics.md.

A summary is of one run, case and drafter. Its ``row`` is what the table, CSV, Markdown and JSON
all show.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from edgegen.runtime.result import Timings

if TYPE_CHECKING:
    from .record import Case, Load, Request, Run

Value = str | int | float | bool | None
MB = 1e6

# Properties of ``Timings`` that are reported with their spread.
TIMES = (
    "tokenize_ms",
    "features_ms",
    "encode_ms",
    "first_decode_ms",
    "ttft_ms",
    "request_ttft_ms",
    "tpot_ms",
    "decode_tps",
    "e2e_ms",
    "host_us",
    "rtfx",
    "draft_ms",
    "verify_ms",
)
PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Spread:
    """The middle and the ends of repeated measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """All three are 0 of no values."""
        found = list(values)
        return cls(median(found), min(found), max(found)) if found else cls(0.0, 0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Speculation:
    """``speedup``: plain wall / this drafter's, medians of the same run. ``identical``: every
    source gave plain decoding's tokens."""

    speedup: float
    identical: bool


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One line of a report."""

    run: Run
    case: Case
    drafter: str
    times: dict[str, Spread]
    # Percentiles, in ms, of the gaps between tokens, pooled over all repetitions.
    itl_ms: dict[int, float]
    # Median of all steps: a step another process disturbed does not move it, as it does the mean.
    host_us_p50: float
    source_tokens: float
    tokens: float
    repetitions: int
    draft_tokens_proposed: int
    draft_tokens_accepted: int
    # Of the steps that drafted, over all repetitions, how many accepted 0, 1, 2... tokens.
    acceptance_histogram: tuple[int, ...]
    steps: int
    # Over all repetitions: rows decided anew because of rounding, and those it had decided.
    reruns: int
    flips: int
    tokens_in_all: int
    # Whether every repetition of a source, warm-ups included, emitted the same tokens.
    repeatable: bool
    lossless: str
    speculation: Speculation | None

    @property
    def draft_acceptance_rate(self) -> float:
        """Accepted / proposed; 0 when nothing was proposed."""
        proposed = self.draft_tokens_proposed
        return self.draft_tokens_accepted / proposed if proposed else 0.0

    @property
    def mean_acceptance_length(self) -> float:
        """1 + accepted / steps."""
        return 1.0 + self.draft_tokens_accepted / self.steps if self.steps else 0.0

    @property
    def flip_rate(self) -> float:
        """Flips / tokens; 0 where rows are independent bit for bit."""
        return self.flips / self.tokens_in_all if self.tokens_in_all else 0.0

    def row(self) -> dict[str, Value]:
        """Every number by its name, the same keys in every summary; None is 'not measured'."""
        return {**self._what(), **self._times(), **_load_row(self.run.load), **self._rest()}

    def _what(self) -> dict[str, Value]:
        subject, place, case = self.run.subject, self.run.place, self.case
        return {
            "bundle": subject.name,
            "machine": self.run.machine or None,
            "device": place.device,
            "threads": place.threads,
            "precision": subject.weight_format,
            "format": subject.format,
            "case": case.name,
            "drafter": self.drafter,
            "prompt_tokens": case.prompt_tokens or None,
            "new_tokens": case.new_tokens or None,
            "source_tokens": self.source_tokens,
            "tokens": self.tokens,
            "repetitions": self.repetitions,
        }

    def _times(self) -> dict[str, Value]:
        found: dict[str, Value] = {}
        for name, spread in self.times.items():
            found[name] = spread.median
            found[f"{name}_min"] = spread.low
            found[f"{name}_max"] = spread.high
        for percentile, value in self.itl_ms.items():
            found[f"itl_ms_p{percentile}"] = value
        found["host_us_p50"] = self.host_us_p50
        return found

    def _rest(self) -> dict[str, Value]:
        told, subject = self.speculation, self.run.subject
        peak = self.case.peak
        return {
            "peak_rss_mb": None if peak is None else peak / MB,
            "bundle_mb": subject.size / MB,
            "agreement": subject.agreement,
            "draft_tokens_proposed": self.draft_tokens_proposed,
            "draft_tokens_accepted": self.draft_tokens_accepted,
            "draft_acceptance_rate": self.draft_acceptance_rate,
            "mean_acceptance_length": self.mean_acceptance_length,
            "acceptance_histogram": " ".join(
                f"{length}:{count}" for length, count in enumerate(self.acceptance_histogram)
            ),
            "reruns": self.reruns,
            "flips": self.flips,
            "flip_rate": self.flip_rate,
            "speedup": told.speedup if told else None,
            "identical_to_plain": told.identical if told else None,
            "repeatable": self.repeatable,
            "lossless": self.lossless,
            "rows": subject.rows,
            "decode_sha256": subject.decode_sha256,
        }


def summarise(run: Run, case: Case, drafter: str) -> Summary:
    """The summary of one drafter in one case."""
    mine = [request for request in case.requests if request.drafter == drafter]
    counted = [request for request in mine if not request.warm_up]
    timings = [request.timings for request in counted]
    gaps = [gap for one in timings for gap in token_gaps(one)]
    return Summary(
        run=run,
        case=case,
        drafter=drafter,
        times={name: Spread.of(getattr(one, name) for one in timings) for name in TIMES},
        itl_ms=percentiles(gaps),
        host_us_p50=_median(
            1e6 * (step.seconds - step.decode_seconds - step.draft_seconds)
            for one in timings
            for step in one.steps
        ),
        source_tokens=_median(sum(part.source_tokens for part in one.passes) for one in timings),
        tokens=_median(one.tokens for one in timings),
        repetitions=len({request.repetition for request in counted}),
        draft_tokens_proposed=sum(one.draft_tokens_proposed for one in timings),
        draft_tokens_accepted=sum(one.draft_tokens_accepted for one in timings),
        acceptance_histogram=_sum(one.acceptance_histogram for one in timings),
        steps=sum(len(one.steps) for one in timings),
        reruns=sum(one.reruns for one in timings),
        flips=sum(one.flips for one in timings),
        tokens_in_all=sum(one.tokens for one in timings),
        repeatable=all(len(texts) == 1 for texts in _texts(mine).values()),
        lossless=mine[0].lossless if mine else "",
        speculation=_against_plain(case, drafter),
    )


def _sum(histograms: Iterable[Sequence[int]]) -> tuple[int, ...]:
    return tuple(sum(counts) for counts in zip_longest(*histograms, fillvalue=0))


def token_gaps(timings: Timings) -> list[float]:
    """Milliseconds between one emitted token and the next, within each pass.

    Tokens of one step are emitted together: the first of them after the step's whole time, the
    others after 0.
    """
    gaps: list[float] = []
    for part in timings.passes:
        for index, step in enumerate(part.steps):
            rest = len(step.tokens) - 1
            if index and step.tokens:
                gaps.append(1e3 * step.seconds)
            gaps += [0.0] * rest
    return gaps


def percentiles(gaps: Sequence[float]) -> dict[int, float]:
    """By linear interpolation between order statistics; 0 of no gaps."""
    if not gaps:
        return dict.fromkeys(PERCENTILES, 0.0)
    found = np.percentile(np.asarray(gaps), PERCENTILES)
    return {name: float(value) for name, value in zip(PERCENTILES, found, strict=True)}


def _median(values: Iterable[float]) -> float:
    found = list(values)
    return float(median(found)) if found else 0.0


def _texts(requests: Iterable[Request]) -> dict[int, set[tuple[int, ...]]]:
    """By source, the different token sequences it gave."""
    found: defaultdict[int, set[tuple[int, ...]]] = defaultdict(set)
    for request in requests:
        found[request.item].add(request.tokens)
    return found


def _against_plain(case: Case, drafter: str) -> Speculation | None:
    if drafter == "none" or "none" not in case.drafters:
        return None
    plain = [request for request in case.requests if request.drafter == "none"]
    mine = [request for request in case.requests if request.drafter == drafter]
    took = _wall(mine)
    return Speculation(
        speedup=_wall(plain) / took if took else 0.0,
        identical=_texts(mine) == _texts(plain),
    )


def _wall(requests: Iterable[Request]) -> float:
    """Seconds for all sources once: the sum of each one's median."""
    walls: defaultdict[int, list[float]] = defaultdict(list)
    for request in requests:
        if not request.warm_up:
            walls[request.item].append(request.wall_seconds)
    return sum(median(found) for found in walls.values())


def longest(seconds: Mapping[str, float]) -> float:
    """Of components that are compiled side by side: until the last is done."""
    return max(seconds.values(), default=0.0)


def _load_row(load: Load) -> dict[str, Value]:
    cached = load.compile_cached_seconds
    after = load.after
    return {
        "load_ms": 1e3 * load.load_seconds,
        "compile_ms": 1e3 * longest(load.compile_seconds),
        "compile_cached_ms": 1e3 * longest(cached) if cached else None,
        "cold_first_token_ms": 1e3 * load.first_token_seconds or None,
        "rss_before_load_mb": load.before.resident / MB,
        "rss_after_load_mb": after.resident / MB,
        "anonymous_after_load_mb": None if after.anonymous is None else after.anonymous / MB,
        "mapped_after_load_mb": None if after.mapped is None else after.mapped / MB,
    }
