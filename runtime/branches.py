"""The rows of a cache that several texts grown from one stand on: what to feed, which rows to keep.

Texts share the rows of what they have in common, so a text is a walk from its last row back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from .generation import Feed, Target

# Rows no text follows any more are dropped when there are this many and a quarter of all. They are
# counted when there are so many rows more than texts came from at the last count.
FEWEST_DEAD = 16


class Tip(Protocol):
    """Where a text ends. ``tokens`` follow the prompt; the last follows ``row`` and is not fed."""

    tokens: tuple[int, ...]
    row: int


class Branches:
    """Of one target. Each step is a call, ``prompt`` or ``grow``, and then ``keep``."""

    def __init__(self, target: Target) -> None:
        self._target = target
        # The row before each row.
        self._before: list[int] = []
        # Which row of a call follows a row with a token, the cache's row of the call's first
        # logits, and the rows that stand whatever is chosen.
        self._calls: dict[tuple[int, int], int] = {}
        self._first = self._base = self._counted = 0

    def prompt(self, pending: Sequence[int]) -> Feed:
        """The call of what all texts begin with."""
        self._base = self._target.length + len(pending)
        self._first = self._base - 1
        self._before, self._counted = list(range(-1, self._first)), self._base
        return Feed(pending, None, len(pending) - 1)

    def grow(self, tips: Sequence[Tip]) -> Feed:
        """The call of their last tokens. Two may have come to the same text: one row is theirs."""
        self._base = self._first = length = self._target.length
        wanted = dict.fromkeys([(tip.row, tip.tokens[-1]) for tip in tips])
        self._calls = {key: index for index, key in enumerate(wanted)}
        self._before += [row for row, _ in wanted]
        return Feed([token for _, token in wanted], [row - length for row, _ in wanted])

    def call(self, tip: Tip) -> int:
        """Which row of the call has the logits that follow the text."""
        return self._calls[tip.row, tip.tokens[-1]] if tip.tokens else 0

    def row(self, call: int) -> int:
        """Where a row of the call lies in the cache."""
        return self._first + call

    def keep(self, tips: Sequence[Tip]) -> None:
        """Keep the rows some text follows, and write where they are into the tips."""
        base = self._base
        followed = sorted({tip.row for tip in tips if tip.row >= base})
        self._target.keep(base, followed)
        self._before[base:] = [self._before[row] for row in followed]
        if followed and followed[-1] >= base + len(followed):
            _move(tips, {row: base + i for i, row in enumerate(followed)})
        if self._target.length >= self._counted + FEWEST_DEAD:
            self._counted = self._compact(tips)

    def _compact(self, tips: Sequence[Tip]) -> int:
        """Drop rows no text comes from, if they are many: those behind them are moved. Returns how
        many there are a text comes from."""
        length = self._target.length
        alive = self._ancestry(tips)
        if length - len(alive) < max(FEWEST_DEAD, length // 4):
            return len(alive)
        first = next(i for i, row in enumerate(alive) if i != row)
        self._target.keep(first, alive[first:])
        places = {row: i for i, row in enumerate(alive)} | {-1: -1}
        self._before = [places[self._before[row]] for row in alive]
        _move(tips, places)
        return len(alive)

    def _ancestry(self, tips: Sequence[Tip]) -> list[int]:
        """The rows texts come from, in order."""
        seen: set[int] = set()
        for tip in tips:
            row = tip.row
            while row >= 0 and row not in seen:
                seen.add(row)
                row = self._before[row]
        return sorted(seen)


def _move(tips: Sequence[Tip], places: Mapping[int, int]) -> None:
    """Rows have new places."""
    for tip in tips:
        tip.row = places.get(tip.row, tip.row)
