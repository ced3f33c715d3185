"""What a decode call costs by its number of rows, measured once on a device and kept in a folder.

The table decides how much drafting pays (decoding cost L(n) of a call over n rows). It is never
measured inside a request. On the models tried, the text's length moves L(n) / L(1) by less than
the measuring does, so one length is measured.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol, cast

from edgegen.untrusted import UNREADABLE
from edgegen.whole import write_whole

ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
# Rows that stand in the cache while calls are timed.
PAST = 48
FORMAT = 1
SECONDS = 1.0
FEWEST_ROUNDS, MOST_ROUNDS = 4, 60


class Target(Protocol):
    """What is timed: a decoder at the start of a text."""

    def forward(
        self, tokens: Sequence[int], parents: Sequence[int] | None = None, first_row: int = 0
    ) -> object: ...
    def keep(self, length: int, rows: Sequence[int] = ()) -> None: ...


@dataclass(frozen=True)
class Costs:
    """``seconds[i]`` is the time of a call over ``rows[i]`` rows. Neither falls."""

    rows: tuple[int, ...]
    seconds: tuple[float, ...]

    def of(self, rows: int) -> float:
        """Seconds of a call, between and beyond the measured sizes on straight lines."""
        sizes, times = self.rows, self.seconds
        at = min(max(bisect_left(sizes, rows), 1), len(sizes) - 1)
        share = (rows - sizes[at - 1]) / (sizes[at] - sizes[at - 1])
        return times[at - 1] + share * (times[at] - times[at - 1])


def measure(
    target: Target,
    token: int = 0,
    *,
    most: int = ROWS[-1],
    past: int | None = None,
    clock: Callable[[], float] = perf_counter,
    seconds: float = SECONDS,
) -> Costs:
    """L(n) for n up to ``most`` from ``target``, which is left unfit for anything else.

    Sizes take turns, so that what else the machine does falls on all alike, for about
    ``seconds``, behind ``past`` rows that stand. Of each the lower quartile counts, because other
    programs only ever add time; then the least monotone change (pool adjacent violators; Ayer et
    al., 1955) is made.
    """
    rows = tuple(n for n in ROWS if n <= max(most, ROWS[1]))
    past = past or max(1, min(PAST, most))
    target.forward([token] * past, first_row=past - 1)
    target.keep(past)
    times: dict[int, list[float]] = {n: [] for n in rows}
    ends = math.inf
    for turn in range(MOST_ROUNDS + 1):
        for n in rows if turn % 2 else reversed(rows):
            start = clock()
            target.forward([token] * n)
            times[n].append(clock() - start)
            target.keep(past)
        if turn == 0:  # first calls allocate
            times = {n: [] for n in rows}
            ends = clock() + seconds
        elif turn >= FEWEST_ROUNDS and clock() > ends:
            break
    return Costs(rows, rising([quartile(times[n]) for n in rows]))


def quartile(values: Sequence[float]) -> float:
    """The lower quartile: at least a quarter are no larger."""
    return sorted(values)[(len(values) - 1) // 4]


def rising(values: Sequence[float]) -> tuple[float, ...]:
    """The nearest sequence, by squares, that never falls."""
    pools: list[tuple[float, int]] = []
    for value in values:
        mean, count = value, 1
        while pools and pools[-1][0] > mean:
            before, weight = pools.pop()
            mean = (before * weight + mean * count) / (weight + count)
            count += weight
        pools.append((mean, count))
    return tuple(mean for mean, count in pools for _ in range(count))


class Store:
    """Tables of costs in a folder, one small JSON file a key. Safe among processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, key: Mapping[str, str]) -> Path:
        text = json.dumps({**key, "format": FORMAT}, sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"

    def read(self, key: Mapping[str, str], warn: Callable[[str], None]) -> Costs | None:
        """The table of a key, or None. A file that makes no sense is said to ``warn``."""
        file = self.file(key)
        try:
            return _parse(json.loads(file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, *UNREADABLE, TypeError, KeyError) as error:
            warn(f"calibration {file} cannot be used ({error!r}); it is measured anew.")
            return None

    def write(self, key: Mapping[str, str], costs: Costs, warn: Callable[[str], None]) -> None:
        """Keep a table; a folder that cannot be written is said to ``warn`` and costs no more."""
        file = self.file(key)
        record = {"key": dict(key), "rows": costs.rows, "seconds": costs.seconds}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(file, json.dumps(record, indent=1).encode())
        except OSError as error:
            warn(f"calibration could not be kept in {self.folder} ({error}); give another folder.")


def _parse(record: Any) -> Costs:
    """Raises ``ValueError``, ``TypeError`` or ``KeyError`` on anything but a table."""
    rows = cast("tuple[object, ...]", tuple(record["rows"]))
    seconds = cast("tuple[object, ...]", tuple(record["seconds"]))
    whole = all(type(n) is int for n in rows)
    times = all(type(t) is float and math.isfinite(t) and t > 0 for t in seconds)
    if not (whole and times and len(rows) == len(seconds) >= 2):
        raise ValueError("expected as many whole numbers of rows as positive seconds")
    costs = Costs(cast("tuple[int, ...]", rows), cast("tuple[float, ...]", seconds))
    if rows != tuple(sorted(set(costs.rows))) or costs.seconds != tuple(sorted(costs.seconds)):
        raise ValueError("expected rows and seconds in rising order")
    return costs


def user_cache() -> Path:
    """Where this user's programs keep what they can make again."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgegen"
