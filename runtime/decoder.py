"""A decode graph, its cache and its memory: forward by tokens, back by ``keep``.

Knows nothing of drafts, sampling or stopping. Batch size is 1; tokens may form a tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgegen.devices.device import Feeds, Session, Tensor
from edgegen.manifest import Variant

from .cache import open_cache
from .verify import ancestors, depths

# Additive mask value of rows a token may not see: finite, and exp() of it is exactly 0.
HIDDEN = np.float32(-3.0e4)
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Scores:
    """``logits [rows, vocabulary]``: views of buffers the next call writes over."""

    logits: NDArray[np.float32]


class _Call:
    """The small inputs of a call over n tokens, kept and rewritten in place while n stays."""

    def __init__(self, n: int) -> None:
        self.tokens = np.zeros((1, n), np.int64)
        self.positions = np.zeros((1, n), np.int64)
        self.slots = np.zeros((1, n), np.int64)
        self.parents = np.zeros((1, n), np.int64)
        self.chain: Ints = np.arange(n)
        self.chain_parents: Ints = np.arange(-1, n - 1)
        self.triangle = np.triu(np.full((n, n), HIDDEN), 1)


class Decoder:
    """One text being decoded. ``memory`` holds cross keys and values and the source mask."""

    def __init__(
        self, session: Session, variant: Variant, memory: Feeds | None = None, limit: int = 0
    ) -> None:
        self._names = variant.graph.input_names()
        self._request = session.request()
        for name, array in (memory or {}).items():
            if name in self._names:
                self._request.bind(name, array)
        self._cache = open_cache(variant, self._request, limit)
        self._past = np.zeros(1, np.int64)
        self._calls: dict[int, _Call] = {}
        self._rows: dict[tuple[int, int], Ints] = {}
        self._blank = np.zeros((1, 1, 64), np.float32)

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

        ``parents[i]`` is the index in ``tokens`` that token i follows, -1 the last row that stands;
        None is a chain. The new rows are ``length`` to ``length + n`` until ``keep``.
        """
        n, past = len(tokens), self._cache.length
        call = self._calls.get(n)
        if call is None:
            call = self._calls[n] = _Call(n)
        self._past[0] = past
        call.tokens[0] = tokens
        call.slots[0] = call.chain
        call.slots += past
        if parents is None:
            call.positions[0] = call.slots[0]
            call.parents[0] = call.chain_parents
        else:
            call.positions[0] = depths(parents)
            call.positions += past
            call.parents[0] = parents
        feeds: dict[str, Tensor] = {
            "tokens": call.tokens,
            "positions": call.positions,
            "past_length": self._past,
            "slots": call.slots,
            "parents": call.parents,
            "logit_rows": self._logit_rows(first_row, n),
        }
        if "visible" in self._names:
            feeds["visible"] = self._visible(call, n, past, parents)
        wanted = {name: array for name, array in feeds.items() if name in self._names}
        outputs = self._request.run({**wanted, **self._cache.before(n)})
        self._cache.after(outputs, n)
        return Scores(outputs["logits"][0])

    def keep(self, length: int, rows: Sequence[int] = ()) -> None:
        """Keep the first ``length`` rows, then ``rows``; see ``KVCache.keep``."""
        self._cache.keep(length, rows)

    def _logit_rows(self, first: int, n: int) -> Ints:
        key = (first, n)
        if key not in self._rows:
            self._rows[key] = np.arange(first, n)
        return self._rows[key]

    def _visible(
        self, call: _Call, n: int, past: int, parents: Sequence[int] | None
    ) -> NDArray[np.float32]:
        """Additive ``[1, n, past + n]``: 0 for the past and a row's own path, HIDDEN elsewhere."""
        if n == 1:
            if past + 1 > self._blank.shape[2]:
                self._blank = np.zeros((1, 1, 2 * (past + 1)), np.float32)
            return self._blank[:, :, : past + 1]
        visible = np.zeros((1, n, past + n), np.float32)
        visible[0, :, past:] = (
            call.triangle if parents is None else np.where(ancestors(parents), 0, HIDDEN)
        )
        return visible
