"""A stack of Gemma's layers as encoder-decoders hold two of: norms on both sides of each sublayer.

The decoder-only models of these layers are lines of ``causal.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ..checkpoint import Array, Weight
from ..ops.base import Ops, V
from ..ops.specs import Activation, CrossAttention, FeedForward, Norm, Rope, SelfAttention
from .naming import Naming, activation_of
from .rotary import rope_of

LOCAL, GLOBAL = "sliding_attention", "full_attention"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What transformers' configuration classes assume where older files say nothing: every
    ``pattern``-th layer is global, and by kind of layer the key of its rotary base, and the base.
    """

    pattern: int
    bases: Mapping[str, tuple[str, float]]


GEMMA2 = Rules(pattern=2, bases={LOCAL: ("rope_theta", 1e4), GLOBAL: ("rope_theta", 1e4)})
GEMMA3 = Rules(pattern=6, bases={LOCAL: ("rope_local_base_freq", 1e4), GLOBAL: ("rope_theta", 1e6)})


class GemmaStack:
    """One side's sizes and parameter names; ``at`` is the prefix of its parameters.

    Heads have norms where the checkpoint has them.
    """

    def __init__(
        self, config: Mapping[str, Any], known: Container[str], at: str, rules: Rules
    ) -> None:
        self.config, self.at, self.rules = config, at, rules
        self.width = int(config["hidden_size"])
        self.layers = int(config["num_hidden_layers"])
        self.heads = int(config["num_attention_heads"])
        self.kv_heads = int(config["num_key_value_heads"])
        self.head_dim = int(config["head_dim"])
        self.eps = float(config.get("rms_norm_eps", 1e-6))
        self.window = int(config.get("sliding_window") or 0)
        self.scale = float(config["query_pre_attn_scalar"]) ** -0.5
        name = str(config.get("hidden_activation", "gelu_pytorch_tanh"))
        self.activation: Activation = activation_of(name)
        self.naming = Naming(known=known, o="o_proj")

    def is_local(self, i: int) -> bool:
        kinds = self.config.get("layer_types")
        listed = kinds[i] == LOCAL if kinds else (i + 1) % self.rules.pattern > 0
        return bool(self.window and listed)

    def norm(self, name: str) -> Norm:
        return self.naming.rms_norm(self.at, name, self.eps)

    def self_attention(self, i: int) -> SelfAttention:
        at = f"{self.at}.layers.{i}.self_attn"
        norms = [self.naming.rms_norm(at, part, self.eps) for part in ("q_norm", "k_norm")]
        q_norm, k_norm = (norm if norm.weight in self.naming.known else None for norm in norms)
        return replace(
            self.naming.self_attention(
                at,
                heads=self.heads,
                kv_heads=self.kv_heads,
                head_dim=self.head_dim,
                scale=self.scale,
            ),
            rope=self.rope(LOCAL if self.is_local(i) else GLOBAL),
            q_norm=q_norm,
            k_norm=k_norm,
            window=self.window if self.is_local(i) else 0,
        )

    def rope(self, kind: str) -> Rope:
        # Older files have one stretch: of all layers, or where local ones have a base of their own
        # of the others alone.
        bases = self.rules.bases
        apart = kind == LOCAL and bases[LOCAL][0] != bases[GLOBAL][0]
        older: Any = {} if apart else self.config.get("rope_scaling")
        said: Any = self.config.get("rope_parameters") or older or {}
        said = said.get(kind, said)
        key, base = self.rules.bases[kind]
        theta = said.get("rope_theta") or self.config.get(key) or base
        return rope_of(said, float(theta), self.head_dim)

    def cross_attention(self, i: int) -> CrossAttention:
        return self.naming.cross_attention(
            f"{self.at}.layers.{i}.cross_attn",
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            scale=self.scale,
        )

    def feed_forward(self, i: int) -> FeedForward:
        return self.naming.feed_forward(
            f"{self.at}.layers.{i}.mlp",
            up="up_proj",
            gate="gate_proj",
            down="down_proj",
            activation=self.activation,
        )

    def embedded(self, ops: Ops[V], ids: V, table: str) -> V:
        return ops.scale(ops.gather_rows(table, ids), self.width**0.5)

    def run(
        self,
        ops: Ops[V],
        x: V,
        sublayers: Callable[[int], Sequence[tuple[str, Callable[[V], V]]]],
        *,
        chosen: bool = False,
    ) -> V:
        """``x += post_norm(f(pre_norm(x)))`` for each of a layer's named sublayers but the last,
        the feed-forward, which comes with every layer; the final norm's output.

        With ``chosen`` only the rows that get logits pass the last feed-forward.
        """
        steps: list[tuple[str, Callable[[V], V]]] = []
        for i in range(self.layers):
            feed_forward: Callable[[V], V] = partial(ops.ffn, spec=self.feed_forward(i))
            named = [*sublayers(i), ("feedforward", feed_forward)]
            steps += [(f"layers.{i}.{{}}_{name}_layernorm", one) for name, one in named]
        pres = [self.norm(name.format("pre")) for name, _ in steps]
        inner = ops.norm(x, pres[0])
        for (name, sublayer), following in zip(steps, [*pres[1:], self.norm("norm")], strict=True):
            out = ops.norm(sublayer(inner), self.norm(name.format("post")))
            if chosen and following is pres[-1]:
                x, out = ops.chosen_rows(x), ops.chosen_rows(out)
            x, inner = ops.norm_add(x, out, following)
        return inner


def unit_norms(weights: Mapping[str, Weight]) -> dict[str, Weight]:
    """Norm weights as they multiply: Gemma stores them less one."""
    return {
        name: Weight(weight.shape, partial(_plus_one, weight))
        if name.endswith("norm.weight")
        else weight
        for name, weight in weights.items()
    }


def _plus_one(weight: Weight) -> Array:
    return weight.read() + np.float32(1)
