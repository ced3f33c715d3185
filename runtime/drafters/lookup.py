"""Lookup: copy what followed the last occurrence of the newest n-gram, in source or output.

Prompt lookup (Saxena, 2023) over the encoder's input as well as the decoder's output, since an
encoder-decoder model's source never reaches the decoder's ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Self

from edgegen.errors import InputError

from ..verify import Draft, Lossless
from .base import Context, Materials

Gram = tuple[int, ...]


class Lookup:
    """The longest n-gram wins, the most recent occurrence on ties; output is newer than source.

    Every n-gram is kept with the place of the token after it, once that token is there: the newest
    n-gram is not in the table yet and cannot match itself. A token costs ``longest`` look-ups.
    """

    lossless: ClassVar[Lossless] = "sample-identical"

    def __init__(
        self, ends: frozenset[int] = frozenset(), longest: int = 3, shortest: int = 1
    ) -> None:
        if not 1 <= shortest <= longest:
            raise InputError(
                f"lookup: n-grams from {shortest} to {longest} tokens, expected 1 <= shortest <= "
                "longest; change them."
            )
        self._ends, self._sizes = ends, range(shortest, longest + 1)
        self._source: Sequence[int] | None = None
        self._places: dict[Gram, int] = {}
        # The source, then the output; n-grams never cross the border.
        self._hay: list[int] = []
        self._border = 0

    @classmethod
    def make(cls, materials: Materials) -> Self:
        return cls(materials.ends)

    def draft(self, context: Context, limit: int) -> Draft:
        self._read(context)
        for size in reversed(self._sizes):
            if size > len(self._hay) - self._border:
                continue
            place = self._places.get(tuple(self._hay[-size:]))
            if place is not None:
                return Draft.chain(list(self._following(place, limit)), evidence=size)
        return Draft()

    def commit(self, length: int) -> None:
        """Only committed tokens are ever read, so nothing is forgotten."""

    def _following(self, place: int, limit: int) -> Iterator[int]:
        """Tokens from ``place`` on, up to an end token or the source's border.

        At the end of the output the draft reads itself, so a loop is drafted at full length.
        """
        hay = self._hay
        last = self._border if place < self._border else place + limit
        period = len(hay) - place
        for at in range(place, min(place + limit, last)):
            token = hay[at] if at < len(hay) else hay[place + (at - place) % period]
            yield token
            if token in self._ends:
                return

    def _read(self, context: Context) -> None:
        if self._source is None:
            self._source = context.source
            for token in context.source:
                self._append(token)
            self._border = len(self._hay)
        for token in context.tokens[len(self._hay) - self._border :]:
            self._append(token)

    def _append(self, token: int) -> None:
        hay, place = self._hay, len(self._hay)
        for size in self._sizes:
            if size > place - self._border:
                break
            self._places[tuple(hay[place - size :])] = place
        hay.append(token)
