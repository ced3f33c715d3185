"""What a decoder remembers of its text: its kinds behind one protocol.

``length`` rows stand. After a call over n rows the cache holds ``length`` to ``length + n`` of them
until ``keep`` says which stay; truncating after a rejected draft, gathering a tree's path and
accepting everything are the same verb. Batch size is 1 here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgegen.devices.device import DeviceMemory, Feeds, Request
from edgegen.errors import BundleError, CacheFull
from edgegen.manifest import Cache, Variant

from .buffers import TRAIL, Buffers, Floats, check_room
from .resident import ResidentCache
from .static import StaticRequest, too_large

Ints = NDArray[np.int64]


class KVCache(Protocol):
    """State of one text on one request."""

    @property
    def length(self) -> int: ...
    def before(self, n: int, back: int = 1) -> Feeds:
        """Make room for n rows; the ports to feed that are not bound. Raises ``CacheFull``.

        The rows follow some of the ``back`` last rows that stand.
        """
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

    def standing(self) -> Floats:
        """Keys and values of the rows that stand, ``[2 * layers, ...]`` as their ports are laid out
        without the batch axis; of a recurrent cache its last states, ``[layers, width]``."""
        ...


class _Rows:
    """Keys and values in buffers of our own; layers with a window have theirs apart."""

    def __init__(self, variant: Variant, limit: int, time_axis: int, first: int = 0) -> None:
        record, short = variant.cache, variant.cache.window_layers
        whole = [layer for layer in range(record.layers) if layer not in short]
        # None where there are no such layers.
        self._short = (
            Buffers(record, short, limit=limit, time_axis=time_axis, window=record.window)
            if short
            else None
        )
        self._whole = (
            Buffers(record, whole, limit=limit, time_axis=time_axis, first=first) if whole else None
        )
        self._all = [one for one in (self._short, self._whole) if one is not None]

    @property
    def length(self) -> int:
        return self._all[0].length

    def keep(self, length: int, rows: Sequence[int] = ()) -> None:
        for buffers in self._all:  # the only ones that may refuse come first
            buffers.keep(length, rows)

    def reach(self, length: int) -> int:
        return min(buffers.reach(length) for buffers in self._all)

    def standing(self) -> Floats:
        if len(self._all) != 1 or self._short is not None:
            raise ValueError("layers hold different rows")
        buffers = self._all[0]
        return buffers.array[buffers.span(0, buffers.held)][:, 0]


class InPlaceCache(_Rows):
    """Past and present are one buffer the backend writes into; going back costs nothing.

    ``[B, heads, capacity, head_dim]`` a port.
    """

    def __init__(self, variant: Variant, request: Request, limit: int, memory: Feeds) -> None:
        self._request = request
        first = first_rows(variant.cache, memory) if variant.cache.memory_first else None
        rows = 0 if first is None else int(first.shape[3])
        super().__init__(variant, limit, time_axis=3, first=rows)
        if first is not None and self._whole is not None:
            self._whole.array[self._whole.span(-rows, 0)] = first
        self._feeds: dict[str, Ints] = {}
        if self._short is not None:
            self._feeds["window_length"] = np.zeros(1, np.int64)
        for buffers in self._all:
            self._bind(buffers)

    def _bind(self, buffers: Buffers) -> None:
        for place, layer in enumerate(buffers.layers):
            for part, kind in enumerate(("key", "value")):
                memory = buffers.array[2 * place + part]
                self._request.bind(f"{kind}_cache_{layer}", memory)
                self._request.bind(f"{kind}_cache_out_{layer}", memory)

    def before(self, n: int, back: int = 1) -> Feeds:
        for buffers in self._all:
            if buffers.reserve(self.length + n):
                self._bind(buffers)
        if self._short is not None:
            self._feeds["window_length"][0] = self._short.held
        return self._feeds

    def after(self, outputs: Feeds, n: int) -> None:
        """The rows are in place already."""


def first_rows(record: Cache, memory: Feeds) -> Floats:
    """Keys and values that ``encode`` left, ``[2 * layers, 1, heads, S, head_dim]``.

    Raises ``BundleError`` when they are not what the cache is made for.
    """
    names = [f"cross_{kind}_{i}" for i in range(record.layers) for kind in ("key", "value")]
    shapes = {memory[name].shape if name in memory else () for name in names}
    shape = min(shapes)
    if len(shapes) > 1 or shape[:2] + shape[3:] != (1, record.heads, record.head_dim):
        raise BundleError(
            f"the cache of decode begins with a memory of {record.layers} layers of {record.heads} "
            f"x {record.head_dim} numbers, and encode does not give one; export the model again."
        )
    return np.stack([memory[name] for name in names])


class AppendCache(_Rows):
    """Past goes in, new rows come out: the reference any backend can run.

    Sequence first, ``[B, past, heads, head_dim]``, so a prefix is a view and is never copied.
    """

    def __init__(self, variant: Variant, request: Request, limit: int, memory: Feeds) -> None:
        super().__init__(variant, limit, time_axis=2)
        self._names = [
            (buffers, f"{kind}_{layer}", 2 * place + part)
            for buffers in self._all
            for place, layer in enumerate(buffers.layers)
            for part, kind in enumerate(("key", "value"))
        ]

    def before(self, n: int, back: int = 1) -> Feeds:
        for buffers in self._all:
            buffers.reserve(self.length + n)
        return {
            f"past_{name}": buffers.array[at, :, : buffers.held]
            for buffers, name, at in self._names
        }

    def after(self, outputs: Feeds, n: int) -> None:
        for buffers, name, at in self._names:
            held = buffers.held
            buffers.array[at, :, held : held + n] = outputs[f"new_{name}"]


class StaticCache(AppendCache):
    """Past rows in buffers as large as a static graph's past, rows lying by position; what does
    not stand is hidden. A text that outgrows one size goes on in the next."""

    def __init__(self, variant: Variant, request: Request, limit: int, memory: Feeds) -> None:
        if not isinstance(request, StaticRequest):
            raise ValueError("a static cache needs the request of a static session")
        super().__init__(variant, request, 0, memory)
        self._limit, self._sizes = limit, request.caches()
        self._feeds: Feeds = {}
        self._fed: tuple[Floats | None, int] = None, 0  # the memory and size the feeds are of

    def before(self, n: int, back: int = 1) -> Feeds:
        check_room(self.length + n, self._limit)
        size = next((size for size in self._sizes if size >= self.length), None)
        if size is None:
            raise too_large("decode", "past", self.length, self._sizes[-1])
        (buffers,) = self._all
        buffers.reserve(max(size, self.length + n))
        if self._fed[0] is not buffers.array or self._fed[1] != size:
            self._fed = buffers.array, size
            self._feeds = {
                f"past_{name}": buffers.array[at, :, :size] for _, name, at in self._names
            }
        return self._feeds


class StatefulCache:
    """Keys and values lie in the request; here is only which of its rows stand.

    The next call gathers those and appends its own, so going back, to a tree's path too, is a note.
    """

    def __init__(self, variant: Variant, request: Request, limit: int, memory: Feeds) -> None:
        self._limit = limit
        self._order: Ints = np.arange(0)  # row of the request by row of the text
        self.length = 0

    def before(self, n: int, back: int = 1) -> Feeds:
        check_room(self.length + n, self._limit)
        return {"kept": self._order[: self.length]}

    def after(self, outputs: Feeds, n: int) -> None:
        self._order = np.arange(self.length + n)

    def keep(self, length: int, rows: Sequence[int] = ()) -> None:
        end = length + len(rows)
        self._order[length:end] = self._order[list(rows)]
        self.length = end

    def reach(self, length: int) -> int:
        return min(length, self.length)

    def standing(self) -> Floats:
        raise ValueError("the rows lie in the request")


class RecurrentCache:
    """A state per layer after each row instead of keys and values.

    The states after the ``TRAIL`` newest rows are held, for calls that follow one of them and for
    ``keep`` to go back to.
    """

    def __init__(self, variant: Variant, request: Request, limit: int, memory: Feeds) -> None:
        record = variant.cache
        self._limit, self._request = limit, request
        self._shape = record.layers, record.head_dim
        self._names = [f"state_{i}" for i in range(record.layers)]
        self._outputs = [f"new_{name}" for name in self._names]
        # States in their rows' order: the oldest held at ``_start``, the newest before ``_end``.
        self._trail: Floats = np.zeros((record.layers, 2 * TRAIL, record.head_dim), np.float32)
        self._start, self._end = 0, 1
        self._rows: list[Floats] = []
        self.length = 0
        self._offer(1)

    def _offer(self, count: int) -> None:
        """Bind memory for the states a call may follow."""
        layers, width = self._shape
        self._offered: Floats = np.zeros((layers, count, width), np.float32)
        for name, states in zip(self._names, self._offered, strict=True):
            self._request.bind(name, states)

    def before(self, n: int, back: int = 1) -> Feeds:
        check_room(self.length + n, self._limit)
        if back > self._end - self._start:
            raise CacheFull(
                f"a recurrent state cannot follow row {self.length - back} of {self.length}: "
                f"only the last {TRAIL} are held."
            )
        if back != self._offered.shape[1]:
            self._offer(back)
        np.copyto(self._offered, self._trail[:, self._end - back : self._end])
        return {}

    def after(self, outputs: Feeds, n: int) -> None:
        self._rows = [outputs[name].reshape(n, -1) for name in self._outputs]

    def keep(self, length: int, rows: Sequence[int] = ()) -> None:
        if length > self.length:
            rows = [*range(self.length, length), *rows]
            length = self.length
        if length < self.length:
            self._rewind(length, rows)
        elif rows:
            new = [row - length for row in rows]
            self._push(np.stack([states[new] for states in self._rows]))
        self.length = length + len(rows)

    def standing(self) -> Floats:
        return self._trail[:, self._end - 1]

    def reach(self, length: int) -> int:
        held = min(length, self.length)
        return held if self._place(held - 1) >= self._start else 0

    def _place(self, row: int) -> int:
        """Where the state after ``row`` is, or was, in the trail."""
        return self._end - self.length + row

    def _rewind(self, length: int, rows: Sequence[int]) -> None:
        """Forget the rows from ``length`` on but ``rows``, which may have stood before."""
        states: list[Floats] = []
        for row in reversed([*range(length), *rows][-TRAIL:]):
            if row < self.length and self._place(row) < self._start:
                break
            states.append(self._state(row))
        count = length + len(rows)
        if count and not states:
            raise CacheFull(
                f"a recurrent state cannot go back to row {length} of {self.length}: "
                f"only the last {TRAIL} are held."
            )
        if len(states) == count:
            states.append(np.zeros(self._shape, np.float32))
        self._start = self._end = 0
        self._push(np.stack(states[::-1], 1))

    def _state(self, row: int) -> Floats:
        """``[layers, width]`` after a row that stands or one of the latest call."""
        if row < self.length:
            return self._trail[:, self._place(row)].copy()
        return np.stack([states[row - self.length] for states in self._rows])

    def _push(self, states: Floats) -> None:
        """Add states ``[layers, rows, width]`` behind the newest."""
        states = states[:, -TRAIL:]
        count, size = states.shape[1], self._trail.shape[1]
        if self._end + count > size:
            held = min(self._end - self._start, TRAIL)  # room for as many again: moved seldom
            self._trail[:, :held] = self._trail[:, self._end - held : self._end].copy()
            self._start, self._end = 0, held
        self._trail[:, self._end : self._end + count] = states
        self._end += count


KINDS: Mapping[str, Callable[[Variant, Request, int, Feeds], KVCache]] = {
    "in_place": InPlaceCache,
    "append": AppendCache,
    "static": StaticCache,
    "stateful": StatefulCache,
    "recurrent": RecurrentCache,
}


def open_cache(
    variant: Variant,
    request: Request,
    limit: int = 0,
    memory: Feeds | None = None,
    *,
    branching: bool = False,
    device: DeviceMemory | None = None,
) -> KVCache:
    """An empty cache of the variant's kind; ``limit`` positions at most, 0 for no limit.

    ``memory`` is what ``encode`` left, for caches that begin with it. With ``branching`` rows are
    not positions, and layers with a window keep all of them. ``device`` is the device's own memory,
    where rows may stay in it.
    """
    if variant.cache.kind not in KINDS:
        raise BundleError(
            f"cache kind {variant.cache.kind!r} is not known to this version; "
            f"expected one of {', '.join(KINDS)}. Update edgegen."
        )
    if device is not None and variant.cache.kind == "append":
        return ResidentCache(variant, limit, device)
    if branching:
        every = msgspec.structs.replace(variant.cache, window=0)
        variant = msgspec.structs.replace(variant, cache=every)
    static = variant.static and variant.cache.kind == "append"
    return KINDS["static" if static else variant.cache.kind](variant, request, limit, memory or {})
