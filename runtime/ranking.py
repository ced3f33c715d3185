"""Which continuations of several texts are likeliest: log-probabilities, sums, the best of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .filters import Forbids, LogitsFilter
from .history import HistoryBuffer
from .sampling import check_top, top_ids

Floats = NDArray[np.float32]


class LogProbabilities:
    """Of a call's rows, as filters leave them: ``values [rows, V]`` plus ``offsets [rows]``,
    written anew each call.

    Filters see log-probabilities, as transformers' processors do in a beam search.
    """

    def __init__(self, history: HistoryBuffer, filters: Sequence[LogitsFilter]) -> None:
        self._history, self._filters = history, filters
        # Rules that only forbid do the same to values that are all less by an offset.
        self._exact = any(not isinstance(rule, Forbids) for rule in filters)
        self._filtered: set[int] = set()
        self._weights: Floats = np.empty(0, np.float32)
        self.values: Floats = np.empty((0, 0), np.float32)
        self.offsets: Floats = np.empty(0, np.float32)

    def read(self, logits: Floats) -> None:
        """Those of ``logits [rows, V]``, in float32. Raises what a greedy choice would."""
        if self.values.shape != logits.shape:
            self.values = np.empty_like(logits)
            self._weights = np.empty_like(logits[0])
        tops = logits.max(axis=1)
        sums = np.empty_like(tops)
        for row, top in enumerate(tops):  # each row while it is near
            values, weights = self.values[row], self._weights
            check_top(float(top))
            np.subtract(logits[row], top, out=values)
            np.exp(values, out=weights)
            sums[row] = weights.sum()
        self.offsets = -np.log(sums)
        self._filtered.clear()

    def filter(self, row: int, tokens: Sequence[int]) -> None:
        """Let the filters have a row that follows ``tokens``. Once a call, whoever asks."""
        if not self._filters or row in self._filtered:
            return
        values, history = self.values[row], self._history.at(tokens)
        if self._exact:
            values += self.offsets[row]
            self.offsets[row] = 0
        for rule in self._filters:
            rule.apply(values, history)
        self._filtered.add(row)


def likeliest(values: Floats, scores: Floats, count: int) -> list[tuple[int, int, np.float32]]:
    """Row, id and sum of the ``count`` largest finite of ``values [rows, V]`` plus ``scores
    [rows]``, largest first, lowest row and id first among equals."""
    sums = (values + scores[:, None]).reshape(-1)
    places = top_ids(sums, count)
    found = sums[places]
    order = np.argsort(-found, kind="stable")[:count]
    rows, ids = np.divmod(places[order], values.shape[1])
    return list(zip(rows.tolist(), ids.tolist(), found[order], strict=True))
