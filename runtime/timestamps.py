"""Timestamp tokens read back: where segments begin and end, and where the next window starts.

Whisper's way through long audio (Radford et al., 2022, section 3.8): two times side by side close
a segment and open the next one, so what follows the last such pair was cut off by the window's
end and is heard again, from that time on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Span:
    """Tokens ``first`` up to ``last`` (exclusive), spoken from ``start`` to ``end`` in steps."""

    first: int
    last: int
    start: int
    end: int


@dataclass(frozen=True)
class Reading:
    """A window's segments, how many of its tokens stand, and the steps to move on by."""

    spans: tuple[Span, ...]
    kept: int
    advance: int


def settled(tokens: Sequence[int], begin: int) -> tuple[Span, ...]:
    """The segments that no token to come can change. Ids from ``begin`` up are times."""
    edges = [0, *(i for i in range(1, len(tokens)) if min(tokens[i - 1 : i + 1]) >= begin)]
    return tuple(_span(tokens, begin, *edge) for edge in pairwise(edges))


def read(tokens: Sequence[int], begin: int, steps: int, *, stopped: bool = False) -> Reading:
    """What a whole window of ``steps`` time steps says; ``tokens`` are without the end token.

    ``stopped`` is a text that was ended on purpose: nothing of it is heard again.
    """
    spans, count = settled(tokens, begin), len(tokens)
    kept = spans[-1].last if spans else 0
    if not spans:
        # One segment, whose end the model did not say if no time follows the first one.
        said = [token - begin for token in tokens if token > begin]
        return Reading((Span(0, count, 0, said[-1] if said else steps),), count, steps)
    closed = tokens[-1] >= begin
    if stopped or (closed and tokens[-2] < begin):
        # One time at the end, not two: nothing is said after it.
        start = max(0, tokens[kept] - begin)
        rest = Span(kept, count, start, max(start, tokens[-1] - begin) if closed else steps)
        return Reading((*spans, rest), count, steps)
    # A time of 0 at the end of all segments would hear the same window for ever.
    return Reading(spans, kept, spans[-1].end or steps)


def _span(tokens: Sequence[int], begin: int, first: int, last: int) -> Span:
    start, end = tokens[first] - begin, tokens[last - 1] - begin
    return Span(first, last, max(0, start), max(0, start, end))
