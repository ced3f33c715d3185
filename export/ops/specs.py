"""What a family says about its layers: parameter names and numbers, nothing of any backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Activation = Literal["relu", "gelu", "gelu_tanh", "silu"]


@dataclass(frozen=True, kw_only=True)
class Norm:
    """``rms``: x / sqrt(mean(x^2) + eps) * weight (arXiv 1910.07467); ``layer``: 1607.06450."""

    weight: str
    bias: str | None = None
    eps: float = 1e-6
    kind: Literal["rms", "layer"] = "rms"


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotary positions (arXiv 2104.09864) on the first ``dims`` of a head, 0 being all of them.

    A pair that turns together is a number and the one half of ``dims`` later, or with
    ``interleaved`` its neighbour (GPT-J).
    """

    theta: float
    inverse_scale: tuple[float, ...] = ()  # per-frequency factors, e.g. Llama 3's; empty is 1
    dims: int = 0
    interleaved: bool = False

    def width(self, head_dim: int) -> int:
        """Numbers of a head that are turned."""
        return self.dims or head_dim


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Projections ``[heads * head_dim, width]``, their biases where there are any, and numbers.

    Norms are those of each head's query and key. ``softcap`` c > 0 makes a score s
    ``c tanh(s / c)``, before masks (Gemma 2, arXiv 2408.00118).
    """

    q: str
    k: str
    v: str
    o: str
    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    q_bias: str | None = None
    k_bias: str | None = None
    v_bias: str | None = None
    o_bias: str | None = None
    rope: Rope | None = None
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    softcap: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SelfAttention(Attention):
    """``window`` keeps the last ``window`` positions, the query's own included; 0 keeps all.

    With ``merged`` the layer's memory stands before the text's own rows, outside any window, and
    one softmax goes over both (T5Gemma 2, arXiv 2512.14856).
    """

    window: int = 0
    merged: bool = False

    @property
    def projections(self) -> tuple[str, str, str]:
        return self.q, self.k, self.v

    @property
    def biases(self) -> tuple[str | None, str | None, str | None]:
        return self.q_bias, self.k_bias, self.v_bias


@dataclass(frozen=True, kw_only=True)
class CrossAttention(Attention):
    """``k`` and ``v`` are applied in the encode graph, ``q`` and ``o`` in the decode graph.

    With ``rope`` queries turn by their position in the text and keys by theirs in the source.
    """


@dataclass(frozen=True, kw_only=True)
class FeedForward:
    """``down(act(up(x)))``, or ``down(act(gate(x)) * up(x))`` when ``gate`` is named."""

    up: str
    down: str
    activation: Activation
    gate: str | None = None
    up_bias: str | None = None
    down_bias: str | None = None
    gate_bias: str | None = None


@dataclass(frozen=True, kw_only=True)
class RelativeBias:
    """T5's bias by clamped distance (arXiv 1910.10683). ``table`` names ``[distances, heads]`` over
    distances ``-reach .. reach`` of key position minus query position."""

    table: str
    reach: int
