"""The contest: in every round each contestant has one turn, in shuffled order, while all others
sleep."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from random import Random
from time import perf_counter, sleep
from typing import Any

import msgspec

from .process import Process
from .protocol import Request, Unavailable
from .record import Entry, Made, PartRun, Turn, WorkRecord
from .works import Contestant, Work

# Threads of OpenMP, TBB and ONNX Runtime spin for up to 0.2 s after their last work.
SETTLE = 0.3

Say = Callable[[str], None]
Requests = Mapping[str, Request]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a contestant runs: its interpreter, its variables, its model and the model's bytes."""

    python: Sequence[str]
    environment: Mapping[str, str]
    model: str
    size: int = 0
    note: str = ""


# Finds or makes a contestant's place. Raises ``Unavailable``.
Prepare = Callable[[Contestant], Place]


@dataclass(kw_only=True)
class Seat:
    """A contestant with one number of threads, and what it did so far."""

    contestant: Contestant
    threads: int
    place: Place | None = None
    process: Process | None = None
    loaded: dict[str, Any] = field(default_factory=dict[str, Any])
    turns: list[Turn] = field(default_factory=list[Turn])
    made: dict[str, Made] = field(default_factory=dict[str, Made])
    missing: str = ""

    def open(self) -> None:
        """Start the process and load. Raises ``Unavailable``."""
        one, place = self.contestant, self.place
        assert place is not None
        count = str(self.threads)
        threads = {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
        self.process = Process(place.python, {**threads, **place.environment, **one.environment})
        settings = {"model": place.model, **one.settings}
        self.loaded = self.process.ask(
            "load", adapter=one.adapter, settings=settings, threads=self.threads
        )

    def run(self, request: Request) -> dict[str, Any]:
        assert self.process is not None
        return self.process.ask("run", request=asdict(request))

    def close(self) -> None:
        if self.process is not None:
            self.process.close()
            self.process = None

    def entry(self) -> Entry:
        one = self.contestant
        return Entry(
            contestant=one.name,
            peer=one.peer,
            ours=one.ours,
            note="; ".join(filter(None, [one.note, self.place.note if self.place else ""])),
            threads=self.threads,
            plain=one.plain,
            load_seconds=self.loaded.get("seconds", 0.0),
            versions=self.loaded.get("versions", {}),
            size=self.place.size if self.place else 0,
            turns=() if self.missing else tuple(self.turns),
            made={} if self.missing else self.made,
            missing=self.missing,
        )


def contest(
    work: Work, prepare: Prepare, *, rounds: int = 5, seed: int = 0, say: Say = print
) -> WorkRecord:
    """Run a work. Whoever cannot take part, or falls over, is left out with its reason."""
    seats = [Seat(contestant=one, threads=n) for one in work.contestants for n in work.threads]
    rounds = work.rounds or rounds
    try:
        requests = dict(work.requests())
    except Unavailable as error:
        return _record(work, rounds, [_gone(seat, error, say) for seat in seats])
    try:
        for seat in seats:
            with _taking_part(seat, say):
                _prepare(seat, work, requests, prepare)
        order = Random(seed)
        for number in range(rounds):
            say(f"{work.name}: round {number + 1} of {rounds}")
            left = [seat for seat in seats if not seat.missing]
            for seat in order.sample(left, len(left)):
                with _taking_part(seat, say):
                    _turn(seat, left, work, requests, number)
    finally:
        for seat in seats:
            seat.close()
    return _record(work, rounds, seats)


def _record(work: Work, rounds: int, seats: Sequence[Seat]) -> WorkRecord:
    return WorkRecord(
        name=work.name,
        title=work.title,
        metrics=work.metrics,
        against=work.against,
        reference=work.reference,
        rounds=rounds,
        entries=tuple(seat.entry() for seat in seats),
    )


@contextmanager
def _taking_part(seat: Seat, say: Say) -> Generator[None, None, None]:
    try:
        yield
    except Unavailable as error:
        _gone(seat, error, say)


def _gone(seat: Seat, error: Unavailable, say: Say) -> Seat:
    seat.missing = str(error)
    seat.close()
    say(f"  not available: {seat.contestant.name}, {seat.threads} threads: {seat.missing}")
    return seat


def _prepare(seat: Seat, work: Work, requests: Requests, prepare: Prepare) -> None:
    """Make what it needs; where processes stay, start, load and warm it up."""
    seat.place = prepare(seat.contestant)
    if work.fresh:
        return
    seat.open()
    for request in requests.values() if work.warm else ():
        seat.run(request)


def _turn(
    seat: Seat, all_seats: Sequence[Seat], work: Work, requests: Requests, number: int
) -> None:
    sleep(SETTLE)
    idle = [other.process for other in all_seats if other is not seat and other.process]
    before, start = sum(process.cpu_seconds() for process in idle), perf_counter()
    if work.fresh:
        seat.open()
    elif work.warm and len(requests) > 1:
        # What is told is a difference of two: the first would be of a process that just woke.
        seat.run(next(iter(requests.values())))
    assert seat.process is not None
    loaded = seat.process.ask("memory")
    parts: dict[str, PartRun] = {}
    start_seconds = 0.0
    for name, request in requests.items():
        answer = seat.run(request)
        start_seconds = start_seconds or perf_counter() - start
        parts[name] = _part(answer)
        seat.made[name] = _made(answer, request, seat.made.get(name))
    after = sum(process.cpu_seconds() for process in idle)
    seat.turns.append(
        Turn(
            round=number,
            parts=parts,
            others_cpu_seconds=after - before,
            start_seconds=start_seconds if work.fresh else 0.0,
            resident=loaded.get("resident", 0) if work.fresh else 0,
            peak=seat.process.ask("memory").get("peak", 0) if work.fresh else 0,
        )
    )
    if work.fresh:
        seat.close()


def _part(answer: Mapping[str, Any]) -> PartRun:
    return PartRun(
        seconds=answer["seconds"],
        cpu_seconds=answer["cpu_seconds"],
        tokens=tuple(len(one) for one in answer["tokens"]) or (0,) * len(answer["texts"]),
        timings=answer["timings"],
    )


def _made(answer: Mapping[str, Any], request: Request, before: Made | None) -> Made:
    tokens = tuple(tuple(one) for one in answer["tokens"])
    asked = 0 if request.ends else request.new_tokens
    now = Made(asked=asked, tokens=tokens, texts=tuple(answer["texts"]))
    if before is None:
        return now
    same = (before.tokens, before.texts) == (now.tokens, now.texts)
    return msgspec.structs.replace(before, steady=before.steady and same)
