"""What a drafter is: it proposes tokens and never decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from ..verify import Draft, Lossless


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a drafter may look at. Every token here is committed.

    ``source`` are ids of the target's vocabulary: the encoder's own where both sides share one,
    else the source text in the target's tokenizer, else empty. ``tokens`` are the decoder's: start
    and prompt, then what was generated; the last is not in the target's cache yet. After the
    first step ``hidden`` [n, d] and ``scores`` [n, V] hold the last call's rows when the graph
    gives them: row 0 followed its last pending token, row 1+i its draft node i.
    """

    source: Sequence[int]
    tokens: Sequence[int]
    hidden: NDArray[np.float32] | None = None
    scores: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True)
class Materials:
    """What a drafter is made from. ``ends`` are the ids that end a text."""

    ends: frozenset[int]
    vocabulary: int


class Drafter(Protocol):
    """Lives for one generation."""

    def draft(self, context: Context, limit: int) -> Draft:
        """At most ``limit`` nodes; an empty draft is a plain step."""
        ...

    def commit(self, length: int) -> None:
        """The first ``length`` of the context's tokens stand and are in the target's cache.

        What a drafter computed for tokens beyond them is to be forgotten.
        """
        ...


class DrafterKind(Protocol):
    """A class in the table of drafters.

    ``lossless`` is the best class its drafts allow; the verifier in use may lower it.
    """

    lossless: ClassVar[Lossless]

    @classmethod
    def make(cls, materials: Materials) -> Drafter: ...
