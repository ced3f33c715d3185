"""Static graphs behind one session: a caller feeds any size, the smallest graph that fits runs.

Feeds grow to the graph's size, what is added being hidden or not looked at, and outputs are given
back without it. Graphs are compiled when a size is first needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from operator import add
from threading import Lock
from time import perf_counter
from typing import cast

import numpy as np

from edgegen.devices import Placement, Request, Session
from edgegen.devices.device import Feeds, Tensor
from edgegen.devices.machine import resident_bytes
from edgegen.errors import CacheFull, InputError
from edgegen.graph import HIDDEN, Dim, Graph, Port, pinned, resolve
from edgegen.manifest import Variant

FILL: Mapping[str, float] = {"visible": HIDDEN, "source_mask": HIDDEN}
# What a dimension counts, for people, and the word of --static it comes from.
COUNTS: Mapping[str, tuple[str, str]] = {
    "S": ("source tokens", "source"),
    "n": ("rows of one call", "tokens"),
    "past": ("rows that stand", "cache"),
    "states": ("states to go on from", "tokens"),
}
Sizes = dict[str, int]
Segment = tuple[slice, slice]  # of what is given, and where it goes


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What compiling a graph took; ``resident_bytes`` is what the process grew by, None where the
    system does not tell."""

    seconds: float
    resident_bytes: int | None


class StaticSession:
    """The static variants of one component. Safe to use from several threads.

    ``opened`` tells of each graph compiled so far, by its sizes in words.
    """

    def __init__(self, variants: Sequence[Variant], compile: Callable[[Variant], Session]) -> None:
        self.variants = sorted(variants, key=lambda one: sum(one.buckets.values()))
        self.graph: Graph = self.variants[0].graph
        self.memory, self.wide_masks = None, False  # feeds are filled up in the host's
        self.opened: dict[str, Opened] = {}
        self._compile = compile
        self._sessions: dict[str, Session] = {}
        self._lock = Lock()
        # The first is compiled at once: a device that cannot says so when the bundle is loaded.
        self.device = self.session(self.variants[0]).device

    def largest(self, dim: str) -> int | None:
        """The most of a dimension that some graph takes; None where no size bounds it."""
        return max((one.buckets[dim] for one in self.variants if dim in one.buckets), default=None)

    def sizes(self, dim: str) -> tuple[int, ...]:
        """All sizes of a dimension, rising."""
        return tuple(sorted({one.buckets[dim] for one in self.variants if dim in one.buckets}))

    def choose(self, needed: Mapping[str, int]) -> Variant:
        """The smallest variant that takes these sizes.

        Raises ``CacheFull`` for more rows than the largest cache, ``InputError`` otherwise.
        """
        for variant in self.variants:
            if all(needed.get(dim, 0) <= size for dim, size in variant.buckets.items()):
                return variant
        for dim, size in needed.items():
            most = self.largest(dim)
            if most is not None and size > most:
                raise too_large(self.graph.name, dim, size, most)
        asked = " ".join(f"{dim}={size}" for dim, size in needed.items())
        raise InputError(
            f"no static graph of {self.graph.name} takes {asked}; export the bundle with --static."
        )

    def session(self, variant: Variant) -> Session:
        """The compiled variant, compiled now if it was not needed before."""
        found = self._sessions.get(variant.file)
        if found is not None:
            return found
        with self._lock:
            if variant.file not in self._sessions:
                start, before = perf_counter(), resident_bytes()
                self._sessions[variant.file] = self._compile(variant.fixed())
                seconds, after = perf_counter() - start, resident_bytes()
                grown = None if before is None or after is None else after - before
                sizes = " ".join(f"{dim}={size}" for dim, size in variant.buckets.items())
                self.opened[sizes] = Opened(seconds=seconds, resident_bytes=grown)
            return self._sessions[variant.file]

    def request(self) -> StaticRequest:
        return StaticRequest(self)

    def placement(self) -> Placement:
        """Of the sizes compiled so far, together."""
        return reduce(add, (one.placement() for one in self._sessions.values()))

    def close(self) -> None:
        with self._lock:
            for session in self._sessions.values():
                session.close()
            self._sessions.clear()


def too_large(graph: str, dim: str, size: int, most: int) -> CacheFull | InputError:
    counts, word = COUNTS.get(dim, (f"of {dim}", dim))
    kind = CacheFull if dim == "past" else InputError
    less = {
        "past": "ask for fewer new tokens or a shorter prompt",
        "S": "shorten the source",
        "n": "ask for fewer beams or drafts",
    }.get(dim, "ask for less")
    return kind(
        f"static {graph}: {size} {counts} are needed and its largest graph takes {most}; {less}, "
        f"or export with a larger --static {word}=."
    )


