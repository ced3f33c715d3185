"""Pictures to text: a ViT or DeiT encoder and a text decoder of its own family.

Computation and names: transformers' ``models/vision_encoder_decoder``, ``vit``, ``deit``, ``trocr``
(arXiv 2010.11929, 2012.12877, 2109.10282). Patches do not overlap, so cutting the picture into them
is a reshape and their convolution a matrix product.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from edgegen.errors import CheckpointError
from edgegen.manifest import GenerationDefaults, Image
from edgegen.registry import unknown

from ..checkpoint import Array, Checkpoint, Weight
from ..ops.base import Ops, V
from ..ops.specs import FeedForward, Norm, SelfAttention
from .bart import Bart, Style, fairseq_waves
from .base import Family, Shape
from .bert import BertDecoder
from .decoding import decoding_defaults
from .gpt2 import Gpt2
from .naming import Naming, activation_of
from .picture import image_of

# Names before transformers 5, and what they are called now.
RENAMED = tuple(
    (re.compile(old), new)
    for old, new in (
        (r"^encoder\.encoder\.layer\.", "encoder.layers."),
        (r"^(encoder\.layers\.\d+\.attention)\.attention\.(query|key|value)\.", r"\1.\2_proj."),
        (r"^(encoder\.layers\.\d+\.attention)\.(q|k|v)(uery|ey|alue)_proj\.", r"\1.\2_proj."),
        (r"^(encoder\.layers\.\d+\.attention)\.output\.dense\.", r"\1.o_proj."),
        (r"^(encoder\.layers\.\d+)\.intermediate\.dense\.", r"\1.mlp.fc1."),
        (r"^(encoder\.layers\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    )
)
ENCODERS = ("vit", "deit")
EMBEDDINGS, PROJECTION = "encoder.embeddings", "enc_to_dec_proj"
PATCHES = f"{EMBEDDINGS}.patch_embeddings.projection"


class TrOcr(Bart):
    """BART's decoder under other names, with norms after sublayers."""

    model_types = ("trocr",)
    styles = {"trocr": Style(unused=2, waves=fairseq_waves)}  # noqa: RUF012

    def __init__(self, checkpoint: Checkpoint) -> None:
        names = {"output_projection.weight": "lm_head.weight"}
        weights = {names.get(name, name): one for name, one in checkpoint.weights.items()}
        super().__init__(replace(checkpoint, weights=weights))

    @property
    def shape(self) -> Shape:
        return replace(super().shape, source_masked=False)


Decoder = TrOcr | Gpt2 | BertDecoder
DECODERS: Mapping[str, type[TrOcr] | type[Gpt2] | type[BertDecoder]] = {
    "trocr": TrOcr,
    "gpt2": Gpt2,
    "bert": BertDecoder,
}


