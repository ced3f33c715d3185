"""Drives encode and decode graphs by their written ports alone (docs/bundle.md).

The parity gate runs a bundle through this, not through the runtime: a second reader of the port
specification, slow and simple, that would notice if the first one had grown habits of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen import coded
from edgegen.devices import Session
from edgegen.devices.device import Request
from edgegen.graph import HIDDEN, Graph
from edgegen.manifest import Cache, Variant
from edgegen.shortlist import spread_of

Array = NDArray[Any]


def run(
    session: Session, feeds: Mapping[str, Array], request: Request | None = None
) -> dict[str, Array]:
    """One call, on a new request unless one is given, with the feeds the graph knows; every output
    copied."""
    wanted = {k: np.ascontiguousarray(v) for k, v in feeds.items() if k in names(session)}
    return {k: v.copy() for k, v in (request or session.request()).run(wanted).items()}


def memory_of(
    sessions: Mapping[str, Session], source: Mapping[str, Array], padding: int = 0
) -> dict[str, Array]:
    """What ``encode`` leaves of one source, token ids having ``padding`` hidden places at the end.

    ``source`` names a port of ``features`` or ``encode`` and what goes in, without the batch axis.
    """
    if "input_ids" not in source:
        feeds = {name: array[None] for name, array in source.items()}
        heard = run(sessions["features"], feeds) if "features" in sessions else feeds
        return run(sessions["encode"], heard)
    length = len(source["input_ids"])
    ids = np.array([[*source["input_ids"], *[0] * padding]], np.int64)
    mask = np.zeros(ids.shape, np.float32)
    mask[:, length:] = HIDDEN
    found = run(sessions["encode"], {"input_ids": ids, "source_mask": mask})
    return coded.filled({**found, "source_mask": mask}, HIDDEN)


def filled(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Feeds of a graph of fixed sizes, grown to them: what is added is hidden or not looked at.

    Rows and columns are added at the end, but past rows end where the new ones begin, and states
    are added in front.
    """
    found: dict[str, Array] = {}
    rows = feeds["tokens"].shape[1]
    room = next(int(port.shape[1]) for port in graph.inputs if port.name == "tokens")
    for port in graph.inputs:
        given = feeds[port.name]
        shape = tuple(map(int, port.shape))
        hides = port.name in ("visible", "source_mask")
        grown = np.full(shape, HIDDEN if hides else 0, given.dtype)
        if port.name in ("visible", "key_positions"):
            past, wide = given.shape[-1] - rows, shape[-1] - room
            lines = (slice(0, 1), slice(0, rows))[: given.ndim - 1]
            grown[(*lines, slice(0, past))] = given[..., :past]
            grown[(*lines, slice(wide, wide + rows))] = given[..., past:]
        elif port.name.startswith("state_"):
            grown[shape[0] - len(given) :] = given
        else:
            grown[tuple(map(slice, given.shape))] = given
        found[port.name] = grown
    return found


def names(session: Session) -> frozenset[str]:
    return session.graph.input_names()


def first_rows(cache: Cache, memory: Mapping[str, Array]) -> int:
    """Rows of the memory that a cache begins with."""
    return memory["cross_key_0"].shape[2] if cache.memory_first else 0


