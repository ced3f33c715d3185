"""What a drafter is: it proposes tokens and never decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeGuard

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from ..verify import Draft, Lossless

if TYPE_CHECKING:
    from .model import DraftModel
    from .suffix import Corpus


class Rows(Struct, frozen=True, kw_only=True):
    """What the target said in its last call: row 0 after ``Context.tokens[root]``, row 1+i after
    ``draft``'s node i, rejected nodes too.

    ``logits`` [1+n, V] are those of the graph, before filters; ``topk`` [1+n, k] the ids of the
    largest, best first, where the graph computes them. Both are good until the next call.
    """

    root: int
    draft: Draft
    logits: NDArray[np.float32]
    topk: NDArray[np.int64] | None = None

    def accepted(self, tokens: Sequence[int]) -> list[int]:
        """The draft's nodes that stand in ``tokens``, root first."""
        path: list[int] = []
        node = -1
        for token in tokens[self.root + 1 :]:
            child = next(
                (
                    i
                    for i in range(node + 1, len(self.draft))
                    if self.draft.parents[i] == node and self.draft.tokens[i] == token
                ),
                None,
            )
            if child is None:
                break
            path.append(child)
            node = child
        return path


class Context(Struct, frozen=True, kw_only=True):
    """What a drafter may look at. Every token here is committed.

    ``source`` are ids of the target's vocabulary: the encoder's own where both sides share one,
    else the source text in the target's tokenizer, else empty. ``tokens`` are the decoder's: start
    and prompt, then what was generated; the last is not in the target's cache yet. ``rows`` are
    there after the first step.
    """

    source: Sequence[int]
    tokens: Sequence[int]
    rows: Rows | None = None


@dataclass(frozen=True, kw_only=True)
class Materials:
    """What a drafter is made from. ``ends`` are the ids that end a text.

    ``model`` is there when the generation drafts with a model. ``corpus`` may be copied from.
    ``store`` is the bundle's folder for what drafters learn, None when nothing is kept between
    texts. ``followed``: another drafter speaks when this one is silent, so it had better be sure.
    """

    ends: frozenset[int]
    vocabulary: int
    model: DraftModel | None = None
    corpus: Corpus | None = None
    store: Path | None = None
    followed: bool = False


class Drafter(Protocol):
    """Lives for one generation."""

    def draft(self, context: Context, limit: int) -> Draft:
        """At most ``limit`` nodes, the likelier ones first; an empty draft is a plain step.

        A limit of 0 asks for nothing: it only shows the context to a drafter that learns.
        """
        ...

    def commit(self, length: int) -> None:
        """The first ``length`` of the context's tokens stand and are in the target's cache.

        What a drafter computed for tokens beyond them is to be forgotten.
        """
        ...


class Learner(Protocol):
    """A drafter that learns: what one text taught serves the next."""

    def save(self) -> None:
        """The text has ended: keep what was learned where ``Materials.store`` says, if it does."""
        ...


def learns(drafter: object) -> TypeGuard[Learner]:
    """What ``isinstance`` would say of the protocol, in a hundredth of its time."""
    return hasattr(drafter, "save")


class DrafterKind(Protocol):
    """A class in the table of drafters. ``wants``, where it has one, names outputs of the decode
    graph it can use beside the logits.

    ``lossless`` is the best class its drafts allow; the verifier in use may lower it.
    """

    @property
    def lossless(self) -> Lossless: ...
    def make(self, materials: Materials) -> Drafter: ...
