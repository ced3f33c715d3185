"""What a decoder remembers of its text: four kinds behind one protocol.

``length`` rows stand. After a call over n rows the cache holds ``length`` to ``length + n`` of them
until ``keep`` says which stay; truncating after a rejected draft, gathering a tree's path and
accepting everything are the same verb. Batch size is 1 here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgegen.devices.device import Feeds, Request
from edgegen.errors import BundleError, CacheFull
from edgegen.manifest import Variant

FIRST_CAPACITY = 64
# Rows whose states a recurrent cache can go back to: more than any draft is long.
TRAIL = 64
Floats = NDArray[np.float32]


class KVCache(Protocol):
    """State of one text on one request."""

    @property
    def length(self) -> int: ...
    def before(self, n: int) -> Feeds:
        """Make room for n rows; the ports to feed that are not bound. Raises ``CacheFull``."""
        ...

    def after(self, outputs: Feeds, n: int) -> None:
        """Take over the n new rows of the call."""
        ...

    def keep(self, length: int, rows: Sequence[int] = ()) -> None:
        """Keep the first ``length`` rows and then ``rows``, in that order; forget the others."""
        ...

    def reach(self, length: int) -> int:
        """The most rows, at most ``length``, that ``keep`` can go back to."""
        ...


class _Buffers:
    """Keys and values of all layers in one array ``[2 * layers, ...]``, grown by doubling."""

    def __init__(self, variant: Variant, limit: int, time_axis: int) -> None:
        record = variant.cache
        self.layers, self.heads, self.dim = record.layers, record.heads, record.head_dim
        self.limit, self.time_axis, self.spare = limit, time_axis, record.spare
        self.length = 0
        self.array = self._zeros(FIRST_CAPACITY)

    @property
    def capacity(self) -> int:
        return int(self.array.shape[self.time_axis])

    def _zeros(self, capacity: int) -> Floats:
        shape = [2 * self.layers, 1, self.heads, self.dim]
        shape.insert(self.time_axis, capacity)
        return np.zeros(shape, np.float32)

    def span(self, start: int, end: int) -> tuple[slice, ...]:
        return (slice(None),) * self.time_axis + (slice(start, end),)

    def reserve(self, rows: int) -> bool:
        """Room for ``rows`` in all; True when the array was replaced."""
        if self.limit and rows > self.limit:
            raise CacheFull(
                f"the text needs {rows} decoder positions and the model has {self.limit}; "
                "ask for fewer new tokens or a shorter prompt."
            )
        if rows + self.spare <= self.capacity:
            return False
        wanted = max(2 * self.capacity, rows + self.spare)
        grown = self._zeros(min(wanted, self.limit + self.spare) if self.limit else wanted)
        held = self.span(0, self.length)
        grown[held] = self.array[held]
        self.array = grown
        return True

    def keep(self, length: int, rows: Sequence[int]) -> None:
        if rows and list(rows) != list(range(length, length + len(rows))):
            moved = np.take(self.array, list(rows), self.time_axis)
            self.array[self.span(length, length + len(rows))] = moved
        self.length = length + len(rows)


class InPlaceCache:
    """Past and present are one buffer the backend writes into; going back costs nothing.

    ``[B, heads, capacity, head_dim]`` a port.
    """

    def __init__(self, variant: Variant, request: Request, limit: int = 0) -> None:
        self._request = request
        self._buffers = _Buffers(variant, limit, time_axis=3)
        self._bind()

    @property
    def length(self) -> int:
        return self._buffers.length

    def _bind(self) -> None:
        for i in range(self._buffers.layers):
            for part, kind in enumerate(("key", "value")):
                memory = self._buffers.array[2 * i + part]
                self._request.bind(f"{kind}_cache_{i}", memory)
                self._request.bind(f"{kind}_cache_out_{i}", memory)

    def before(self, n: int) -> Feeds:
        if self._buffers.reserve(self.length + n):
            self._bind()
        return {}

    def after(self, outputs: Feeds, n: int) -> None:
        """The rows are in place already."""

    def keep(self, length: int, rows: Sequence[int] = ()) -> None:
        self._buffers.keep(length, rows)

    def reach(self, length: int) -> int:
        return min(length, self.length)


class AppendCache:
    """Past goes in, new rows come out: the reference any backend can run.

    Sequence first, ``[B, past, heads, head_dim]``, so a prefix is a view and is never copied.
    """

    def __init__(self, variant: Variant, request: Request, limit: int = 0) -> None:
        self._buffers = _Buffers(variant, limit, time_axis=2)
        self._names = [
            (f"{kind}_{i}", 2 * i + part)
            for i in range(self._buffers.layers)
            for part, kind in enumerate(("key", "value"))
        ]

    @property
    def length(self) -> int:
        return self._buffers.length

    def before(self, n: int) -> Feeds:
        self._buffers.reserve(self.length + n)
        array, length = self._buffers.array, self.length
        return {f"past_{name}": array[at, :, :length] for name, at in self._names}

    def after(self, outputs: Feeds, n: int) -> None:
        array, length = self._buffers.array, self.length
        for name, at in self._names:
            array[at, :, length : length + n] = outputs[f"new_{name}"]

    def keep(self, length: int, rows: Sequence[int] = ()) -> None:
        self._buffers.keep(length, rows)

    def reach(self, length: int) -> int:
        return min(length, self.length)


class RecurrentCache:
    """A state per layer instead of a text: the state of the last row that stands.

    New rows must be of the latest call. The states of the ``TRAIL`` newest rows are held, and
    ``keep`` goes back to any of them, or to no rows at all.
    """

    def __init__(self, variant: Variant, request: Request, limit: int = 0) -> None:
        record = variant.cache
        self._limit = limit
        width = record.head_dim
        self._states: list[Floats] = [
            np.zeros((1, width), np.float32) for _ in range(record.layers)
        ]
        # The state after row r is at r modulo TRAIL.
        self._trail: list[Floats] = [
            np.zeros((TRAIL, width), np.float32) for _ in range(record.layers)
        ]
        self._oldest = 0  # the first row whose state is held
        self._names = [f"state_{i}" for i in range(record.layers)]
        for name, state in zip(self._names, self._states, strict=True):
            request.bind(name, state)
        self._rows: list[Floats] = []
        self.length = 0

    def before(self, n: int) -> Feeds:
        if self._limit and self.length + n > self._limit:
            raise CacheFull(
                f"the text needs {self.length + n} decoder positions and the model has "
                f"{self._limit}; ask for fewer new tokens."
            )
        return {}

    def after(self, outputs: Feeds, n: int) -> None:
        self._rows = [outputs[f"new_{name}"][0] for name in self._names]

    def keep(self, length: int, rows: Sequence[int] = ()) -> None:
        new = [*range(self.length, length), *rows]
        if not new:
            self._go_back(length)
        elif length < self.length or min(new) < self.length:
            raise CacheFull(f"a recurrent state cannot follow row {min(new)} of {self.length}.")
        else:
            self._append(new)

    def reach(self, length: int) -> int:
        held = min(length, self.length)
        return held if held == self.length or held > self._oldest else 0

    def _append(self, new: Sequence[int]) -> None:
        start = self.length
        self.length += len(new)
        self._oldest = max(self._oldest, self.length - TRAIL)
        held = range(max(start, self._oldest), self.length)
        for state, trail, rows in zip(self._states, self._trail, self._rows, strict=True):
            for place in held:
                trail[place % TRAIL] = rows[new[place - start] - start]
            state[0] = trail[(self.length - 1) % TRAIL]

    def _go_back(self, length: int) -> None:
        if self.reach(length) != length:
            raise CacheFull(
                f"a recurrent state cannot go back to row {length} of {self.length}: "
                f"only the last {TRAIL} are held."
            )
        if length != self.length:
            for state, trail in zip(self._states, self._trail, strict=True):
                state[0] = trail[(length - 1) % TRAIL] if length else 0
        self.length = length
        self._oldest = min(self._oldest, length)


KINDS: Mapping[str, Callable[[Variant, Request, int], KVCache]] = {
    "in_place": InPlaceCache,
    "append": AppendCache,
    "recurrent": RecurrentCache,
}


def open_cache(variant: Variant, request: Request, limit: int = 0) -> KVCache:
    """An empty cache of the variant's kind; ``limit`` positions at most, 0 for no limit."""
    if variant.cache.kind not in KINDS:
        raise BundleError(
            f"cache kind {variant.cache.kind!r} is not known to this version; "
            f"expected one of {', '.join(KINDS)}. Update edgegen."
        )
    return KINDS[variant.cache.kind](variant, request, limit)
