"""Trigram: an adaptive table of what follows two tokens, searched for the likeliest tree.

ADED (Liu et al., "Adaptive Draft-Verification for Efficient Large Language Model Decoding", 2024)
with these changes: weights are probabilities that forget at a constant rate, where the paper adds
to them without end; paths are compared by the sum of log-probabilities; all rows teach.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import log
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ..verify import Draft, Lossless
from .base import Context, Materials, Rows
from .growth import Successor, grow
from .store import check_vocabulary, load_arrays, save_arrays
from .topk import top_of

Bigram = tuple[int, int]
# What one observation weighs against all before it: a token that was committed, and a row of
# the target's own scores.
COMMITTED, SCORED = 0.3, 0.5
# Successors kept of a pair of tokens, and pairs of tokens kept: the ones longest unseen go.
SUCCESSORS, PAIRS = 12, 65536
# Of a row's successors so many teach; those less likely than this do not.
TAUGHT, FAINTEST = 4, 0.02
# What has become less likely than this is not drafted.
FORGOTTEN = 1e-4
FILE, ABSENT = "trigram.npz", -1


class Trigram:
    """Begins with the source's own trigrams. With a file, begins with what earlier texts taught."""

    lossless: ClassVar[Lossless] = "sample-identical"
    wants: ClassVar[tuple[str, ...]] = ("topk",)

    def __init__(
        self,
        ends: frozenset[int] = frozenset(),
        vocabulary: int = 0,
        file: Path | None = None,
        pairs: int = PAIRS,
    ) -> None:
        self._ends, self._vocabulary, self._file = ends, vocabulary, file
        self._pairs = pairs
        self.table: dict[Bigram, dict[int, float]] = {}
        self._read = -1  # tokens of the context seen; -1 before the first
        if file is not None:
            self.load(file)

    @classmethod
    def make(cls, materials: Materials) -> Self:
        store = materials.store
        return cls(materials.ends, materials.vocabulary, None if store is None else store / FILE)

    def draft(self, context: Context, limit: int) -> Draft:
        tokens = context.tokens
        if self._read < 0:
            self._read_text(context.source, 2)
            self._read = 2
        self._read_text(tokens, self._read)
        self._read = max(2, len(tokens))
        if context.rows is not None:
            self._read_rows(context.rows, tokens)
        if limit < 1 or len(tokens) < 2:
            return Draft()
        return self._tree((tokens[-2], tokens[-1]), limit)

    def commit(self, length: int) -> None:
        """The table is about tokens, wherever they stood."""

    def _tree(self, root: Bigram, limit: int) -> Draft:
        return grow(root, self._successors, limit, self._ends)

    def _successors(self, pair: Bigram) -> list[Successor[Bigram]]:
        row = self.table.get(pair)
        if row is None:
            return []
        found = [
            (after, log(weight), (pair[1], after))
            for after, weight in row.items()
            if weight > FORGOTTEN
        ]
        return sorted(found, key=lambda successor: -successor[1])

    # -------------------------------------------------------------- learning

    def learn(self, pair: Bigram, chances: dict[int, float], rate: float) -> None:
        """Move the row of ``pair`` towards ``chances``, which sum to at most 1."""
        row = self.table.pop(pair, None)
        if row is None:
            row = dict(chances)
        else:
            for after in row:
                row[after] *= 1 - rate
            for after, chance in chances.items():
                row[after] = row.get(after, 0.0) + rate * chance
            if len(row) > SUCCESSORS:
                heaviest = sorted(row, key=row.__getitem__, reverse=True)[:SUCCESSORS]
                row = {after: row[after] for after in heaviest}
        # Put back last: the table's order is that of its use.
        self.table[pair] = row
        if len(self.table) > self._pairs:
            del self.table[next(iter(self.table))]

    def _read_text(self, text: Sequence[int], start: int) -> None:
        for at in range(start, len(text)):
            self.learn((text[at - 2], text[at - 1]), {text[at]: 1.0}, COMMITTED)

    def _read_rows(self, rows: Rows, tokens: Sequence[int]) -> None:
        for pair, chances in zip(_pairs(rows, tokens), _chances(rows), strict=True):
            if chances:
                self.learn(pair, chances, SCORED)

    # ------------------------------------------------------------------ file

    def save(self) -> None:
        """Write the table to its file, when it has one."""
        if self._file is None:
            return
        count = len(self.table)
        successors = np.full((count, SUCCESSORS), ABSENT, np.int32)
        weights = np.zeros((count, SUCCESSORS), np.float32)
        for at, row in enumerate(self.table.values()):
            successors[at, : len(row)] = list(row)
            weights[at, : len(row)] = list(row.values())
        pairs = np.array(list(self.table), np.int32).reshape(count, 2)
        save_arrays(self._file, {"pairs": pairs, "successors": successors, "weights": weights})

    def load(self, file: Path) -> None:
        """Read what ``save`` wrote. Raises ``InputError`` when it is of another vocabulary."""
        shapes = {
            "pairs": ("int32", (2,)),
            "successors": ("int32", (SUCCESSORS,)),
            "weights": ("float32", (SUCCESSORS,)),
        }
        found = load_arrays(file, shapes)
        if found is None:
            return
        pairs, successors = found["pairs"], found["successors"]
        check_vocabulary(file, self._vocabulary, pairs, successors)
        rows: Any = zip(successors.tolist(), found["weights"].tolist(), strict=True)
        for (first, second), (tokens, weights) in zip(pairs.tolist(), rows, strict=True):
            self.table[first, second] = {
                token: min(weight, 1.0)
                for token, weight in zip(tokens, weights, strict=True)
                if token >= 0 and weight > 0
            }


def _pairs(rows: Rows, tokens: Sequence[int]) -> Iterator[Bigram]:
    """The two tokens before each row."""
    root, draft = rows.root, rows.draft
    yield (tokens[root - 1] if root else ABSENT), tokens[root]
    for token, parent in zip(draft.tokens, draft.parents, strict=True):
        yield (tokens[root] if parent < 0 else draft.tokens[parent]), token


def _chances(rows: Rows) -> Iterator[dict[int, float]]:
    """The likeliest successors of each row with their share among themselves."""
    ids: NDArray[np.int64] = top_of(rows)[:, :TAUGHT]
    values = np.take_along_axis(rows.logits, ids, axis=1)
    weights = np.exp(values - values[:, :1])
    shares = weights / weights.sum(axis=1, keepdims=True)
    for tokens, chances in zip(ids.tolist(), shares.tolist(), strict=True):
        yield {
            token: chance
            for token, chance in zip(tokens, chances, strict=True)
            if chance >= FAINTEST
        }
