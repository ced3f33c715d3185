"""How much to draft: asked before every step, told after it what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from msgspec import Struct

from .verify import Draft


class Facts(Struct, frozen=True, kw_only=True):
    """What one step did. Times in seconds.

    ``path`` are the draft's nodes the verifier let stand, of which a stop kept the first ``kept``.
    ``pending`` counts the rows of the decode call that are not the draft's: 1, or a prompt.
    """

    draft: Draft
    path: tuple[int, ...]
    kept: int
    pending: int
    draft_seconds: float
    decode_seconds: float


class Budget(Protocol):
    """Lives for one generation. ``pending`` as in ``Facts``."""

    def limit(self, pending: int) -> int:
        """Draft nodes to ask for now; 0 is a plain step and the drafter is not asked."""
        ...

    def trim(self, draft: Draft, pending: int) -> int:
        """How many of the first nodes of what the drafter proposed are worth verifying."""
        ...

    def observe(self, facts: Facts) -> None:
        """Called after every step, plain ones too."""
        ...


@dataclass(frozen=True)
class Fixed:
    """The same limit every time."""

    nodes: int = 0

    def limit(self, pending: int) -> int:
        return self.nodes

    def trim(self, draft: Draft, pending: int) -> int:
        return len(draft)

    def observe(self, facts: Facts) -> None:
        """Nothing changes it."""
