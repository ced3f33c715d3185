"""How checkpoints name the parts of a layer; what a file does not hold is not there."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

from edgegen.errors import CheckpointError
from edgegen.registry import unknown

from ..checkpoint import Weight
from ..ops.specs import Activation, CrossAttention, FeedForward, Norm, SelfAttention

# transformers' names (``activations.py``) of the four functions there are here.
ACTIVATIONS: Mapping[str, Activation] = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
}


def output_table(weights: Mapping[str, Weight], head: str, table: str) -> str:
    """``head`` where the file has one of other values than the embedding's ``table``, which makes
    logits otherwise: what a configuration says of tying does not count beside a file that has both
    (transformers 5, ``PreTrainedModel.tie_weights``)."""
    own = head in weights and not weights[head].equals(weights[table])
    return head if own else table


def activation_of(name: str) -> Activation:
    """Raises ``CheckpointError`` for a function the operations do not have."""
    if name not in ACTIVATIONS:
        raise CheckpointError(unknown("activation", name, list(ACTIVATIONS)))
    return ACTIVATIONS[name]


@dataclass(frozen=True, kw_only=True)
class Naming:
    """Patterns of one checkpoint's parameter names, and ``known``: the names it holds.

    A pattern's ``{at}`` is the layer's prefix and ``{part}`` the projection. A bias is used where
    the checkpoint has one, so a family need not know which of them are left out.
    """

    known: Container[str]
    q: str = "q_proj"
    k: str = "k_proj"
    v: str = "v_proj"
    o: str = "out_proj"
    weight: str = "{at}.{part}.weight"
    bias: str = "{at}.{part}.bias"

    def weight_of(self, at: str, part: str) -> str:
        return self.weight.format(at=at, part=part)

    def bias_of(self, at: str, part: str) -> str | None:
        name = self.bias.format(at=at, part=part)
        return name if name in self.known else None

    def self_attention(
        self,
        at: str,
        *,
        heads: int,
        head_dim: int,
        kv_heads: int | None = None,
        scale: float | None = None,
    ) -> SelfAttention:
        """``scale`` is the root of ``head_dim``, inverted, unless said; rotations, norms and
        windows are added with ``dataclasses.replace``."""
        return SelfAttention(
            q=self.weight_of(at, self.q),
            k=self.weight_of(at, self.k),
            v=self.weight_of(at, self.v),
            o=self.weight_of(at, self.o),
            q_bias=self.bias_of(at, self.q),
            k_bias=self.bias_of(at, self.k),
            v_bias=self.bias_of(at, self.v),
            o_bias=self.bias_of(at, self.o),
            heads=heads,
            kv_heads=heads if kv_heads is None else kv_heads,
            head_dim=head_dim,
            scale=head_dim**-0.5 if scale is None else scale,
        )

    def cross_attention(
        self,
        at: str,
        *,
        heads: int,
        head_dim: int,
        kv_heads: int | None = None,
        scale: float | None = None,
    ) -> CrossAttention:
        return CrossAttention(
            q=self.weight_of(at, self.q),
            k=self.weight_of(at, self.k),
            v=self.weight_of(at, self.v),
            o=self.weight_of(at, self.o),
            q_bias=self.bias_of(at, self.q),
            k_bias=self.bias_of(at, self.k),
            v_bias=self.bias_of(at, self.v),
            o_bias=self.bias_of(at, self.o),
            heads=heads,
            kv_heads=heads if kv_heads is None else kv_heads,
            head_dim=head_dim,
            scale=head_dim**-0.5 if scale is None else scale,
        )

    def feed_forward(
        self, at: str, *, up: str, down: str, activation: Activation, gate: str | None = None
    ) -> FeedForward:
        return FeedForward(
            up=self.weight_of(at, up),
            down=self.weight_of(at, down),
            gate=None if gate is None else self.weight_of(at, gate),
            up_bias=self.bias_of(at, up),
            down_bias=self.bias_of(at, down),
            gate_bias=None if gate is None else self.bias_of(at, gate),
            activation=activation,
        )

    def layer_norm(self, at: str, part: str, eps: float) -> Norm:
        return Norm(
            weight=self.weight_of(at, part), bias=self.bias_of(at, part), eps=eps, kind="layer"
        )

    def rms_norm(self, at: str, part: str, eps: float) -> Norm:
        return Norm(weight=self.weight_of(at, part), eps=eps)
