"""What drafters copy from: the source, then the output, which grows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .base import Context


class Haystack:
    """``tokens`` up to ``border`` are the source; nothing copied crosses the border or an end.

    The drafter that owns it appends what ``unread`` gives.
    """

    def __init__(self, ends: frozenset[int]) -> None:
        self._ends = ends
        self.tokens: list[int] = []
        self.border = 0
        self._begun = False

    def unread(self, context: Context) -> Sequence[int]:
        """Tokens of the context that are not in the haystack yet, in order."""
        if not self._begun:
            self._begun = True
            self.border = len(context.source)
            return [*context.source, *context.tokens]
        return context.tokens[len(self.tokens) - self.border :]

    def begins(self, place: int) -> int:
        """Where the text that holds ``place`` begins."""
        return 0 if place < self.border else self.border

    def following(self, place: int, limit: int) -> list[int]:
        """At most ``limit`` tokens from ``place`` on, the first end token included.

        At the end of the output the copy reads itself, so a loop is drafted at full length.
        """
        return list(self._copied(place, limit))

    def _copied(self, place: int, limit: int) -> Iterator[int]:
        tokens = self.tokens
        last = self.border if place < self.border else place + limit
        period = len(tokens) - place
        for at in range(place, min(place + limit, last)):
            token = tokens[at] if at < len(tokens) else tokens[place + (at - place) % period]
            if token < 0:
                return  # a start mark that is no id
            yield token
            if token in self._ends:
                return
