"""Rows of a cache that several texts stand on: who follows whom, what is kept, what goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from edgegen.runtime.branches import FEWEST_DEAD, Branches
from edgegen.runtime.decoder import Scores
from edgegen.runtime.lineage import Lineage


@dataclass
class Tip:
    tokens: tuple[int, ...]
    row: int


@dataclass
class Rows:
    """A target that remembers its rows' texts and checks them against who sees whom."""

    texts: list[tuple[int, ...]] = field(default_factory=list[tuple[int, ...]])
    lineage: Lineage = field(default_factory=Lineage)
    length: int = 0
    chunk: int = 512

    def drafts(self, pending: int) -> int:
        return self.chunk - pending

    def reach(self, length: int) -> int:
        return length

    def forward(
        self, tokens: Sequence[int], parents: Sequence[int] | None = None, first_row: int = 0
    ) -> Scores:
        follow = range(-1, len(tokens) - 1) if parents is None else parents
        self.lineage.add(self.length, follow)
        for token, parent in zip(tokens, follow, strict=True):
            row = self.length + parent
            self.texts.append((*(self.texts[row] if row >= 0 else ()), token))
        return Scores(np.zeros((len(tokens), 1), np.float32))

    def keep(self, length: int, rows: Sequence[int] = ()) -> None:
        self.lineage.keep(length, rows)
        self.texts = [*self.texts[:length], *(self.texts[row] for row in rows)]
        self.length = length + len(rows)

    def check(self) -> None:
        sees, places = self.lineage.visible(0, self.length), self.lineage.positions(0, self.length)
        for row, text in enumerate(self.texts):
            path = [self.texts[i][-1] for i in np.flatnonzero(sees[row])]
            assert tuple(path) == text
            assert places[0, row] == len(text) - 1


@pytest.mark.parametrize("seed", range(20))
def test_texts_keep_their_own_rows_whatever_becomes_of_the_others(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, prompt = Rows(), [100, 101, 102][: 1 + seed % 3]
    branches = Branches(rows)
    feed = branches.prompt(prompt)
    rows.forward(feed.tokens, feed.parents, feed.first_row)
    assert branches.row(0) == len(prompt) - 1
    tips, most = [Tip((), -1)], 0
    for step in range(120):
        followed = [tips[i] for i in rng.integers(0, len(tips), size=4)]
        calls = [branches.call(tip) for tip in followed]
        tips = [
            Tip((*tip.tokens, step * 10 + i), branches.row(call))
            for i, (tip, call) in enumerate(zip(followed, calls, strict=True))
        ]
        branches.keep(tips)
        for tip in tips:
            assert rows.texts[tip.row] == (*prompt, *tip.tokens[:-1])
        rows.check()
        most = max(most, rows.length - step - len(prompt))
        feed = branches.grow(tips)
        rows.forward(feed.tokens, feed.parents, feed.first_row)
    # Dead rows go: no more stand than a quarter, what is not counted yet, and texts apart.
    assert most < len(prompt) + 120 // 4 + 4 * FEWEST_DEAD


def test_two_that_came_to_the_same_text_share_a_row() -> None:
    rows = Rows()
    branches = Branches(rows)
    feed = branches.prompt([7])
    rows.forward(feed.tokens, feed.parents, feed.first_row)
    tips = [Tip((3,), 0), Tip((4,), 0), Tip((3,), 0)]
    branches.keep(tips)
    feed = branches.grow(tips)
    assert (list(feed.tokens), feed.parents) == ([3, 4], [-1, -1])
    assert [branches.call(tip) for tip in tips] == [0, 1, 0]
