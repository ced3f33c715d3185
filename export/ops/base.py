"""The operation set families are written over.

``Ops`` is primitives (what a backend must give) and composites (the field's blocks: attention,
feed-forward, norms, written once over the primitives). Composites are the torch truth and the
``plain`` lowering at the same time; a faster lowering overrides composites and nothing else.
"""

from __future__ import annotations

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
        packed, sizes = self.linear_packed(x, (spec.gate, spec.up), (None, spec.up_bias))
        gate, up = self.split(packed, sizes)
        return self.linear(
            self.mul(self.activate(spec.activation, gate), up), spec.down, spec.down_bias
        )

    def head(self, x: V, table: str, bias: str | None = None) -> None:
        """The rows ``logit_rows`` asks for, times the output table -> ``logits [B, m, V]``."""
        self.output("logits", self.linear(x, table, bias))

    def chosen_rows(self, x: V) -> V:
        """``[B, n, width]`` -> ``[B, m, width]`` by ``logit_rows``."""
        return self.gather(x, self.input("logit_rows"), 1)


__all__ = ["Ops", "V"]
