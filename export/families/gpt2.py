"""GPT-2: alone or with cross-attention to an encoder's rows (transformers' ``models/gpt2``).

Its matrices are stored ``[in, out]`` and in one piece for query, key and value; they are cut and
turned when read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from msgspec.structs import replace as replace_fields

from edgegen.manifest import GenerationDefaults

from ..checkpoint import Array, Checkpoint, Weight
from ..ops.base import Ops, V
from ..ops.specs import Activation, CrossAttention, FeedForward, Norm, SelfAttention
from .base import Family, Shape
from .decoding import prompted_defaults
from .naming import Naming, activation_of, output_table

ROOT = "transformer"
# A stored matrix and the matrices its columns hold.
PARTS = {
    "attn.c_attn": ("attn.q", "attn.k", "attn.v"),
    "attn.c_proj": ("attn.o",),
    "crossattention.q_attn": ("crossattention.q",),
    "crossattention.c_attn": ("crossattention.k", "crossattention.v"),
    "crossattention.c_proj": ("crossattention.o",),
    "mlp.c_fc": ("mlp.up",),
    "mlp.c_proj": ("mlp.down",),
}


class Gpt2(Family):
    """A norm before each sublayer, learned positions, one table for words in and out."""

    model_types = ("gpt2",)
    task = "text-generation"

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(replace(checkpoint, weights=dict(whole_names(checkpoint))))
        config = self.config
        self.width, self.heads = int(config["n_embd"]), int(config["n_head"])
        self.layers = int(config["n_layer"])
        self.eps = float(config.get("layer_norm_epsilon", 1e-5))
        self.crosses = bool(config.get("add_cross_attention"))
        self.activation: Activation = activation_of(
            str(config.get("activation_function", "gelu_new"))
        )
        self.turned = dict(self.matrices())
        self.naming = Naming(known=self.turned, q="q", k="k", v="v", o="o")
        self.table = f"{ROOT}.wte.weight"
        self.output_table = output_table(self.checkpoint.weights, "lm_head.weight", self.table)

    def matrices(self) -> Iterator[tuple[str, Weight]]:
        """``[out, in]`` matrices and their biases by this family's names."""
        for i in range(self.layers):
            at = f"{ROOT}.h.{i}"
            for stored, parts in PARTS.items():
                if f"{at}.{stored}.weight" not in self.checkpoint.weights:
                    continue
                for kind in ("weight", "bias"):
                    whole = self.checkpoint.weights[f"{at}.{stored}.{kind}"]
                    size = whole.shape[-1] // len(parts)
                    for j, part in enumerate(parts):
                        yield (
                            f"{at}.{part}.{kind}",
                            Weight(
                                (size, *whole.shape[:-1]),
                                partial(_columns, whole, j * size, size),
                                origin=whole.origin,
                            ),
                        )

    @property
    def shape(self) -> Shape:
        return Shape(
            vocabulary=self.checkpoint.weights[self.output_table].shape[0],
            width=self.width,
            layers=self.layers,
            cache_heads=self.heads,
            head_dim=self.width // self.heads,
        )

    def weights(self) -> dict[str, Weight]:
        return {**self.checkpoint.weights, **self.turned}

    def scale(self, i: int) -> float:
        scaled = self.config.get("scale_attn_weights", True)
        found = (self.width // self.heads) ** -0.5 if scaled else 1.0
        return found / (i + 1) if self.config.get("scale_attn_by_inverse_layer_idx") else found

    def norm(self, name: str) -> Norm:
        at = f"{ROOT}.{name}"
        return Norm(weight=f"{at}.weight", bias=f"{at}.bias", eps=self.eps, kind="layer")

    def self_attention(self, i: int) -> SelfAttention:
        at, head_dim = f"{ROOT}.h.{i}.attn", self.width // self.heads
        return self.naming.self_attention(
            at, heads=self.heads, head_dim=head_dim, scale=self.scale(i)
        )

    def cross_attention(self, i: int) -> CrossAttention:
        at, head_dim = f"{ROOT}.h.{i}.crossattention", self.width // self.heads
        return self.naming.cross_attention(
            at, heads=self.heads, head_dim=head_dim, scale=self.scale(i)
        )

    def feed_forward(self, i: int) -> FeedForward:
        at = f"{ROOT}.h.{i}.mlp"
        return self.naming.feed_forward(at, up="up", down="down", activation=self.activation)

    def decode(self, ops: Ops[V]) -> None:
        places = ops.gather(ops.parameter(f"{ROOT}.wpe.weight"), ops.input("positions"), 0)
        x, inner = ops.norm_add(
            ops.gather_rows(self.table, ops.input("tokens")), places, self.norm("h.0.ln_1")
        )
        for i in range(self.layers):
            at, last = f"h.{i}", i + 1 == self.layers
            delta = ops.self_attend(inner, i, self.self_attention(i))
            if self.crosses:
                x, inner = ops.norm_add(x, delta, self.norm(f"{at}.ln_cross_attn"))
                delta = ops.cross_attend(inner, i, self.cross_attention(i), masked=False)
            if last:
                x, delta = ops.chosen_rows(x), ops.chosen_rows(delta)
            x, inner = ops.norm_add(x, delta, self.norm(f"{at}.ln_2"))
            after = "ln_f" if last else f"h.{i + 1}.ln_1"
            x, inner = ops.norm_add(x, ops.ffn(inner, self.feed_forward(i)), self.norm(after))
        ops.head(inner, self.output_table)

    def generation(self) -> GenerationDefaults:
        positions = int(self.config.get("n_positions") or 1024)
        found = prompted_defaults(self.checkpoint, positions=positions, end=50256, pad=None)
        # Its end of text begins texts too.
        return replace_fields(found, start=found.start or found.end[:1])


def whole_names(checkpoint: Checkpoint) -> Iterator[tuple[str, Weight]]:
    """Names as the model with a head has them; the causal masks old files hold are left out."""
    for name, weight in checkpoint.weights.items():
        if name.endswith((".attn.bias", ".attn.masked_bias", ".crossattention.bias")):
            continue
        outside = name.partition(".")[0] in (ROOT, "lm_head")
        yield (name if outside else f"{ROOT}.{name}"), weight


def _columns(weight: Weight, first: int, count: int) -> Array:
    return np.ascontiguousarray(weight.read()[..., first : first + count].T)
