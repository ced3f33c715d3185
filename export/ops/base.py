"""The operation set families are written over.

``Ops`` is primitives (what a backend must give) and composites (the field's blocks: attention,
feed-forward, norms, written once over the primitives). Composites are the torch truth and the
``plain`` lowering at the same time; a faster lowering overrides composites and nothing else.
"""

from __future__ import annotations

from typing import Literal

from .attention import AttentionOps
from .primitives import V
from .specs import HIDDEN, FeedForward, Norm


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
        packed, sizes = self.linear_packed(x, (spec.gate, spec.up), (spec.gate_bias, spec.up_bias))
        gate, up = self.split(packed, sizes)
        return self.linear(
            self.mul(self.activate(spec.activation, gate), up), spec.down, spec.down_bias
        )

    def head(self, x: V, table: str, bias: str | None = None, softcap: float = 0.0) -> None:
        """The rows ``logit_rows`` asks for, times the output table -> ``logits [B, m, V]``."""
        self.output("logits", self.capped(self.by_table(x, table, bias), softcap))

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
