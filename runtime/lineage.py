"""Who follows whom among the rows of a cache that holds several texts grown from one.

The texts share the rows of their common beginnings, so no row is stored or moved twice: which rows
a new one sees is a matter of its mask, and where it stands one of its position.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .verify import ancestors

Ints = NDArray[np.int64]
FIRST_ROWS = 64


class Lineage:
    """Positions and ancestors of rows, those that stand first and the latest call's behind them."""

    def __init__(self) -> None:
        self._positions: Ints = np.zeros(FIRST_ROWS, np.int64)
        # Row i sees row j: j is i or an ancestor of i.
        self._sees: NDArray[np.bool_] = np.zeros((FIRST_ROWS, FIRST_ROWS), np.bool_)

    def add(self, length: int, parents: Sequence[int]) -> None:
        """New rows behind the ``length`` that stand; ``parents`` as in ``Decoder.forward``."""
        end = length + len(parents)
        self._reserve(end)
        if length + min(parents) >= 0 > max(parents):
            followed = [length + parent for parent in parents]
            self._sees[length:end, :length] = self._sees[followed, :length]
            self._sees[length:end, length:end] = ancestors(parents)
            self._positions[length:end] = self._positions[followed] + 1
            return
        self._sees[length:end] = False
        for row, parent in enumerate(parents, length):
            before = length + parent
            if before >= 0:
                self._sees[row, :end] = self._sees[before, :end]
            self._positions[row] = self._positions[before] + 1 if before >= 0 else 0
            self._sees[row, row] = True

    def keep(self, length: int, rows: Sequence[int]) -> None:
        """As ``KVCache.keep``."""
        kept, end = list(rows), length + len(rows)
        if kept != list(range(length, end)):
            self._positions[length:end] = self._positions[kept]
            among = self._sees[np.ix_(kept, kept)]
            self._sees[length:end, :length] = self._sees[kept, :length]
            self._sees[length:end, length:end] = among

    def positions(self, start: int, end: int) -> Ints:
        """``[1, end - start]``"""
        return self._positions[None, start:end]

    def visible(self, start: int, end: int) -> NDArray[np.bool_]:
        """``[end - start, end]``: what the rows from ``start`` on see."""
        return self._sees[start:end, :end]

    def _reserve(self, rows: int) -> None:
        held = len(self._positions)
        if rows > held:
            more = max(held, rows - held)
            self._positions = np.pad(self._positions, (0, more))
            self._sees = np.pad(self._sees, (0, more))
