"""`make bench-peers`: run works, print their tables, write JSON, Markdown and plots."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from edgegen.errors import EdgegenError
from edgegen.profiles.machine import this_machine

from . import models
from .contest import Place, contest
from .environments import HERE, WORKER, interpreter
from .protocol import Unavailable
from .record import Results
from .report import write
from .table import works
from .works import Contestant, Work

RESULTS = HERE / "results"
ROUNDS = 5


def place_of(one: Contestant) -> Place:
    """Make what a contestant needs, or find it. Raises ``Unavailable``."""
    python = interpreter(one.peer)
    path = models.path_of(one.model)
    try:
        note = models.note_of(path, one.settings["format"]) if one.ours else ""
    except EdgegenError as error:
        raise Unavailable(str(error)) from None
    return Place(
        python=[str(python)],
        environment=WORKER,
        model=str(path),
        size=models.size_of(path),
        note=note,
    )


def chosen(names: Sequence[str], only: str) -> list[Work]:
    """Works by name or group, all of them without one; ``only`` contestants with that in them."""
    found = [work for work in works() if not names or {work.name, work.group} & set(names)]
    if not only:
        return found
    kept = [tuple(one for one in work.contestants if only in one.name) for work in found]
    return [replace(work, contestants=who) for work, who in zip(found, kept, strict=True) if who]


def main(arguments: Sequence[str] | None = None) -> int:
    known = works()
    names = sorted({work.name for work in known} | {work.group for work in known})
    parser = argparse.ArgumentParser(prog="bench-peers", description=__doc__)
    parser.add_argument("works", nargs="*", help=f"all, or some of: {', '.join(names)}")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="turns of each contestant")
    parser.add_argument("--quick", action="store_true", help="one round: does everything run?")
    parser.add_argument("--only", default="", help="contestants whose name holds this")
    parser.add_argument("--threads", type=int, nargs="+", help="in place of 1 and 2")
    parser.add_argument("--seed", type=int, default=0, help="of the order within a round")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to")
    asked = parser.parse_args(arguments)
    strange = sorted(set(asked.works) - set(names))
    if strange:
        parser.error(f"unknown work {strange[0]!r} (use {', '.join(names)})")
    if asked.rounds < 1:
        parser.error(f"rounds must be at least 1, got {asked.rounds}")
    asked.results.mkdir(parents=True, exist_ok=True)
    run(asked, partial(print, file=sys.stderr, flush=True))
    return 0


def run(asked: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Results are written after each work: a long run that is stopped has its part."""
    created = datetime.now(UTC)
    stem = asked.results / f"peers-{created:%Y%m%d-%H%M%S}"
    rounds = 1 if asked.quick else asked.rounds
    results = Results(
        created=created.isoformat(timespec="seconds"),
        quick=asked.quick,
        machine=this_machine(),
        works=(),
    )
    for work in chosen(asked.works, asked.only):
        if asked.threads:
            work = replace(work, threads=tuple(asked.threads))
        done = contest(work, place_of, rounds=rounds, seed=asked.seed, say=say)
        results = Results(
            created=results.created,
            quick=results.quick,
            machine=results.machine,
            works=(*results.works, done),
        )
        results.save(stem.with_suffix(".json"))
    for path in write(results, stem):
        say(f"wrote {path}")
    print(stem.with_suffix(".md").read_text(encoding="utf-8"))
