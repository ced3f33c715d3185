"""Four-bit weights: fastest decode, a visible loss on small models."""

from __future__ import annotations

from .base import Quantiser


class Int4(Quantiser):
    """16 codes a block; output tables keep the same bits."""

    def __init__(self, block: int = 32, symmetric: bool = False) -> None:
        super().__init__(4, block, symmetric)