class Stepper:
    """One text: ``decode`` adds rows, all of which stand. ``capacity`` bounds an in-place cache,
    ``recent`` that of layers with a window, which then hold no more than they must. Logits of a
    shortlist become those of a ``vocabulary``."""

    def __init__(
        self,
        session: Session,
        variant: Variant,
        memory: Mapping[str, Array],
        capacity: int = 256,
        recent: int | None = None,
        vocabulary: int = 0,
    ) -> None:
        self.session, self.kind, self.memory = session, variant.cache.kind, dict(memory)
        self.spread = spread_of(memory, vocabulary)
        # A backend's own memory belongs to its request; others start anew each call.
        self.request = session.request() if self.kind == "stateful" else None
        self.length, self.static = 0, variant.static
        cache = variant.cache
        heads, dim = cache.heads, cache.head_dim
        self.window = {i: cache.window for i in cache.window_layers}
        self.spare, self.held = cache.spare, 0  # rows that layers with a window hold
        self.recent = capacity + cache.spare if recent is None else recent
        self.first, self.record = first_rows(cache, memory), cache
        shapes: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
            "append": (("past_key", "past_value"), (1, 0, heads, dim)),
            "in_place": (("key_cache", "value_cache"), (1, heads, capacity + cache.spare, dim)),
            "recurrent": (("state",), (1, dim)),
            "stateful": ((), ()),
        }
        parts, shape = shapes[self.kind]
        few = (1, heads, self.recent, dim) if self.kind == "in_place" else shape
        self.cache: dict[str, Array] = {
            f"{part}_{i}": np.zeros(few if i in self.window else shape, cache.dtype)
            for i in range(cache.layers)
            for part in parts
        }
        if cache.memory_first:
            for name, rows in self.cache.items():
                part, i = name.replace("_cache", "").split("_")
                self.cache[name] = np.concatenate([self.memory[f"cross_{part}_{i}"], rows], 2)

    def decode(
        self,
        tokens: Sequence[int],
        parents: Sequence[int] | None = None,
        stand: bool = True,
        together: bool = False,
        last: bool = False,
    ) -> NDArray[np.float32]:
        """``[n, V]`` logits of every row, of the ``last`` alone ``[1, V]``. ``stand`` False leaves
        the cache as it was, ``together`` lets the rows see each other."""
        n, past = len(tokens), self.length
        parents = list(range(-1, n - 1)) if parents is None else list(parents)
        visible = np.full((1, n, past + n), HIDDEN, np.float32)
        visible[:, :, :past] = 0
        depth: list[int] = []
        for row, parent in enumerate(parents):
            depth.append(0 if parent < 0 else depth[parent] + 1)
            node = row
            while node >= 0:
                visible[0, row, past + node] = 0
                node = parents[node]
        if together:
            visible[:] = 0
        if self.held + n + self.spare > self.recent:
            self._forget()
        feeds: dict[str, Array] = {
            **self.memory,
            **self.cache,
            "tokens": np.array([tokens], np.int64),
            "positions": np.array([depth], np.int64) + past,
            "past_length": np.array([past], np.int64),
            "window_length": np.array([self.held], np.int64),
            "key_positions": np.array([[*range(past), *(past + d for d in depth)]], np.int64),
            "visible": visible,
            "parents": np.array([parents], np.int64),
            "logit_rows": np.arange(n - 1 if last else 0, n, dtype=np.int64),
            "kept": np.arange(past, dtype=np.int64),
        }
        if self.static:
            feeds = filled(self.session.graph, feeds)
        found = run(self.session, feeds, self.request)
        if self.static:
            found = {name: rows[:, :n] for name, rows in found.items()}
        if stand:
            self.length += n
            self.held += n
            self.cache = {name: self._after(name, found) for name in self.cache}
        logits = np.asarray(found["logits"][0], np.float32)[-1 if last else 0 :]
        return logits if self.spread is None else self.spread(logits).copy()

    def alike(self, n: int) -> int:
        """How many of ``n`` rows a call may have that are to be those of calls of one."""
        more = self.record.alike(self.first + self.length + 1)
        return n if more is None else min(n, 1 + more)

    def _forget(self) -> None:
        """Move what the next row of a layer with a window sees to the front of its buffer."""
        windows = set(self.window.values())
        seen = min(self.held, *(window - 1 for window in windows)) if windows else self.held
        for name, rows in self.cache.items():
            if int(name.rpartition("_")[2]) in self.window and self.kind == "in_place":
                rows[:, :, :seen] = rows[:, :, self.held - seen : self.held].copy()
        self.held = seen

    def _after(self, name: str, found: Mapping[str, Array]) -> Array:
        part, _, layer = name.rpartition("_")
        if self.kind == "append":
            new = found[f"{part.replace('past', 'new')}_{layer}"]
            rows = np.concatenate([self.cache[name], new], 1)
            seen = self.window.get(int(layer), self.length + 1) - 1
            return rows[:, max(0, rows.shape[1] - seen) :]
        if self.kind == "in_place":
            return found[f"{part}_out_{layer}"]
        return found[f"new_{part}_{layer}"][:, -1]
