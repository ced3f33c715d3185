"""Trees grown best first: of all paths the likeliest, merged by path as they are made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import TypeVar

from ..verify import Draft

State = TypeVar("State")
# A token, its log-probability after the state before it, and the state after it.
Successor = tuple[int, float, State]


def grow(
    start: State,
    successors: Callable[[State], Sequence[Successor[State]]],
    limit: int,
    ends: frozenset[int],
) -> Draft:
    """The ``limit`` likeliest nodes by the sum of log-probabilities along their paths.

    ``successors`` gives distinct tokens, likeliest first. A node is never likelier than its parent,
    so taking the best of the frontier is exact where a beam of some width would only come close.
    Nothing follows an end token. Nodes come likeliest first.
    """
    tokens: list[int] = []
    parents: list[int] = []
    # Negated score, order of arrival, siblings, which of them, parent, the parent's score.
    frontier: list[tuple[float, int, Sequence[Successor[State]], int, int, float]] = []
    arrivals = 0

    def offer(siblings: Sequence[Successor[State]], at: int, parent: int, score: float) -> None:
        nonlocal arrivals
        if at < len(siblings):
            arrivals += 1
            entry = (-(score + siblings[at][1]), arrivals, siblings, at, parent, score)
            heappush(frontier, entry)

    offer(successors(start), 0, -1, 0.0)
    while frontier and len(tokens) < limit:
        negated, _, siblings, at, parent, score = heappop(frontier)
        token, _, state = siblings[at]
        offer(siblings, at + 1, parent, score)
        if token not in ends:
            offer(successors(state), 0, len(tokens), -negated)
        tokens.append(token)
        parents.append(parent)
    return Draft(tuple(tokens), tuple(parents))
