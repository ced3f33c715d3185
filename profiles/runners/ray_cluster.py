"""The nodes of a Ray cluster: every kind of machine runs the whole sweep, shared by its nodes.

Ray finds the cluster (``RAY_ADDRESS``, or one running on this computer) and else starts one node
here. A node holds one actor, which runs one trial at a time. Bundles are read at the same path on
every node. Records travel as JSON, so nodes need edgegen and no more of this process.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from edgegen.errors import DeviceError, EdgegenError, InputError
from edgegen.progress import Progress

from ..apart import raised, run_apart
from ..child import Answer
from ..machine import this_machine
from ..record import Machine
from ..trial import Trial
from .base import Failed, Measured

Work = deque[Trial]


class Node:
    """Lives on a node, as an actor."""

    def machine(self) -> bytes:
        """A ``Machine`` as JSON."""
        return msgspec.json.encode(this_machine())

    def measure(self, told: bytes) -> bytes:
        """A ``Trial`` as JSON; an ``Answer`` as JSON."""
        trial = msgspec.json.decode(told, type=Trial)
        try:
            answer = Answer(run=run_apart(trial))
        except EdgegenError as error:
            answer = Answer(error=type(error).__name__, message=str(error))
        return msgspec.json.encode(answer)


@dataclass(frozen=True, eq=False)
class Seat:
    """An actor, its node's name and machine, and the trials it shares with nodes like it."""

    name: str
    actor: Any
    machine: Machine
    work: Work


class RayCluster:
    """Needs ``edgegen[ray]`` here and on every node."""

    def measure(self, trials: Sequence[Trial], progress: Progress) -> Iterator[Measured | Failed]:
        import ray  # pyright: ignore[reportMissingImports]

        if not trials:
            return
        started = not ray.is_initialized()
        if started:
            _connect()
        try:
            yield from _spread(trials, progress)
        finally:
            if started:
                ray.shutdown()


def _connect() -> None:
    import ray  # pyright: ignore[reportMissingImports]

    # Workers of this computer find the edgegen this process runs.
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
    try:
        ray.init(
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"env_vars": {"PYTHONPATH": paths}},
        )
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise InputError(f"engine ray: no cluster could be joined or started ({error}).") from error


def _spread(trials: Sequence[Trial], progress: Progress) -> Iterator[Measured | Failed]:
    import ray  # pyright: ignore[reportMissingImports]

    busy: dict[Any, tuple[Seat, Trial]] = {}
    seats = _seats(trials)
    for seat in seats:
        _give(seat, busy, progress)
    while busy:
        ended, _ = ray.wait(list(busy), num_returns=1)
        seat, trial = busy.pop(ended[0])
        try:
            answer = msgspec.json.decode(ray.get(ended[0]), type=Answer)
        except ray.exceptions.RayError as error:
            # The node is gone: the others of its kind do what is left.
            yield Failed(trial, DeviceError(f"node {seat.name} failed: {_first(error)}"), seat.name)
            continue
        if answer.run is None:
            yield Failed(trial, raised(answer), seat.name)
        else:
            yield Measured(answer.run, seat.machine)
        _give(seat, busy, progress)
    for seat in seats:
        while seat.work:  # every node like it is gone
            lost = DeviceError(f"node {seat.name} failed before; no other of its kind is left.")
            yield Failed(seat.work.popleft(), lost, seat.name)


def _give(seat: Seat, busy: dict[Any, tuple[Seat, Trial]], progress: Progress) -> None:
    if seat.work:
        trial = seat.work.popleft()
        progress(f"{trial}, node {seat.name}")
        busy[seat.actor.measure.remote(msgspec.json.encode(trial))] = (seat, trial)


def _seats(trials: Sequence[Trial]) -> list[Seat]:
    """An actor on each node that lives. Nodes of equal machines share one list of trials."""
    import ray  # pyright: ignore[reportMissingImports]
    from ray.util.scheduling_strategies import (  # pyright: ignore[reportMissingImports]
        NodeAffinitySchedulingStrategy,
    )

    actors: dict[str, Any] = {}
    for node in ray.nodes():
        if node["Alive"]:
            place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            kind = ray.remote(num_cpus=0, scheduling_strategy=place, max_concurrency=1)(Node)
            actors[f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"] = kind.remote()
    shared: defaultdict[bytes, Work] = defaultdict(lambda: deque(trials))
    seats: list[Seat] = []
    for name, actor in actors.items():
        try:
            machine = msgspec.json.decode(ray.get(actor.machine.remote()), type=Machine)
        except ray.exceptions.RayError as error:
            raise DeviceError(
                f"engine ray: node {name} cannot run edgegen: {_first(error)}"
            ) from error
        seats.append(Seat(name, actor, machine, shared[msgspec.json.encode(machine)]))
    return seats


def _first(error: Exception) -> str:
    """The last line of Ray's report, where the cause stands."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]
