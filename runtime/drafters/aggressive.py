"""Aggressive: copy the whole rest of the source from where the output has got to.

Input-guided decoding for editing tasks (Sun et al., 2021; Ge et al., "Lossless Acceleration for
Seq2seq Generation with Aggressive Decoding", 2022). A pointer into the source follows the output.
Where the papers decode token by token after an edit until the output is found again, this one
drafts the few places where the source may go on at once, as a tree.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from math import log
from typing import ClassVar, Self

from ..verify import Draft, Lossless
from .base import Context, Materials
from .growth import Successor, grow

# So many tokens copied in a row settle the pointer: it never goes back before them.
SETTLED = 2
# How far from where it is expected the source may be met again on one token alone.
NEAR = 4
# Longest stretch of output looked for in the source.
LONGEST = 8
# Guesses where the source goes on after an edit, as offsets from one token replaced by one: a
# misspelt word is several tokens and its correction often one. And how often each is right.
GUESSES = tuple(
    (offset, log(share))
    for offset, share in ((0, 0.25), (1, 0.2), (2, 0.2), (3, 0.15), (4, 0.1), (-1, 0.1))
)
COPY, EVIDENT = log(0.95), log(0.85)
# After so many tokens that were not met again nothing is guessed any more.
LOST = 4

Place = int


class Aggressive:
    """Without a source, as in decoder-only models, the prompt is what is edited.

    Settled places only move forward. Between them the output may be met again by its longest
    recent stretch that occurs ahead, the occurrence nearest to the expected place on ties.
    """

    lossless: ClassVar[Lossless] = "sample-identical"

    def __init__(self, ends: frozenset[int] = frozenset(), guesses: bool = True) -> None:
        self._ends, self._guessing = ends, guesses
        self._source: list[int] = []
        self._places: dict[int, list[int]] = {}
        self._output: list[int] = []
        self._skipped = -1  # tokens of the context before the output; -1 before the first
        self._pointer = 0  # where the source goes on
        self._run = 0  # tokens of the output that stand before the pointer; 0 is a guess
        self.settled = (0, 0)  # places in source and output up to which all is decided

    @classmethod
    def make(cls, materials: Materials) -> Self:
        return cls(materials.ends, guesses=not materials.followed)

    def draft(self, context: Context, limit: int) -> Draft:
        if self._skipped < 0:
            self._begin(context)
        for token in context.tokens[self._skipped + len(self._output) :]:
            self._advance(token)
        if limit < 1:
            return Draft()
        if self._run >= SETTLED or not self._output:
            return Draft.chain(self._rest(self._pointer, limit), evidence=self._run)
        if not self._run and (not self._guessing or self._lost > LOST):
            return Draft()
        return grow(-1, self._goes_on, limit, self._ends)

    def commit(self, length: int) -> None:
        """Only committed tokens are ever read, so nothing is forgotten."""

    def _begin(self, context: Context) -> None:
        self._skipped = len(context.tokens)
        self._source = [*(context.source or context.tokens)]
        for place, token in enumerate(self._source):
            self._places.setdefault(token, []).append(place)

    def _rest(self, place: Place, limit: int) -> list[int]:
        """The source from ``place`` on, up to its first end token."""
        found: list[int] = []
        for token in self._source[place : place + limit]:
            if token < 0:
                break
            found.append(token)
            if token in self._ends:
                break
        return found

    def _advance(self, token: int) -> None:
        """The output grows by a token."""
        self._output.append(token)
        if self._run and self._is(self._pointer, token):
            self._pointer, self._run = self._pointer + 1, self._run + 1
        else:
            self._pointer, self._run = self._met_again()
        if self._run >= SETTLED:
            self.settled = (self._pointer, len(self._output))

    def _is(self, place: Place, token: int) -> bool:
        return place < len(self._source) and self._source[place] == token

    def _met_again(self) -> tuple[Place, int]:
        """Where the source goes on after the output, and the tokens that say so."""
        expected = self._expected()
        best, found = (0, 0), expected
        for place in self._ahead(self._output[-1]):
            run, away = self._stretch(place), abs(place + 1 - expected)
            if (run >= SETTLED or away <= NEAR) and (run, -away) > best:
                best, found = (run, -away), place + 1
        return found, best[0]

    @property
    def _lost(self) -> int:
        """Tokens since the settled place."""
        return len(self._output) - self.settled[1]

    def _expected(self) -> Place:
        """Where the source goes on if every token since the settled place replaced one."""
        return self.settled[0] + self._lost

    def _ahead(self, token: int) -> Sequence[Place]:
        places = self._places.get(token, [])
        return places[bisect_left(places, self.settled[0]) :]

    def _stretch(self, place: Place) -> int:
        """How many of the newest tokens stand in the source up to ``place``."""
        run, bound = 0, place - self.settled[0] + 1
        for token in reversed(self._output[-min(LONGEST, bound) :]):
            if self._source[place - run] != token:
                break
            run += 1
        return run

    def _goes_on(self, place: Place) -> list[Successor[Place]]:
        """The next token of a copy; at the root (-1) the first token of each guess."""
        if place >= 0:
            return [(token, COPY, place + 1) for token in self._rest(place, 1)]
        found: dict[int, Successor[Place]] = {}
        for at, score in self._guesses():
            for token in self._rest(max(at, 0), 1):
                found.setdefault(token, (token, score, at + 1))
        return sorted(found.values(), key=lambda successor: -successor[1])

    def _guesses(self) -> Iterator[tuple[Place, float]]:
        if self._run:
            yield self._pointer, EVIDENT
            if not self._guessing:
                return
        expected, (settled, _) = self._expected(), self.settled
        for offset, score in GUESSES:
            if expected + offset >= settled:
                yield expected + offset, score
