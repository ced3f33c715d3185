"""BERT as a decoder with cross-attention, in front of an encoder of another kind.

Computation and names: transformers' ``models/bert`` (arXiv 1810.04805) with ``is_decoder``. The
last rows go through one more layer before they meet the words' table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edgegen.manifest import GenerationDefaults

from ..checkpoint import Array, Checkpoint, Weight
from ..ops.base import Ops, V
from ..ops.specs import Activation, CrossAttention, FeedForward, Norm, SelfAttention
from .base import Family, Shape
from .decoding import decoding_defaults
from .naming import Naming, activation_of, output_table

WORDS = "bert.embeddings.word_embeddings.weight"
HEAD = "cls.predictions"
OUTPUT, BIAS = f"{HEAD}.decoder.weight", f"{HEAD}.bias"


class BertDecoder(Family):
    """A norm after each sublayer, learned positions; every word is of the first segment."""

    model_types = ("bert",)
    task = "text-generation"

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(replace(checkpoint, weights=read_names(checkpoint.weights)))
        self.width = int(self.config["hidden_size"])
        self.heads = int(self.config["num_attention_heads"])
        self.layers = int(self.config["num_hidden_layers"])
        self.activation: Activation = activation_of(str(self.config.get("hidden_act", "gelu")))
        self.naming = Naming(
            known=self.checkpoint.weights,
            q="self.query", k="self.key", v="self.value", o="output.dense",
        )  # fmt: skip
        self.output_table = output_table(self.checkpoint.weights, OUTPUT, WORDS)

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
        places = self.checkpoint.weights["bert.embeddings.position_embeddings.weight"]
        return {**self.checkpoint.weights, "bert.places": Weight(places.shape, self.places)}

    def places(self) -> Array:
        """``[positions, width]``: positions and the first segment."""
        held, at = self.checkpoint.weights, "bert.embeddings"
        segment = held[f"{at}.token_type_embeddings.weight"].read()[:1]
        return np.asarray(held[f"{at}.position_embeddings.weight"].read() + segment, np.float32)

    def norm(self, at: str) -> Norm:
        eps = float(self.config.get("layer_norm_eps", 1e-12))
        name = f"{at}.LayerNorm"
        return Norm(weight=f"{name}.weight", bias=f"{name}.bias", eps=eps, kind="layer")

    def self_attention(self, i: int) -> SelfAttention:
        at, head_dim = f"bert.encoder.layer.{i}.attention", self.width // self.heads
        return self.naming.self_attention(at, heads=self.heads, head_dim=head_dim)

    def cross_attention(self, i: int) -> CrossAttention:
        at, head_dim = f"bert.encoder.layer.{i}.crossattention", self.width // self.heads
        return self.naming.cross_attention(at, heads=self.heads, head_dim=head_dim)

    def feed_forward(self, i: int) -> FeedForward:
        at = f"bert.encoder.layer.{i}"
        return self.naming.feed_forward(
            at, up="intermediate.dense", down="output.dense", activation=self.activation
        )

    def decode(self, ops: Ops[V]) -> None:
        words = ops.gather_rows(WORDS, ops.input("tokens"))
        places = ops.gather(ops.parameter("bert.places"), ops.input("positions"), 0)
        x = ops.norm_add(words, places, self.norm("bert.embeddings"))[1]
        for i in range(self.layers):
            at = f"bert.encoder.layer.{i}"
            attended = ops.self_attend(x, i, self.self_attention(i))
            x = ops.norm_add(x, attended, self.norm(f"{at}.attention.output"))[1]
            crossed = ops.cross_attend(x, i, self.cross_attention(i), masked=False)
            if i + 1 == self.layers:
                x, crossed = ops.chosen_rows(x), ops.chosen_rows(crossed)
            x = ops.norm_add(x, crossed, self.norm(f"{at}.crossattention.output"))[1]
            fed = ops.ffn(x, self.feed_forward(i))
            x = ops.norm_add(x, fed, self.norm(f"{at}.output"))[1]
        last = f"{HEAD}.transform"
        x = ops.linear(x, f"{last}.dense.weight", f"{last}.dense.bias")
        x = ops.norm(ops.activate(self.activation, x), self.norm(last))
        ops.head(x, self.output_table, BIAS)

    def generation(self) -> GenerationDefaults:
        positions = int(self.config["max_position_embeddings"])
        return decoding_defaults(self.checkpoint, positions=positions, max_source=0)


def read_names(weights: Mapping[str, Weight]) -> dict[str, Weight]:
    """Without the copy of the head's bias and the numbers of positions that old files hold."""
    skipped = (f"{HEAD}.decoder.bias", "bert.embeddings.position_ids")
    return {name: weight for name, weight in weights.items() if name not in skipped}
