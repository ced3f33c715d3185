"""When a generation ends, token by token: end ids, stop strings, the length limit.

Steps that commit several tokens stop at the same token as steps of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from msgspec import Struct

# stop: an end token; stop_string: a stop text; length: max_new_tokens; cancelled: by the caller.
FinishReason = Literal["stop", "stop_string", "length", "cancelled"]

# Given one more token id, the whole text so far.
TextSoFar = Callable[[int], str]


class Cut(Struct, frozen=True):
    """How many of the new tokens stand, and why it ended, if it did.

    ``text_length`` is where to cut the text: the first character of the stop string.
    """

    keep: int
    reason: FinishReason | None = None
    text_length: int | None = None


class StopStrings:
    """Finds stop strings in a text that grows, across token borders.

    Only what is new is searched, unless the text changed behind (a character that needed several
    byte tokens).
    """

    def __init__(self, stop: Iterable[str]) -> None:
        self._stop = tuple(stop)
        self._longest = max(map(len, self._stop), default=0)
        self._seen = ""

    @staticmethod
    def finder(
        stop: Sequence[str], read: Callable[[Sequence[int]], str]
    ) -> Callable[[Sequence[int]], Cut | None]:
        """Where a stop string cuts the text of some tokens, all of them read anew."""

        def found(tokens: Sequence[int]) -> Cut | None:
            place = StopStrings(stop).find(read(tokens))
            return None if place is None else Cut(len(tokens), "stop_string", place)

        return found

    def find(self, text: str) -> int | None:
        """Where the earliest stop string in the text so far begins, or None."""
        grown = text.startswith(self._seen)
        start = max(0, len(self._seen) - self._longest + 1) if grown else 0
        self._seen = text
        places = [place for stop in self._stop if (place := text.find(stop, start)) >= 0]
        return min(places, default=None)

    def shown(self, text: str) -> int:
        """How much of the text can be shown: its end may still become a stop string."""
        for start in range(max(0, len(text) - self._longest + 1), len(text)):
            if any(stop.startswith(text[start:]) for stop in self._stop):
                return start
        return len(text)


class Stopping:
    """One generation's end. An end token is kept; a token that completes a stop string too."""

    def __init__(
        self,
        *,
        ends: Iterable[int],
        max_new_tokens: int,
        stop: Sequence[str] = (),
        text: TextSoFar | None = None,
    ) -> None:
        """``text`` is asked once for each token that stands, in order, and only with stop strings.

        Raises ``ValueError`` for stop strings without it: a caller's slip, not a user's.
        """
        if stop and text is None:
            raise ValueError("stop strings need a function that gives the text so far")
        self._ends, self._room = frozenset(ends), max_new_tokens
        self._strings, self._text = StopStrings(stop), text if stop else None

    @property
    def room(self) -> int:
        """Tokens that may still be emitted."""
        return self._room

    def check(self, tokens: Sequence[int]) -> Cut:
        """Take the new tokens of a step, in order. Not to be called after a reason came back."""
        for index, token in enumerate(tokens):
            self._room -= 1
            if token in self._ends:
                return Cut(index + 1, "stop")
            if self._text is not None:
                place = self._strings.find(self._text(token))
                if place is not None:
                    return Cut(index + 1, "stop_string", place)
            if self._room <= 0:
                return Cut(index + 1, "length")
        return Cut(len(tokens))