class Filled:
    """One graph in use by a request: its own request, and memory of its size for what is fed."""

    def __init__(self, variant: Variant, request: Request) -> None:
        self.request, self.sizes = request, dict(variant.buckets)
        fixed = pinned(variant.graph, variant.buckets)
        self.shapes = {port.name: cast("tuple[int, ...]", port.shape) for port in fixed.inputs}
        self._arrays: dict[str, Tensor] = {}
        self._bound: dict[str, Tensor] = {}

    def bind(self, name: str, array: Tensor) -> None:
        if self._bound.get(name) is not array:
            self.request.bind(name, array)
            self._bound[name] = array

    def fill(self, port: Port, array: Tensor, given: Mapping[str, int]) -> Tensor:
        """The array, or one of the graph's size that begins with it."""
        shape = self.shapes[port.name]
        if array.shape == shape and "past+n" not in port.shape:
            return array
        grown = self._arrays.get(port.name)
        if grown is None:
            grown = self._arrays[port.name] = np.empty(shape, array.dtype)
        grown.fill(FILL.get(port.name, 0))
        axes = [
            segments(dim, size, room, given, self.sizes)
            for dim, size, room in zip(port.shape, array.shape, shape, strict=True)
        ]
        for parts in product(*axes):
            grown[tuple(to for _, to in parts)] = array[tuple(of for of, _ in parts)]
        return grown


def segments(
    dim: Dim, size: int, room: int, given: Mapping[str, int], sizes: Mapping[str, int]
) -> list[Segment]:
    """Where ``size`` numbers of an axis go in one of ``room``: to the front, states to the end;
    of a sum, its last term to where that begins in the graph and the rest to the front."""
    if isinstance(dim, int) or "+" not in dim:
        start = room - size if dim == "states" else 0
        return [(slice(0, size), slice(start, start + size))]
    last = dim.rpartition("+")[2]
    split, begin = size - given[last], room - sizes[last]
    return [
        (slice(0, split), slice(0, split)),
        (slice(split, size), slice(begin, begin + size - split)),
    ]


class StaticRequest:
    """One caller's bindings, kept for whichever graph comes to run."""

    def __init__(self, session: StaticSession) -> None:
        self._session = session
        self._ports = {port.name: port for port in session.graph.inputs}
        self._bound: dict[str, Tensor] = {}
        self._filled: dict[str, Filled] = {}
        # A memory filled up, for every graph of that size.
        self._stands: dict[tuple[str, tuple[int, ...]], Tensor] = {}

    def rows(self, length: int) -> int:
        """Rows a call may have behind ``length`` that stand: drafts end where plain steps do."""
        session = self._session
        most, cache = session.largest("n") or 1, session.largest("past")
        return most if cache is None else max(1, min(most, cache + 1 - length))

    def caches(self) -> tuple[int, ...]:
        """Rows that the past of some graph has, rising."""
        return self._session.sizes("past")

    def bind(self, name: str, array: Tensor) -> None:
        self._bound[name] = array
        self._stands = {key: one for key, one in self._stands.items() if key[0] != name}

    def run(self, feeds: Feeds) -> dict[str, Tensor]:
        given = {**self._bound, **feeds}
        needed = self._sizes(given)
        texts = needed.get("B", 1)
        if texts > 1:
            return self._one_by_one(given, texts)
        variant = self._session.choose(needed)
        filled = self._filled.get(variant.file)
        if filled is None:
            request = self._session.session(variant).request()
            filled = self._filled[variant.file] = Filled(variant, request)
        fed: dict[str, Tensor] = {}
        for name, array in given.items():
            port = self._ports[name]
            if name in self._bound and "states" not in port.shape:
                filled.bind(name, self._standing(filled, port, array))
            else:  # states are bound to be written anew each call
                fed[name] = filled.fill(port, array, needed)
        return self._cut(filled.request.run(fed), needed)

    def _standing(self, filled: Filled, port: Port, array: Tensor) -> Tensor:
        key = (port.name, filled.shapes[port.name])
        if key not in self._stands:
            self._stands[key] = filled.fill(port, array, {})
        return self._stands[key]

    def _sizes(self, given: Mapping[str, Tensor]) -> Sizes:
        """Sizes of the single dimensions; ``past`` is that of the buffers fed."""
        sizes: Sizes = {}
        for name, array in given.items():
            for dim, size in zip(self._ports[name].shape, array.shape, strict=True):
                if isinstance(dim, str) and "+" not in dim:
                    sizes[dim] = size
        return sizes

    def _cut(self, outputs: Feeds, sizes: Sizes) -> dict[str, Tensor]:
        """The outputs without what was added."""
        found: dict[str, Tensor] = {}
        for port in self._session.graph.outputs:
            array = outputs[port.name]
            shape = resolve(port.shape, sizes) or array.shape
            if array.shape != shape:
                array = np.ascontiguousarray(array[tuple(map(slice, shape))])
            found[port.name] = array
        return found

    def _one_by_one(self, given: Mapping[str, Tensor], texts: int) -> dict[str, Tensor]:
        """Several texts of a call, each in a call of its own: a static graph takes one."""
        rows: list[dict[str, Tensor]] = []
        for row in range(texts):
            alone = {
                name: np.ascontiguousarray(array[[row]])
                if "B" in self._ports[name].shape
                else array
                for name, array in given.items()
            }
            found = StaticRequest(self._session).run(alone)
            rows.append({name: array.copy() for name, array in found.items()})
        return {name: np.concatenate([found[name] for found in rows]) for name in rows[0]}
