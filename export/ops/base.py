"""The operation set families are written over.

``Ops`` is primitives (what a backend must give) and composites (the field's blocks: attention,
feed-forward, norms, written once over the primitives). Composites are the torch truth and the
``plain`` lowering at the same time; a faster lowering overrides composites and nothing else.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgegen.graph import HIDDEN
from edgegen.shortlist import BIAS, ROWS, WORDS

from .attention import AttentionOps
from .primitives import V
from .specs import FeedForward, Norm


class Ops(AttentionOps[V]):
    """One backend's body for a graph: its results by port name are in ``results``."""

    def norm_add(self, x: V, delta: V, spec: Norm) -> tuple[V, V]:
        """``(x + delta, norm(x + delta))``: the step between two sublayers."""
        total = self.add(x, delta)
        return total, self.norm(total, spec)

    def ffn(self, x: V, spec: FeedForward) -> V:
        if spec.gate is None:
            inner = self.activate(spec.activation, self.linear(x, spec.up, spec.up_bias))
            return self.linear(inner, spec.down, spec.down_bias)
        gate, up = self.projections(x, (spec.gate, spec.up), (spec.gate_bias, spec.up_bias))
        return self.linear(
            self.mul(self.activate(spec.activation, gate), up), spec.down, spec.down_bias
        )

    def head(self, x: V, table: str, bias: str | None = None, softcap: float = 0.0) -> None:
        """The rows ``logit_rows`` asks for, times the output table -> ``logits [B, m, V]``."""
        self.output("logits", self.capped(self.by_table(x, table, bias), softcap))

    def propose(
        self, ids: V, likely: NDArray[np.int32], frequent: int, table: str, bias: str
    ) -> None:
        """A source's shortlist (marian-dev, src/data/shortlist.h): ``words [B, K]``, the
        ``frequent`` first of the vocabulary and the ``likely [vocabulary, most]`` of each source
        word, with their rows of the output table and biases. A word may come more than once."""
        narrow = "int16" if len(likely) <= 2**15 else "int32"
        found = self.gather(self.constant(likely, narrow), ids, 0)
        found = self.cast(self.reshape(found, (0, -1)), "int64")
        none = self.mul(self.gather(ids, self.constant([0], "int64"), 1), self.constant(0, "int64"))
        first = self.add(none, self.constant([range(frequent)], "int64"))
        words = self.concat([first, found], 1)
        self.output(WORDS, words)
        self.output(ROWS, self.gather_rows(table, words))
        self.output(BIAS, self.unsqueeze(self.gather(self.parameter(bias), words, 0), 1))

    def head_of_words(self, x: V) -> None:
        """``logits [B, m, K]`` of the source's words. Rows of ``x`` are multiplied one by one, so
        each has the bits it has alone."""
        found = self.matmul(self.unsqueeze(self.input(ROWS), 1), self.unsqueeze(x, 3))
        self.output("logits", self.add(self.reshape(found, (0, 0, -1)), self.input(BIAS)))

    def by_table(self, x: V, table: str, bias: str | None) -> V:
        """``linear`` with a table that may be the embedding too, and is then stored once."""
        return self.linear(x, table, bias)

    def pool(self, x: V, how: Literal["cls", "mean", "max"]) -> V:
        """A source ``[B, S, width]`` -> ``[B, width]``: its first row, or what is seen of it as a
        mean or a maximum."""
        if how == "cls":
            return self.reshape(self.gather(x, self.constant([0], "int64"), 1), (0, -1))
        mask = self.input("source_mask")
        if how == "max":
            seen = self.maximum(self.add(x, self.unsqueeze(mask, 2)), [1])
            return self.reshape(seen, (0, -1))
        shown = self.cast(self.binary("greater", mask, self.constant(HIDDEN / 2)), "float32")
        share = self.binary("div", shown, self.mean(shown, 1))
        return self.reshape(self.mean(self.mul(x, self.unsqueeze(share, 2)), 1), (0, -1))

    def unit(self, x: V) -> V:
        """Rows ``[B, width]`` scaled to length 1."""
        square = self.matmul(self.unsqueeze(x, 1), self.unsqueeze(x, 2))
        length = self.unary("sqrt", self.reshape(square, (0, 1)))
        return self.binary("div", x, self.binary("max", length, self.constant(1e-12)))

    def chosen_rows(self, x: V) -> V:
        """``[B, n, width]`` -> ``[B, m, width]`` by ``logit_rows``."""
        return self.gather(x, self.input("logit_rows"), 1)


__all__ = ["Ops", "V"]
