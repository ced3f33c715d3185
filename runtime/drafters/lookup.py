"""Lookup: copy what followed the last occurrence of the newest n-gram, in source or output.

Prompt lookup (Saxena, 2023) over the encoder's input as well as the decoder's output, since an
encoder-decoder model's source never reaches the decoder's ids.
"""

from __future__ import annotations

from typing import ClassVar, Self

from edgegen.errors import InputError

from ..verify import Draft, Lossless
from .base import Context, Materials
from .haystack import Haystack

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
        self._sizes = range(shortest, longest + 1)
        self._places: dict[Gram, int] = {}
        self._hay = Haystack(ends)

    @classmethod
    def make(cls, materials: Materials) -> Self:
        # One token alone matches nearly always: too weak where another drafter could speak.
        return cls(materials.ends, shortest=2 if materials.followed else 1)

    def draft(self, context: Context, limit: int) -> Draft:
        hay = self._hay
        for token in hay.unread(context):
            self._append(token)
        for size in reversed(self._sizes):
            if size > len(hay.tokens) - hay.border:
                continue
            place = self._places.get(tuple(hay.tokens[-size:]))
            if place is not None:
                return Draft.chain(hay.following(place, limit), evidence=size)
        return Draft()

    def commit(self, length: int) -> None:
        """Only committed tokens are ever read, so nothing is forgotten."""

    def _append(self, token: int) -> None:
        tokens, place = self._hay.tokens, len(self._hay.tokens)
        begins = self._hay.begins(place)
        for size in self._sizes:
            if size > place - begins:
                break
            self._places[tuple(tokens[place - size :])] = place
        tokens.append(token)
