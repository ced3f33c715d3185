"""Replays texts against a drafter, a budget and a table of costs: seconds by the table alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgegen.runtime.budget import Budget, Facts
from edgegen.runtime.calibration import Costs
from edgegen.runtime.drafters.base import Context, Drafter
from edgegen.runtime.verify import Draft


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A text as plain decoding wrote it: what the encoder read, the prompt, and the new tokens."""

    source: Sequence[int]
    prompt: Sequence[int]
    tokens: Sequence[int]


@dataclass(frozen=True)
class Spent:
    """Seconds with the drafter and without it, for the same tokens, and decode calls made."""

    seconds: float
    plain: float
    tokens: int
    calls: int
    drafted: int
    accepted: int

    @property
    def loss(self) -> float:
        """Share of plain decoding's time lost; negative is a gain."""
        return self.seconds / self.plain - 1.0


def replay(
    trace: Trace,
    drafter: Drafter,
    budget: Budget,
    costs: Costs,
    asking: Callable[[int], float] = lambda nodes: 0.0,
) -> Spent:
    """``asking`` gives the drafter's seconds for a draft of so many nodes."""
    text, at = [*trace.prompt, *trace.tokens], len(trace.prompt)
    pending, seconds, calls, drafted, accepted = at, 0.0, 0, 0, 0
    plain = costs.of(pending) + costs.of(1) * (len(trace.tokens) - 1)
    while at < len(text):
        draft, took = Draft(), 0.0
        limit = min(budget.limit(pending), len(text) - at - 1)
        if limit > 0:
            proposed = drafter.draft(Context(source=trace.source, tokens=text[:at]), limit)
            took = asking(len(proposed))
            draft = proposed.first(budget.trim(proposed, pending))
        path = walk(draft, text[at:])
        decode = costs.of(pending + len(draft))
        budget.observe(
            Facts(
                draft=draft,
                path=path,
                kept=len(path),
                pending=pending,
                draft_seconds=took,
                decode_seconds=decode,
            )
        )
        at += len(path) + 1
        pending, seconds, calls = 1, seconds + decode + took, calls + 1
        drafted, accepted = drafted + len(draft), accepted + len(path)
        drafter.commit(at - 1)
    return Spent(seconds, plain, len(trace.tokens), calls, drafted, accepted)


def walk(draft: Draft, text: Sequence[int]) -> tuple[int, ...]:
    """The draft's nodes that say what the text says."""
    path: list[int] = []
    node = -1
    for token in text[:-1]:
        found = [
            child
            for child in range(node + 1, len(draft))
            if draft.parents[child] == node and draft.tokens[child] == token
        ]
        if not found:
            break
        node = found[0]
        path.append(node)
    return tuple(path)
