"""Moonshine: speech as it is, as long as it is; no spectrogram, no fixed window (arXiv 2410.15608).

Three convolutions turn 384 samples into a row, rotary positions turn nine tenths of every head.
Parameter names are transformers' (``models/moonshine/modeling_moonshine.py``).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from edgegen.errors import CheckpointError
from edgegen.manifest import GenerationDefaults, Speech

from ..checkpoint import Array, Checkpoint, Weight
from ..ops.base import Ops, V
from ..ops.specs import CrossAttention, FeedForward, Norm, Rope, SelfAttention
from .base import Family, Shape
from .decoding import decoding_defaults
from .naming import Naming, activation_of, output_table

SAMPLE_RATE = 16000
# It was trained on sound of 4 to 30 seconds; positions for the text of more there are none.
LONGEST_SECONDS = 30
# The authors' bound on loops: nobody says more tokens than this.
TOKENS_PER_SECOND = 6.5
EPS = 1e-5
# Where the configuration names none.
USUAL_ACTIVATIONS = {"encoder": "gelu", "decoder": "silu"}


class Moonshine(Family):
    """Two stacks of one width; depths and head counts may differ."""

    model_types = ("moonshine",)
    task = "automatic-speech-recognition"
    limits = "no timestamps; one language a checkpoint; 30 seconds at a time, cut at pauses"
    batched = False
    parity_prompts = ("speech-1.wav", "speech-2.wav")

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.width = int(self.config["hidden_size"])
        self.naming = Naming(known=checkpoint.weights, o="o_proj")
        self.table = "model.decoder.embed_tokens.weight"
        self.output_table = output_table(checkpoint.weights, "proj_out.weight", self.table)
        self.heads = {side: self.heads_of(side) for side in ("encoder", "decoder")}

    def heads_of(self, side: str) -> int:
        heads = int(self.config[f"{side}_num_attention_heads"])
        shared = int(self.config.get(f"{side}_num_key_value_heads") or heads)
        if shared != heads:
            raise CheckpointError(
                f"moonshine: {heads} {side} heads share {shared} key heads; expected one each, as "
                "in all published checkpoints."
            )
        return heads

    @property
    def shape(self) -> Shape:
        layers, heads = int(self.config["decoder_num_hidden_layers"]), self.heads["decoder"]
        return Shape(
            vocabulary=int(self.config["vocab_size"]),
            width=self.width,
            layers=layers,
            cache_heads=heads,
            head_dim=self.width // heads,
            encoder=True,
            cross_layers=layers,
            cross_heads=heads,
            source="samples",
            source_masked=False,
        )

    def weights(self) -> dict[str, Weight]:
        """The decoder's first matrix holds two: what is let through, then what decides how much."""
        found = dict(self.checkpoint.weights)
        for i in range(self.shape.layers):
            at = f"model.decoder.layers.{i}.mlp"
            for kind in ("weight", "bias"):
                both = found[f"{at}.fc1.{kind}"]
                half = both.shape[0] // 2
                for part, first in (("up", 0), ("gate", half)):
                    found[f"{at}.{part}.{kind}"] = Weight(
                        (half, *both.shape[1:]),
                        partial(_rows, both, first, half),
                        origin=both.origin,
                    )
        return found

    def rope(self, head_dim: int) -> Rope:
        said: dict[str, Any] = self.config.get("rope_parameters") or {}
        theta = said.get("rope_theta", self.config.get("rope_theta", 10000.0))
        share = said.get("partial_rotary_factor", self.config.get("partial_rotary_factor", 0.9))
        dims = int(head_dim * float(share))
        if dims % 2:
            raise CheckpointError(
                f"moonshine: rotary positions turn {dims} of {head_dim} numbers a head; expected "
                "pairs."
            )
        return Rope(theta=float(theta), dims=dims, interleaved=True)

    def norm(self, name: str) -> Norm:
        return self.naming.layer_norm("model", name, EPS)

    def self_attention(self, side: str, i: int) -> SelfAttention:
        heads = self.heads[side]
        at, head_dim = f"model.{side}.layers.{i}.self_attn", self.width // heads
        plain = self.naming.self_attention(at, heads=heads, head_dim=head_dim)
        return replace(plain, rope=self.rope(head_dim))

    def cross_attention(self, i: int) -> CrossAttention:
        at, heads = f"model.decoder.layers.{i}.encoder_attn", self.heads["decoder"]
        return self.naming.cross_attention(at, heads=heads, head_dim=self.width // heads)

    def feed_forward(self, side: str, i: int) -> FeedForward:
        name = str(self.config.get(f"{side}_hidden_act") or USUAL_ACTIVATIONS[side])
        at, activation = f"model.{side}.layers.{i}.mlp", activation_of(name)
        if side == "encoder":
            return self.naming.feed_forward(at, up="fc1", down="fc2", activation=activation)
        made = self.naming.feed_forward(at, up="up", gate="gate", down="fc2", activation=activation)
        return replace(made, up_bias=f"{at}.up.bias", gate_bias=f"{at}.gate.bias")

    def front(self, ops: Ops[V]) -> V:
        """``samples [B, T]`` -> ``[B, S, width]``."""
        at = "model.encoder"
        x = ops.unsqueeze(ops.input("samples"), 1)
        x = ops.unary("tanh", ops.conv1d(x, f"{at}.conv1.weight", None, 64, 0))
        x = self.group_norm(ops, x)
        for name, stride in (("conv2", 3), ("conv3", 2)):
            x = ops.conv1d(x, f"{at}.{name}.weight", f"{at}.{name}.bias", stride, 0)
            x = ops.activate("gelu", x)
        return ops.transpose(x, (0, 2, 1))

    def group_norm(self, ops: Ops[V], x: V) -> V:
        """One mean and variance over all channels and times of ``[B, channels, time]``."""

        def mean(values: V) -> V:
            return ops.mean(ops.mean(values, 2), 1)

        apart = ops.binary("sub", x, mean(x))
        size = ops.unary("sqrt", ops.add(mean(ops.mul(apart, apart)), ops.constant(EPS)))
        scale, offset = (
            ops.reshape(ops.parameter(f"model.encoder.groupnorm.{part}"), (1, -1, 1))
            for part in ("weight", "bias")
        )
        return ops.add(ops.mul(ops.binary("div", apart, size), scale), offset)

    def encode(self, ops: Ops[V]) -> None:
        x = self.front(ops)
        layers = int(self.config["encoder_num_hidden_layers"])
        inner = ops.norm(x, self.norm("encoder.layers.0.input_layernorm"))
        for i in range(layers):
            at, last = f"encoder.layers.{i}", i + 1 == layers
            attended = ops.encode_attend(inner, self.self_attention("encoder", i), None)
            x, inner = ops.norm_add(x, attended, self.norm(f"{at}.post_attention_layernorm"))
            after = "layer_norm" if last else f"layers.{i + 1}.input_layernorm"
            fed = ops.ffn(inner, self.feed_forward("encoder", i))
            x, inner = ops.norm_add(x, fed, self.norm(f"encoder.{after}"))
        for i in range(self.shape.layers):
            ops.remember(inner, i, self.cross_attention(i))

    def decode(self, ops: Ops[V]) -> None:
        x = ops.gather_rows(self.table, ops.input("tokens"))
        inner = ops.norm(x, self.norm("decoder.layers.0.input_layernorm"))
        for i in range(self.shape.layers):
            at, last = f"decoder.layers.{i}", i + 1 == self.shape.layers
            attended = ops.self_attend(inner, i, self.self_attention("decoder", i))
            x, inner = ops.norm_add(x, attended, self.norm(f"{at}.post_attention_layernorm"))
            crossed = ops.cross_attend(inner, i, self.cross_attention(i), masked=False)
            if last:
                x, crossed = ops.chosen_rows(x), ops.chosen_rows(crossed)
            x, inner = ops.norm_add(x, crossed, self.norm(f"{at}.final_layernorm"))
            after = "norm" if last else f"layers.{i + 1}.input_layernorm"
            fed = ops.ffn(inner, self.feed_forward("decoder", i))
            x, inner = ops.norm_add(x, fed, self.norm(f"decoder.{after}"))
        ops.head(inner, self.output_table)

    def generation(self) -> GenerationDefaults:
        positions = int(self.config.get("max_position_embeddings") or 194)
        return decoding_defaults(self.checkpoint, positions=positions, start=1)

    def speech(self) -> Speech:
        return Speech(
            sample_rate=SAMPLE_RATE,
            window_samples=SAMPLE_RATE * LONGEST_SECONDS,
            padded=False,
            tokens_per_second=TOKENS_PER_SECOND,
        )


def _rows(weight: Weight, first: int, count: int) -> Array:
    return np.ascontiguousarray(weight.read()[first : first + count])
