"""What a bench wrote down: every turn with its seconds, and what it made. All else is computed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from edgegen.profiles.record import Machine

SCHEMA_VERSION = "1.0"


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every record."""


class PartRun(Part, frozen=True, kw_only=True):
    """One request of a turn. ``timings`` are the peer's own, in seconds; ``cpu_seconds`` of all
    its threads."""

    seconds: float
    cpu_seconds: float
    tokens: tuple[int, ...]  # how many, a source
    timings: dict[str, float] = {}


class Turn(Part, frozen=True, kw_only=True):
    """One contestant's turn in one round: every request of the work, once.

    ``start_seconds`` is from the start of a fresh process to the end of its first request, where
    the work starts one a turn; ``resident`` after loading and ``peak`` at the end are bytes.
    ``others_cpu_seconds`` is what all the idle workers together took meanwhile.
    """

    round: int
    parts: dict[str, PartRun]
    others_cpu_seconds: float = 0.0
    start_seconds: float = 0.0
    resident: int = 0
    peak: int = 0


class Made(Part, frozen=True, kw_only=True):
    """What one request gave in the first turn. ``steady``: every other turn gave the same.
    ``asked`` is the number of tokens each source was to give, 0 for up to its own end."""

    asked: int
    tokens: tuple[tuple[int, ...], ...]
    texts: tuple[str, ...]
    steady: bool = True


class Entry(Part, frozen=True, kw_only=True):
    """One contestant with one number of threads. ``missing`` says why there is nothing else."""

    contestant: str
    peer: str
    ours: bool
    note: str
    threads: int
    plain: str = ""  # the contestant whose tokens it promises to give
    load_seconds: float = 0.0
    versions: dict[str, str] = {}
    size: int = 0  # bytes of the model's files
    turns: tuple[Turn, ...] = ()
    made: dict[str, Made] = {}
    missing: str = ""


class WorkRecord(Part, frozen=True, kw_only=True):
    """One work. ``metrics`` are names in ``metrics.METRICS``, the first the one to compare by;
    ``against`` the peer whose ratios are shown, ``reference`` the contestant all are held to."""

    name: str
    title: str
    metrics: tuple[str, ...]
    against: str
    reference: str
    rounds: int
    entries: tuple[Entry, ...]

    def entry(self, contestant: str, threads: int) -> Entry | None:
        return next(
            (e for e in self.entries if e.contestant == contestant and e.threads == threads), None
        )

    @property
    def present(self) -> list[Entry]:
        return [entry for entry in self.entries if not entry.missing]


class Results(Part, frozen=True, kw_only=True):
    """A run of the bench. ``created`` is UTC, ISO 8601; ``quick`` times mean nothing."""

    schema_version: str = SCHEMA_VERSION
    created: str
    quick: bool
    machine: Machine
    works: tuple[WorkRecord, ...]

    def save(self, path: Path) -> None:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")

    @classmethod
    def load(cls, path: Path) -> Results:
        return msgspec.json.decode(path.read_bytes(), type=cls)


def contestants(works: tuple[WorkRecord, ...]) -> Iterator[Entry]:
    """Every contestant of a run once, with its versions."""
    seen: set[str] = set()
    for work in works:
        for entry in work.entries:
            if entry.contestant not in seen:
                seen.add(entry.contestant)
                yield entry
