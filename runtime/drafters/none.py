"""No draft: plain decoding, one token a step."""

from __future__ import annotations

from typing import ClassVar, Self

from ..verify import Draft, Lossless
from .base import Context, Materials


class NoDraft:
    lossless: ClassVar[Lossless] = "sample-identical"

    @classmethod
    def make(cls, materials: Materials) -> Self:
        return cls()

    def draft(self, context: Context, limit: int) -> Draft:
        return Draft()

    def commit(self, length: int) -> None:
        """Nothing is kept, so nothing is forgotten."""