class VisionEncoderDecoder(Family):
    """Picture in, text out: captioning, reading of lines."""

    model_types = ("vision-encoder-decoder",)
    task = "image-to-text"
    limits = "ViT or DeiT with TrOCR's, GPT-2's or BERT's decoder; pictures of one size"
    batched = False
    parity_prompts = ("picture 1", "picture 2")

    def __init__(self, checkpoint: Checkpoint) -> None:
        weights = {renamed(name): weight for name, weight in checkpoint.weights.items()}
        super().__init__(replace(checkpoint, weights=weights))
        self.seen: Mapping[str, Any] = self.config["encoder"]
        self.text = self.decoder()
        self.width, self.heads = (
            int(self.seen[key]) for key in ("hidden_size", "num_attention_heads")
        )
        self.naming = Naming(known=weights, o="o_proj")
        self.patch = int(self.seen["patch_size"])
        self.picture = (int(self.seen.get("num_channels", 3)), *pair(self.seen["image_size"]))
        if self.picture[1] % self.patch or self.picture[2] % self.patch:
            raise CheckpointError(
                f"pictures of {self.picture[1]} x {self.picture[2]} do not divide into patches of "
                f"{self.patch}; expected a multiple."
            )
        self.first = 2 if f"{EMBEDDINGS}.distillation_token" in weights else 1

    def decoder(self) -> Decoder:
        encoder = str(self.seen.get("model_type"))
        config: Mapping[str, Any] = self.config["decoder"]
        kind = str(config.get("model_type"))
        if encoder not in ENCODERS:
            raise CheckpointError(unknown("picture encoder", encoder, list(ENCODERS)))
        if kind not in DECODERS:
            raise CheckpointError(unknown("decoder of pictures", kind, list(DECODERS)))
        weights = {
            name.removeprefix("decoder."): weight
            for name, weight in self.checkpoint.weights.items()
            if name.startswith("decoder.")
        }
        return DECODERS[kind](replace(self.checkpoint, config=config, weights=weights))

    @property
    def shape(self) -> Shape:
        text, (_, height, width) = self.text.shape, self.picture
        return replace(
            text,
            encoder=True,
            cross_layers=text.layers,
            cross_heads=text.cache_heads,
            source="pixels",
            source_masked=False,
            source_length=self.first + (height // self.patch) * (width // self.patch),
            picture=self.picture,
        )

    def reference_weights(self) -> Mapping[str, Weight]:
        return self.checkpoint.weights

    def weights(self) -> dict[str, Weight]:
        found = {
            name: weight
            for name, weight in self.checkpoint.weights.items()
            if not name.startswith("decoder.")
        }
        cut = found[f"{PATCHES}.weight"]
        width = cut.shape[0]
        found["patches"] = Weight((width, int(np.prod(cut.shape[1:]))), lambda: _flat(cut))
        found["places"] = Weight((self.shape.source_length, width), self.places)
        return found | self.text.weights()

    def places(self) -> Array:
        """``[S, width]``: positions, with the tokens that are no patch in the first rows."""
        found = self.checkpoint.weights
        rows = found[f"{EMBEDDINGS}.position_embeddings"].read()[0].copy()
        rows[0] += found[f"{EMBEDDINGS}.cls_token"].read()[0, 0]
        if self.first == 2:
            rows[1] += found[f"{EMBEDDINGS}.distillation_token"].read()[0, 0]
        return np.asarray(rows, np.float32)

    def norm(self, name: str) -> Norm:
        eps = float(self.seen.get("layer_norm_eps", 1e-12))
        return self.naming.layer_norm("encoder", name, eps)

    def attention(self, i: int) -> SelfAttention:
        at = f"encoder.layers.{i}.attention"
        return self.naming.self_attention(at, heads=self.heads, head_dim=self.width // self.heads)

    def feed_forward(self, i: int) -> FeedForward:
        activation = activation_of(str(self.seen.get("hidden_act", "gelu")))
        at = f"encoder.layers.{i}.mlp"
        return self.naming.feed_forward(at, up="fc1", down="fc2", activation=activation)

    def embedded(self, ops: Ops[V]) -> V:
        """``pixel_values [B, C, height, width]`` -> ``[B, S, width]``."""
        channels, height, width = self.picture
        size, rows, columns = self.patch, height // self.patch, width // self.patch
        cut = ops.reshape(ops.input("pixel_values"), (0, channels, rows, size, columns * size))
        cut = ops.transpose(cut, (0, 2, 1, 3, 4))
        cut = ops.reshape(cut, (0, rows, channels * size, columns, size))
        cut = ops.transpose(cut, (0, 1, 3, 2, 4))
        cut = ops.reshape(cut, (0, rows * columns, channels * size * size))
        patches = ops.linear(cut, "patches", f"{PATCHES}.bias")
        # The first rows are no patch: whichever is put there is hidden, and their places say all.
        picks = [0] * self.first + list(range(rows * columns))
        shown = np.arange(len(picks))[None, :, None] >= self.first
        spread = ops.gather(patches, ops.constant(picks, "int64"), 1)
        spread = ops.where(ops.constant(shown, "bool"), spread, ops.constant(0.0))
        return ops.add(spread, ops.parameter("places"))

    def encode(self, ops: Ops[V]) -> None:
        x = self.embedded(ops)
        layers = int(self.seen["num_hidden_layers"])
        inner = ops.norm(x, self.norm("layers.0.layernorm_before"))
        for i in range(layers):
            attended = ops.encode_attend(inner, self.attention(i), None)
            x, inner = ops.norm_add(x, attended, self.norm(f"layers.{i}.layernorm_after"))
            last = i + 1 == layers
            after = self.norm("layernorm" if last else f"layers.{i + 1}.layernorm_before")
            x, inner = ops.norm_add(x, ops.ffn(inner, self.feed_forward(i)), after)
        if f"{PROJECTION}.weight" in self.checkpoint.weights:
            inner = ops.linear(inner, f"{PROJECTION}.weight", f"{PROJECTION}.bias")
        for i in range(self.shape.layers):
            ops.remember(inner, i, self.text.cross_attention(i))

    def decode(self, ops: Ops[V]) -> None:
        self.text.decode(ops)

    def generation(self) -> GenerationDefaults:
        said = {key: value for key, value in self.config.items() if value is not None}
        merged = {**self.config["decoder"], **said}
        keys = ("max_position_embeddings", "n_positions")
        positions = next(int(merged[key]) for key in keys if merged.get(key))
        whole = replace(self.checkpoint, config=merged)
        return decoding_defaults(whole, positions=positions, max_source=0)

    def image(self) -> Image:
        return image_of(self.checkpoint.preprocessor, *self.picture[1:])


def renamed(name: str) -> str:
    for pattern, new in RENAMED:
        name = pattern.sub(new, name)
    return name


def pair(size: Any) -> tuple[int, int]:
    """Height and width, said as one number or two."""
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return int(height), int(width)


def _flat(weight: Weight) -> Array:
    return weight.read().reshape(weight.shape[0], -1)
