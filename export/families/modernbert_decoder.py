"""ModernBERT's decoder, as Ettin has it: the encoder's layers, looking back only.

Computation: arXiv 2507.11412 and transformers' ``models/modernbert_decoder``. A local layer sees
``local_attention // 2`` positions, its own included: one fewer than the encoder's layers see on
their left.
"""

from __future__ import annotations

from dataclasses import replace

from edgegen.manifest import GenerationDefaults

from ..checkpoint import Checkpoint, Weight
from ..ops.base import Ops, V
from ..ops.specs import SelfAttention
from .base import Family, Shape
from .decoding import prompted_defaults
from .modernbert import Layers
from .naming import output_table


class ModernBertDecoder(Family):
    """``decode`` alone; local layers keep the rows their window can see."""

    model_types = ("modernbert-decoder",)
    task = "text-generation"
    batched = False

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.split_weights = Layers(self.config, (), "model.").unpacked(checkpoint.weights)
        self.layers = Layers(self.config, self.split_weights, "model.")
        table = self.layers.table
        self.output_table = output_table(checkpoint.weights, "decoder.weight", table)

    @property
    def shape(self) -> Shape:
        layers = self.layers
        local = tuple(i for i in range(layers.count) if layers.is_local(i))
        return Shape(
            vocabulary=int(self.config["vocab_size"]),
            width=layers.width,
            layers=layers.count,
            cache_heads=layers.heads,
            head_dim=layers.head_dim,
            window=layers.reach,
            window_layers=local if layers.reach else (),
        )

    def weights(self) -> dict[str, Weight]:
        return self.split_weights

    def attention(self, i: int) -> SelfAttention:
        window = self.layers.reach if self.layers.is_local(i) else 0
        return replace(self.layers.attention(i), window=window)

    def decode(self, ops: Ops[V]) -> None:
        layers = self.layers
        x = inner = layers.embedded(ops, ops.input("tokens"))
        for i in range(layers.count):
            last = i + 1 == layers.count
            attended = ops.self_attend(inner, i, self.attention(i))
            if last:
                x, attended = ops.chosen_rows(x), ops.chosen_rows(attended)
            x, inner = ops.norm_add(x, attended, layers.norm(f"layers.{i}.mlp_norm"))
            after = "final_norm" if last else f"layers.{i + 1}.attn_norm"
            x, inner = ops.norm_add(x, ops.ffn(inner, layers.feed_forward(i)), layers.norm(after))
        bias = "decoder.bias" if "decoder.bias" in self.split_weights else None
        ops.head(layers.head(ops, inner, "lm_head"), self.output_table, bias)

    def generation(self) -> GenerationDefaults:
        positions = int(self.config.get("max_position_embeddings") or 0)
        return prompted_defaults(self.checkpoint, positions=positions, end=1)
