"""Which rows the new rows of a call see and where those lie: ``visible`` and ``key_positions``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgegen.graph import HIDDEN

from .buffers import TRAIL
from .verify import ancestors

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


class Masks:
    """Of rows that are one text, whose new ones are a chain or a tree, or all of them a tree.

    ``grain`` makes a mask so many columns wide or a multiple of it, those behind the rows hidden.
    While the width stays an array stays the same object, written anew: a backend need not bind it
    for each token. The first call has no column more than rows, since kernels know it by that.
    """

    def __init__(self, grain: int = 1) -> None:
        self._grain = grain
        self._visible: dict[int, Floats] = {}  # by rows of a call
        self._places: Ints = np.arange(0)[None]
        self._lined: Ints = np.zeros((1, 0), np.int64)
        self._triangle: Floats = np.zeros((1, 1), np.float32)
        self._seen = -1  # columns that a call of one row saw in its mask, where that is kept

    def visible(self, n: int, past: int, parents: Sequence[int] | None) -> Floats:
        """Additive ``[1, n, width]``: 0 for a row's own path, HIDDEN elsewhere. ``parents`` None is
        a chain."""
        end, mask = past + n, self._array(n, past)
        if n == 1 and past == self._seen:
            mask[0, 0, past] = 0
            self._seen = end
            return mask
        mask[0, :, :past] = 0
        if parents is None:
            mask[0, :, past:end] = self._chain(n)
        else:
            mask[0, :, past:end] = np.where(ancestors(parents), np.float32(0), HIDDEN)
        mask[0, :, end:] = HIDDEN
        if n == 1:
            self._seen = end
        return mask

    def visible_of(self, sees: NDArray[np.bool_]) -> Floats:
        """The same of rows that see ``sees [n, past + n]``, whoever follows whom."""
        n, end = sees.shape
        mask = self._array(n, end - n)
        mask.fill(HIDDEN)
        np.copyto(mask[0, :, :end], np.float32(0), where=sees)
        return mask

    def key_positions(
        self, n: int, past: int, parents: Sequence[int] | None, positions: Ints
    ) -> Ints:
        """``[1, width]``; ``positions [1, n]`` are those of the new rows."""
        width = self._width(n, past)
        if self._places.shape[1] != width:
            self._places = np.arange(width)[None]
        if parents is None:
            return self._places
        places = self._places.copy()
        places[:, past : past + n] = positions
        return places

    def key_positions_of(self, positions: Ints, n: int) -> Ints:
        """The same where ``positions [1, past + n]`` are those of all rows."""
        end = positions.shape[1]
        width = self._width(n, end - n)
        if self._lined.shape[1] != width:
            self._lined = np.zeros((1, width), np.int64)
        self._lined[:, :end] = positions
        return self._lined

    def _array(self, n: int, past: int) -> Floats:
        """Where a mask is written: the same as last time if it has as many columns."""
        width, mask = self._width(n, past), self._visible.get(n)
        if mask is None or mask.shape[2] != width:
            mask = np.empty((1, n, width), np.float32)
            self._seen = -1 if n == 1 else self._seen
            # Those of a prompt are large and seldom needed again, exact ones hardly ever fit again.
            if self._grain > 1 and n <= TRAIL:
                self._visible[n] = mask
        return mask

    def _chain(self, n: int) -> Floats:
        """``[n, n]``: a row sees itself and those before it."""
        if n > len(self._triangle):
            self._triangle = np.triu(np.full((n, n), HIDDEN, np.float32), 1)
        return self._triangle[:n, :n]

    def _width(self, n: int, past: int) -> int:
        rows = past + n
        return -(-rows // self._grain) * self._grain if past else rows
