"""A decode graph, its cache and its memory: forward by tokens, back by ``keep``.

Knows nothing of drafts, sampling or stopping. Batch size is 1; tokens may form a tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edgegen.coded import given_back, rows_of_call
from edgegen.devices.device import Feeds, Request, Session, Tensor
from edgegen.errors import InputError
from edgegen.graph import Graph
from edgegen.manifest import Variant
from edgegen.shortlist import spread_of

from .buffers import GRAIN
from .cache import KVCache, open_cache
from .lineage import Lineage
from .masks import Masks
from .static import StaticRequest
from .verify import depths

# Rows of a prompt fed in one call: bounds the mask and the scores of a long one. Rows that see each
# other come in one call however many they are.
PREFILL_CHUNK = 512
Ints = NDArray[np.int64]


class Scores(Struct, frozen=True):
    """``logits [rows, vocabulary]``, and where the graph gives them ``topk [rows, k]`` ids, best
    first, and ``hidden [rows, width]``, what logits are made of: views of buffers the next call
    writes over."""

    logits: NDArray[np.float32]
    topk: Ints | None = None
    hidden: NDArray[np.float32] | None = None


class _Call:
    """The small inputs of a call over n tokens, kept and rewritten in place while n stays."""

    def __init__(self, n: int, past: Ints, names: frozenset[str]) -> None:
        self.n = n
        self.tokens, self.positions = np.zeros((1, n), np.int64), np.zeros((1, n), np.int64)
        self.parents = np.zeros((1, n), np.int64)
        self.chain: Ints = np.arange(n)
        every: dict[str, Tensor] = {
            "tokens": self.tokens,
            "positions": self.positions,
            "past_length": past,
            "parents": self.parents,
        }
        self.feeds = {name: array for name, array in every.items() if name in names}

    def fill(self, tokens: Sequence[int], parents: Sequence[int] | None, past: int) -> None:
        """Write the inputs of a call that follows ``past`` rows."""
        if self.n == 1:
            self.tokens[0, 0] = tokens[0]
            self.positions[0, 0] = past
            self.parents[0, 0] = -1
            return
        self.tokens[0] = tokens
        if parents is None:
            np.add(self.chain, past, out=self.positions[0])
            np.subtract(self.chain, 1, out=self.parents[0])
        else:
            np.add(depths(parents), past, out=self.positions[0])
            self.parents[0] = parents

    def fill_by(
        self, lineage: Lineage, tokens: Sequence[int], parents: Sequence[int], past: int
    ) -> None:
        """The same where rows that stand form a tree."""
        self.tokens[0], self.parents[0] = tokens, parents
        self.positions[:] = lineage.positions(past, past + self.n)


class Decoder:
    """One text being decoded. ``memory`` holds cross keys and values and the source mask.

    With ``branching`` the rows that stand may form a tree: several texts grown from one, as beams
    are, that share what they have in common. Where the source has a shortlist, logits are those of
    a ``vocabulary`` all the same.
    """

    def __init__(
        self,
        session: Session,
        variant: Variant,
        memory: Feeds | None = None,
        limit: int = 0,
        *,
        branching: bool = False,
        vocabulary: int = 0,
    ) -> None:
        self.session, self.variant, self.limit = session, variant, limit
        self.memory: Feeds = memory or {}
        self._spread = spread_of(self.memory, vocabulary)
        self._names = variant.graph.input_names()
        outputs = {port.name for port in variant.graph.outputs}
        self._taps = [tap for tap in ("topk", "hidden") if tap in outputs]
        self._takes_rows = "logit_rows" in self._names
        self._takes_visible = "visible" in self._names
        self._takes_places = "key_positions" in self._names
        self._request = session.request()
        bind_memory(self._request, variant.graph, resident(session, self.memory))
        self._most_rows = rows_of_call(self.memory)
        # The model's limit is one of positions: a tree has more rows.
        self._lineage = Lineage() if branching else None
        most = 0 if branching else limit
        self._cache = open_cache(
            variant, self._request, most, memory, branching=branching, device=session.memory
        )
        self._first = self.memory["cross_key_0"].shape[2] if variant.cache.memory_first else 0
        self._past = np.zeros(1, np.int64)
        self._calls: dict[int, _Call] = {}
        self._rows: dict[tuple[int, int], Ints] = {}
        self._masks = Masks(GRAIN if widens(variant) and session.wide_masks else 1)
        self._prefix = 0

    @property
    def branching(self) -> bool:
        return self._lineage is not None

    def standing(self) -> NDArray[np.float32]:
        """What the cache holds of the text: keys and values of its rows, or its last states."""
        return self._cache.standing()

    def sit(self, cache: KVCache) -> None:
        """Go on in memory that others share; calls are then theirs to make (see ``seats``)."""
        self._cache = cache

    def tie(self, rows: int) -> None:
        """Let the first ``rows`` rows of a text see each other: they are fed in one call."""
        self._prefix = rows

    @property
    def chunk(self) -> int:
        """Rows a call takes, of a prompt or with a draft."""
        if isinstance(self._request, StaticRequest):
            return self._request.rows(self.length)
        most = max(PREFILL_CHUNK, self._prefix)
        return min(most, self._most_rows or most)

    def drafts(self, pending: int) -> int:
        """Rows a call may have behind ``pending`` others to be the same as in calls of one, as far
        as rows can be."""
        most = self.chunk - pending
        alike = self.variant.cache.alike(self._first + self.length + pending)
        return most if alike is None else min(most, alike)

    @property
    def length(self) -> int:
        """Rows that stand in the cache."""
        return self._cache.length

    def forward(
        self,
        tokens: Sequence[int],
        parents: Sequence[int] | None = None,
        first_row: int = 0,
    ) -> Scores:
        """Logits of rows ``first_row``, ``first_row + 1``... of ``tokens``.

        ``parents[i]`` is the index in ``tokens`` that token i follows; -1 is the last row that
        stands and, when branching, -2 the one before. None is a chain. The new rows are ``length``
        to ``length + n`` until ``keep``.
        """
        n, past = len(tokens), self._cache.length
        if 0 < self._most_rows < n:
            raise InputError(
                f"a call of {n} rows, and over this source held in 8 bits one has at most "
                f"{self._most_rows}; ask for fewer beams, or export without --memory int8."
            )
        call = self._calls.get(n)
        if call is None:
            call = self._calls[n] = _Call(n, self._past, self._names)
        self._past[0] = past
        back = 1
        if self._lineage is None:
            call.fill(tokens, parents, past)
        else:
            parents = range(-1, n - 1) if parents is None else parents
            self._lineage.add(past, parents)
            call.fill_by(self._lineage, tokens, parents, past)
            back = max(1, -min(parents))
        feeds = call.feeds
        if self._takes_rows:
            feeds["logit_rows"] = self._logit_rows(first_row, n)
        if self._takes_visible:
            visible = feeds["visible"] = self._visible(n, past, parents)
            if past < self._prefix:
                visible[0, : self._prefix - past, : min(self._prefix, past + n)] = 0
        if self._takes_places:
            feeds["key_positions"] = self._key_positions(call, n, past, parents)
        held = self._cache.before(n, back)
        outputs = self._request.run({**feeds, **held} if held else feeds)
        self._cache.after(outputs, n)
        logits = self.whole(outputs["logits"][0])
        return Scores(logits, **{tap: outputs[tap][0] for tap in self._taps})

    def whole(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of the vocabulary of rows as the graph gives them, of the source's words where it
        has a shortlist."""
        return logits if self._spread is None else self._spread(logits)

    def keep(self, length: int, rows: Sequence[int] = ()) -> None:
        """Keep the first ``length`` rows, then ``rows``; see ``KVCache.keep``."""
        if self._lineage is not None:
            self._lineage.keep(length, rows)
        self._cache.keep(length, rows)

    def reach(self, length: int) -> int:
        """The most rows, at most ``length``, that ``keep`` can go back to."""
        return self._cache.reach(length)

    def _logit_rows(self, first: int, n: int) -> Ints:
        key = (first, n)
        if key not in self._rows:
            self._rows[key] = np.arange(first, n)
        return self._rows[key]

    def _visible(self, n: int, past: int, parents: Sequence[int] | None) -> NDArray[np.float32]:
        if self._lineage is None:
            return self._masks.visible(n, past, parents)
        return self._masks.visible_of(self._lineage.visible(past, past + n))

    def _key_positions(self, call: _Call, n: int, past: int, parents: Sequence[int] | None) -> Ints:
        if self._lineage is None:
            return self._masks.key_positions(n, past, parents, call.positions)
        return self._masks.key_positions_of(self._lineage.positions(0, past + n), n)


def widens(variant: Variant) -> bool:
    """Whether masks may reach beyond a text's rows: layers of a window count columns from the end,
    and those behind a source's rows begin elsewhere."""
    cache = variant.cache
    return cache.kind == "in_place" and not cache.window_layers and not cache.memory_first


def resident(session: Session, memory: Feeds) -> Feeds:
    """The source's arrays where a session reads them: in the device's own memory, if it has one."""
    place = session.memory
    if place is None:
        return memory
    names, found = session.graph.input_names(), dict[str, Any]()
    for name, array in memory.items():
        found[name] = place.put(array) if name in names else array
    return found


def bind_memory(request: Request, graph: Graph, memory: Feeds) -> None:
    """Let all calls of a request read the source's arrays.

    A graph that gives its memory back changes nothing in it: one array, and no copy.
    """
    inputs, outputs = graph.input_names(), {port.name for port in graph.outputs}
    for name, array in memory.items():
        if name in inputs:
            request.bind(name, array)
        if (back := given_back(name)) in outputs:
            request.bind(back, array)
