"""The suffix automaton: every substring of a growing text in linear space (Blumer et al., 1985)."""

from __future__ import annotations

# Of the repeated suffixes of the newest token, so many learn that they occurred again; shorter
# ones keep an earlier place. Keeps a token's cost constant in texts that repeat one token.
REFRESHED = 32


class SuffixAutomaton:
    """States are sets of substrings that end at the same places; each append is amortised O(1).

    ``match_length`` and ``match_place``: the longest suffix of the text that occurred before, and
    the place after its most recent earlier occurrence. ``barred`` is a place nothing may be copied
    from, such as the end of a part: an occurrence that ends there does not count.
    """

    def __init__(self, barred: int = -1) -> None:
        self.next: list[dict[int, int]] = [{}]
        self.link: list[int] = [-1]
        self.length: list[int] = [0]
        self.recent: list[int] = [-1]  # where the state's substrings last ended
        self.match_length = self.match_place = 0
        self._barred = barred
        self._last = self._size = 0

    def append(self, token: int) -> None:
        """The text grows by a token; ``match_length`` and ``match_place`` are of the new text."""
        place, self._size = self._size, self._size + 1
        state = self._last
        self._last = self._state({}, self.length[state] + 1, place)
        while state >= 0 and token not in self.next[state]:
            self.next[state][token] = self._last
            state = self.link[state]
        self.link[self._last] = 0 if state < 0 else self._split(state, token)
        self._match()
        if place + 1 != self._barred:
            self._refresh(place)

    def follow(self, state: int, matched: int, token: int) -> tuple[int, int]:
        """The longest suffix of another text that is a substring of this one, a token later.

        ``state`` and ``matched`` (its length) begin at 0.
        """
        while state and token not in self.next[state]:
            state = self.link[state]
            matched = self.length[state]
        after = self.next[state].get(token)
        return (0, 0) if after is None else (after, matched + 1)

    def _state(self, successors: dict[int, int], length: int, recent: int) -> int:
        self.next.append(successors)
        self.link.append(0)
        self.length.append(length)
        self.recent.append(recent)
        return len(self.next) - 1

    def _split(self, state: int, token: int) -> int:
        """The state of exactly ``state``'s longest substring and ``token``, made if it must be."""
        found, length = self.next[state][token], self.length[state] + 1
        if self.length[found] == length:
            return found
        clone = self._state(dict(self.next[found]), length, self.recent[found])
        self.link[clone] = self.link[found]
        self.link[found] = clone
        while state >= 0 and self.next[state].get(token) == found:
            self.next[state][token] = clone
            state = self.link[state]
        return clone

    def _match(self) -> None:
        state = self.link[self._last]
        while state > 0 and self.recent[state] + 1 == self._barred:
            state = self.link[state]
        self.match_length, self.match_place = self.length[state], self.recent[state] + 1

    def _refresh(self, place: int) -> None:
        state = self.link[self._last]
        for _ in range(REFRESHED):
            if state <= 0:
                return
            self.recent[state] = place
            state = self.link[state]
