"""Keys and values of a text that stay in a device's own memory."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.devices.device import DeviceArray, DeviceMemory, Feeds
from edgegen.manifest import Variant

from .buffers import FIRST_CAPACITY, check_room

FLOAT = np.dtype(np.float32)


class ResidentCache:
    """An ``append`` cache in memory the host never sees, ``[1, capacity, heads, head_dim]`` a port.

    A call reads the rows that stand and writes its new ones behind them, so nothing is copied.
    Where rows are kept out of order, of a tree's side branch and of beams, all pass through the
    host, as they do when the memory grows.
    """

    def __init__(self, variant: Variant, limit: int, memory: DeviceMemory) -> None:
        record = variant.cache
        self._memory, self._limit = memory, limit
        self._row = (record.heads, record.head_dim)
        self._names = [f"{kind}_{i}" for i in range(record.layers) for kind in ("key", "value")]
        shape = (1, FIRST_CAPACITY, *self._row)
        self._arrays: list[DeviceArray] = [memory.empty(shape, FLOAT) for _ in self._names]
        self.length = 0

    def before(self, n: int, back: int = 1) -> Feeds:
        check_room(self.length + n, self._limit)
        capacity = self._arrays[0].shape[1]
        if self.length + n > capacity:
            self._grow(max(2 * capacity, self.length + n))
        past, new = (1, self.length, *self._row), (1, n, *self._row)
        behind = self.length * prod(self._row)
        feeds: dict[str, Any] = {}
        for name, array in zip(self._names, self._arrays, strict=True):
            feeds[f"past_{name}"] = array.part(0, past)
            feeds[f"new_{name}"] = array.part(behind, new)
        return feeds

    def after(self, outputs: Feeds, n: int) -> None:
        """The rows are in place already."""

    def keep(self, length: int, rows: Sequence[int] = ()) -> None:
        if list(rows) != list(range(length, length + len(rows))):
            order = [*range(length), *rows]
            for array in self._arrays:
                held = self._memory.get(array)
                held[:, : len(order)] = held[:, order]
                self._memory.write(array, held)
        self.length = length + len(rows)

    def reach(self, length: int) -> int:
        return min(length, self.length)

    def standing(self) -> NDArray[np.float32]:
        held = [self._memory.get(array)[0, : self.length] for array in self._arrays]
        return np.stack(held)

    def _grow(self, capacity: int) -> None:
        for at, array in enumerate(self._arrays):
            held = self._memory.get(array)
            grown = np.zeros((1, capacity, *self._row), FLOAT)
            grown[:, : self.length] = held[:, : self.length]
            self._arrays[at] = self._memory.put(grown)
