"""Recycling: what the target thought likely after a token is drafted when the token comes again.

Token recycling (Luo et al., 2024): a table of each token's likeliest successors, fed by every row
of every call, rejected ones too, and a tree of repeated look-ups.
"""

from __future__ import annotations

from itertools import pairwise
from math import log
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from ..verify import Draft, Lossless
from .base import Context, Materials, Rows
from .growth import Successor, grow
from .store import check_vocabulary, load_arrays, save_arrays
from .topk import KEPT, top_of

# How often the true successor was at a rank, before anything was seen; the rest is in no row.
PRIOR = (0.45, 0.14, 0.07, 0.04, 0.03, 0.02, 0.02, 0.01)
PRIOR_WEIGHT, DECAY = 20.0, 0.98
FILE, ABSENT = "recycling.npz", -1


class Recycling:
    """The tree is imbalanced as the text at hand asks: ranks that were right often go deeper.

    At first tokens are taken to be followed as in source and prompt.
    """

    lossless: ClassVar[Lossless] = "sample-identical"
    wants: ClassVar[tuple[str, ...]] = ("topk",)

    def __init__(
        self, ends: frozenset[int] = frozenset(), vocabulary: int = 0, file: Path | None = None
    ) -> None:
        self._ends, self._vocabulary, self._file = ends, vocabulary, file
        self.table: dict[int, list[int]] = {}
        self._hits = [PRIOR_WEIGHT * share for share in PRIOR]
        self._tries = PRIOR_WEIGHT
        self._scores: list[float] = []
        self._read = -1  # tokens of the context seen; -1 before the first
        if file is not None:
            self.load(file)

    @classmethod
    def make(cls, materials: Materials) -> Self:
        store = materials.store
        file = None if store is None else store / FILE
        return cls(materials.ends, materials.vocabulary, file)

    def draft(self, context: Context, limit: int) -> Draft:
        if self._read < 0:
            self._seed(context)
        self._count(context)
        if context.rows is not None:
            self._learn(context.rows, context)
        if limit < 1:
            return Draft()
        self._scores = [log(max(hits, 1e-6) / self._tries) for hits in self._hits]
        return grow(context.tokens[-1], self._successors, limit, self._ends)

    def commit(self, length: int) -> None:
        """The table is about tokens, wherever they stood."""

    def _seed(self, context: Context) -> None:
        """What this text says follows a token comes first, the most recent at the front."""
        for text in (context.source, context.tokens):
            for token, follower in pairwise(text):
                row = self.table.get(token, [])
                self.table[token] = [follower, *(one for one in row if one != follower)][:KEPT]
        self._read = len(context.tokens)

    def _count(self, context: Context) -> None:
        """At which rank of its table row each new token was."""
        tokens = context.tokens
        for at in range(self._read, len(tokens)):
            row = self.table.get(tokens[at - 1])
            if row is None:
                continue
            self._tries = self._tries * DECAY + 1
            self._hits = [hits * DECAY for hits in self._hits]
            if tokens[at] in row:
                self._hits[row.index(tokens[at])] += 1
        self._read = len(tokens)

    def _learn(self, rows: Rows, context: Context) -> None:
        """Rows of tokens that stand come last: they saw the text as it is."""
        top = top_of(rows).tolist()
        for token, row in zip(rows.draft.tokens, top[1:], strict=True):
            self.table[token] = row
        self.table[context.tokens[rows.root]] = top[0]
        for node in rows.accepted(context.tokens):
            self.table[rows.draft.tokens[node]] = top[1 + node]

    def _successors(self, token: int) -> list[Successor[int]]:
        row = self.table.get(token, ())
        return sorted(
            [(after, score, after) for after, score in zip(row, self._scores, strict=False)],
            key=lambda successor: -successor[1],
        )

    # ------------------------------------------------------------------ file

    def save(self) -> None:
        """Write the table to its file, when it has one."""
        if self._file is None:
            return
        rows = np.full((len(self.table), KEPT), ABSENT, np.int32)
        for at, row in enumerate(self.table.values()):
            rows[at, : len(row)] = row
        tokens = np.fromiter(self.table, np.int32, len(self.table))
        save_arrays(self._file, {"tokens": tokens, "successors": rows})

    def load(self, file: Path) -> None:
        """Read what ``save`` wrote. Raises ``InputError`` when it is of another vocabulary."""
        shapes = {"tokens": ("int32", ()), "successors": ("int32", (KEPT,))}
        found = load_arrays(file, shapes)
        if found is None:
            return
        tokens, rows = found["tokens"], found["successors"]
        check_vocabulary(file, self._vocabulary, tokens, rows)
        self.table = {
            token: [after for after in row if after >= 0]
            for token, row in zip(tokens.tolist(), rows.tolist(), strict=True)
        }
