"""Memory for the keys and values of layers: all rows of a text, or the latest a window can see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.errors import CacheFull
from edgegen.manifest import Cache

# Without a window capacities are whole grains, so that masks of whole ones fit (see ``Masks``).
GRAIN = FIRST_CAPACITY = 64
# Rows a cache that forgets can still go back to: more than any draft is long.
TRAIL = 64
# Numbers of a head that ONNX Runtime's matrix product sums up in one go (mlas, sgemm.cpp: 128 rows,
# more where a head is narrower than 128).
SUMMED = 128 * 128
Floats = NDArray[np.float32]
Rows = NDArray[Any]  # numbers, or codes


def check_room(rows: int, limit: int) -> None:
    """Raises ``CacheFull`` for more rows than the model has positions; ``limit`` 0 is no limit."""
    if limit and rows > limit:
        raise CacheFull(
            f"the text needs {rows} decoder positions and the model has {limit}; "
            "ask for fewer new tokens or a shorter prompt."
        )


class Buffers:
    """Keys and values of ``layers`` in one array ``[2 * layers, ...]``.

    ``first`` rows before those of the text are the memory's, and are not counted. With a ``window``
    the rows before ``start`` are gone: when enough are out of sight, the others move to the front,
    so the array stays as small as the window. ``start`` follows from the length alone and moves by
    whole ``stride``s, so a row is summed up in the same parts whatever was drafted on the way, and
    comes out with the same bits.
    """

    def __init__(
        self,
        record: Cache,
        layers: Sequence[int],
        *,
        limit: int,
        time_axis: int,
        window: int = 0,
        first: int = 0,
    ) -> None:
        self.layers, self.heads, self.dim = tuple(layers), record.heads, record.head_dim
        self.limit, self.time_axis, self.spare = limit, time_axis, record.spare
        self.window, self.stride = window, stride_of(record.head_dim)
        self.dtype = record.dtype
        self.first, self.length, self.start = first, 0, 0
        self.array = self._zeros(FIRST_CAPACITY + first + self.spare)

    @property
    def capacity(self) -> int:
        return int(self.array.shape[self.time_axis])

    @property
    def held(self) -> int:
        """Rows of the text that stand here."""
        return self.length - self.start

    def _zeros(self, capacity: int) -> Rows:
        shape = [2 * len(self.layers), 1, self.heads, self.dim]
        shape.insert(self.time_axis, capacity)
        return np.zeros(shape, self.dtype)

    def span(self, start: int, end: int) -> tuple[slice, ...]:
        """Where rows of the text lie; those of the memory are from ``start - first`` on."""
        offset = self.first - self.start
        return (slice(None),) * self.time_axis + (slice(offset + start, offset + end),)

    def reserve(self, rows: int) -> bool:
        """Room for ``rows`` in all; True when the array was replaced."""
        check_room(rows, self.limit)
        before = self.array
        if self.window:
            self._slide()
        needed = rows - self.start + self.first + self.spare
        if needed > self.capacity:
            self._resize(needed)
        return self.array is not before

    def _slide(self) -> None:
        """Forget what neither the next row nor one that ``keep`` can go back to will see."""
        unseen = self.length - self.window + 1 - TRAIL
        start = max(unseen, 0) // self.stride * self.stride
        if start <= self.start:
            return
        rows = self.array[self.span(start, self.length)].copy()
        self.start = start
        if self.capacity > self.most:
            self.array = self._zeros(self.most)
        self.array[self.span(start, self.length)] = rows

    @property
    def most(self) -> int:
        """Rows that a window takes, drafts included."""
        return self.window + TRAIL + self.stride + FIRST_CAPACITY + self.spare

    def _resize(self, needed: int) -> None:
        most = self.limit - self.start + self.first + self.spare if self.limit else 0
        wanted = max(2 * self.capacity, needed)
        wanted = min(wanted, most) if most else wanted
        wanted = max(min(wanted, self.most), needed) if self.window else self._grained(wanted)
        held = self.span(self.start - self.first, self.length)
        rows = self.array[held]
        self.array = self._zeros(wanted)
        self.array[held] = rows

    def _grained(self, capacity: int) -> int:
        beside = self.first + self.spare
        return -(-(capacity - beside) // GRAIN) * GRAIN + beside

    def keep(self, length: int, rows: Sequence[int]) -> None:
        if self.start and self.reach(length) < min(length, self.length):
            raise CacheFull(
                f"layers with a window of {self.window} cannot go back to row {length} of "
                f"{self.length}: rows before {self.start} are gone."
            )
        if rows and list(rows) != list(range(length, length + len(rows))):
            places = [self.first + row - self.start for row in rows]
            moved = np.take(self.array, places, self.time_axis)
            self.array[self.span(length, length + len(rows))] = moved
        self.length = length + len(rows)
        if not self.length:
            self.start = 0

    def reach(self, length: int) -> int:
        """As ``KVCache.reach``: all that the row after ``length`` sees must be held."""
        held = min(length, self.length)
        return held if not self.start or held - self.window + 1 >= self.start else 0


def stride_of(head_dim: int) -> int:
    """The smallest count of rows whose sums ONNX Runtime does not split otherwise when rows in
    front are left out."""
    return max(128, SUMMED >> (head_dim - 1).bit_length())
