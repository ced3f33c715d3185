"""Eight-bit weights: close to lossless, half the memory traffic of float16."""

from __future__ import annotations

from .base import Quantiser


class Int8(Quantiser):
    """256 codes a block."""

    def __init__(self, block: int = 32, symmetric: bool = True) -> None:
        super().__init__(8, block, symmetric)
