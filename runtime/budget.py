"""How much to draft: asked before every step, told after it what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What one step did. Times in seconds.

    ``levels`` is the depth of the draft's deepest node, equal to ``drafted`` for a chain;
    ``rows`` counts the rows of the decode call, pending tokens included.
    """

    drafted: int
    levels: int
    accepted: int
    rows: int
    draft_seconds: float
    decode_seconds: float


class Budget(Protocol):
    """Lives for one generation."""

    def limit(self) -> int:
        """Draft nodes to ask for now; 0 is a plain step and the drafter is not asked."""
        ...

    def observe(self, facts: Facts) -> None:
        """Called after every step, plain ones too."""
        ...


@dataclass(frozen=True)
class Fixed:
    """The same limit every time."""

    nodes: int = 0

    def limit(self) -> int:
        return self.nodes

    def observe(self, facts: Facts) -> None:
        """Nothing changes it."""
