"""T5, FLAN-T5, mT5 and ByT5: relative bias by position, RMS norms, no attention scale.

Computation: arXiv 1910.10683 and transformers' ``models/t5/modeling_t5.py``. Parameter names are
transformers'. The bias is a table over clamped distances, so siblings of a draft tree (which share
a position) get the same bias wherever their rows stand.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from edgegen.manifest import GenerationDefaults

from ..checkpoint import Array, Checkpoint, Weight
from ..ops.base import Ops, V
from ..ops.specs import (
    Activation,
    CrossAttention,
    FeedForward,
    Norm,
    RelativeBias,
    SelfAttention,
)
from .base import Family, Shape
from .decoding import decoding_defaults
from .naming import Naming, activation_of, output_table


class T5(Family):
    """Encoder and decoder stacks of one width; depths may differ."""

    model_types = ("t5", "mt5")
    task = "text2text-generation"

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        config = self.config
        self.encoder_layers = int(config["num_layers"])
        self.decoder_layers = int(config.get("num_decoder_layers") or self.encoder_layers)
        self.heads, self.head_dim = int(config["num_heads"]), int(config["d_kv"])
        self.eps = float(config.get("layer_norm_epsilon", 1e-6))
        self.naming = Naming(known=checkpoint.weights, q="q", k="k", v="v", o="o")
        projection = str(config.get("feed_forward_proj", "relu"))
        self.gated = projection.startswith("gated-")
        name = projection.removeprefix("gated-")
        named = "gelu_new" if projection == "gated-gelu" else name
        self.activation: Activation = activation_of(named)
        self.scaled = self.is_scaled()
        self.table = output_table(checkpoint.weights, "lm_head.weight", "shared.weight")
        self.buckets = int(config.get("relative_attention_num_buckets", 32))
        self.reach = int(config.get("relative_attention_max_distance", 128))

    @property
    def shape(self) -> Shape:
        return Shape(
            vocabulary=int(self.config["vocab_size"]),
            width=int(self.config["d_model"]),
            layers=self.decoder_layers,
            cache_heads=self.heads,
            head_dim=self.head_dim,
            cross_layers=self.decoder_layers,
            cross_heads=self.heads,
            encoder=True,
        )

    def is_scaled(self) -> bool:
        """Whether logits are divided by the width's root: the first T5, not 1.1, FLAN or mT5.

        Older configurations say it by ``tie_word_embeddings``, transformers 5 by a key of its own
        (``models/t5/configuration_t5.py``).
        """
        if self.checkpoint.model_type == "mt5":
            return False
        older = self.config.get("tie_word_embeddings", True) is not False
        return bool(self.config.get("scale_decoder_outputs", older))

    def weights(self) -> dict[str, Weight]:
        found = dict(self.checkpoint.weights)
        width = self.shape.width
        for side, causal in (("encoder", False), ("decoder", True)):
            name = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
            table = found[name]
            found[f"{side}.bias_by_distance"] = Weight(
                (2 * self.reach + 1, self.heads),
                partial(self.bias_by_distance, table, causal),
            )
        if self.scaled:
            # The head's factor d^-0.5 moves into the final norm, so the table is stored once.
            final = found["decoder.final_layer_norm.weight"]
            found["decoder.final_layer_norm.scaled"] = Weight(
                final.shape, lambda: final.read() * np.float32(width**-0.5)
            )
        return found

    def bias_by_distance(self, buckets_table: Weight, causal: bool) -> Array:
        """``[buckets, heads]`` -> ``[2 reach + 1, heads]`` for distances -reach .. reach.

        Buckets follow transformers' ``_relative_position_bucket``: half of them exact, the others
        logarithmic up to ``reach``; distances beyond share the last one.
        """
        distance = np.arange(-self.reach, self.reach + 1)
        buckets, offset = self.buckets, np.zeros_like(distance)
        if causal:
            away = np.maximum(-distance, 0)
        else:
            buckets //= 2
            offset, away = (distance > 0) * buckets, np.abs(distance)
        exact = buckets // 2
        ratio = np.log(np.maximum(away, 1).astype(np.float32) / exact, dtype=np.float32)
        ratio = ratio / np.float32(np.log(self.reach / exact)) * (buckets - exact)
        large = np.minimum(exact + ratio.astype(np.int64), buckets - 1)
        return buckets_table.read()[offset + np.where(away < exact, away, large)]

    def self_attention(self, side: str, i: int) -> SelfAttention:
        at = f"{side}.block.{i}.layer.0.SelfAttention"
        return self.naming.self_attention(at, heads=self.heads, head_dim=self.head_dim, scale=1.0)

    def cross_attention(self, i: int) -> CrossAttention:
        at = f"decoder.block.{i}.layer.1.EncDecAttention"
        return self.naming.cross_attention(at, heads=self.heads, head_dim=self.head_dim, scale=1.0)

    def feed_forward(self, side: str, i: int) -> FeedForward:
        return self.naming.feed_forward(
            f"{side}.block.{i}.layer.{1 if side == 'encoder' else 2}.DenseReluDense",
            up="wi_1" if self.gated else "wi",
            gate="wi_0" if self.gated else None,
            down="wo",
            activation=self.activation,
        )

    def norm(self, side: str, i: int, sublayer: int) -> Norm:
        return Norm(weight=f"{side}.block.{i}.layer.{sublayer}.layer_norm.weight", eps=self.eps)

    def encode(self, ops: Ops[V]) -> None:
        x = ops.gather_rows("shared.weight", ops.input("input_ids"))
        rows = ops.arange(ops.input("input_ids"), 1)
        distances = ops.binary("sub", ops.reshape(rows, (1, 1, -1)), ops.reshape(rows, (1, -1, 1)))
        bias = ops.relative_bias(
            RelativeBias(table="encoder.bias_by_distance", reach=self.reach), distances
        )
        mask = ops.add(bias, ops.source_mask())
        inner = ops.norm(x, self.norm("encoder", 0, 0))
        for i in range(self.encoder_layers):
            attended = ops.encode_attend(inner, self.self_attention("encoder", i), mask)
            x, inner = ops.norm_add(x, attended, self.norm("encoder", i, 1))
            after = (
                self.norm("encoder", i + 1, 0)
                if i + 1 < self.encoder_layers
                else Norm(weight="encoder.final_layer_norm.weight", eps=self.eps)
            )
            x, inner = ops.norm_add(x, ops.ffn(inner, self.feed_forward("encoder", i)), after)
        for i in range(self.decoder_layers):
            ops.remember(inner, i, self.cross_attention(i))

    def decode(self, ops: Ops[V]) -> None:
        x = ops.gather_rows("shared.weight", ops.input("tokens"))
        bias = ops.relative_bias(
            RelativeBias(table="decoder.bias_by_distance", reach=self.reach), ops.distances()
        )
        inner = ops.norm(x, self.norm("decoder", 0, 0))
        for i in range(self.decoder_layers):
            attended = ops.self_attend(inner, i, self.self_attention("decoder", i), bias)
            x, inner = ops.norm_add(x, attended, self.norm("decoder", i, 1))
            crossed = ops.cross_attend(inner, i, self.cross_attention(i))
            x, inner = ops.norm_add(x, crossed, self.norm("decoder", i, 2))
            fed = ops.ffn(inner, self.feed_forward("decoder", i))
            last = i + 1 == self.decoder_layers
            if last:
                x, fed = ops.chosen_rows(x), ops.chosen_rows(fed)
            name = f"decoder.final_layer_norm.{'scaled' if self.scaled else 'weight'}"
            after = Norm(weight=name, eps=self.eps) if last else self.norm("decoder", i + 1, 0)
            x, inner = ops.norm_add(x, fed, after)
        ops.head(inner, self.table)

    def generation(self) -> GenerationDefaults:
        return decoding_defaults(self.checkpoint, start=0, end=1)
