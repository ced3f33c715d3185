"""Random weights: pairs of an encoder-decoder and a decoder-only model whose layers cost the same.

For measuring what a structure costs; what such models write means nothing. The pair is T5Gemma 2
and Gemma 3: one kind of layer, since T5Gemma 2's decoder asks source and text with one attention
and its encoder, decoder and head share one table. Of as many layers in all, two thirds of them the
encoder's (the split of arXiv 2501.16273), the two differ by one norm. No layer has a window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from edgegen.errors import UnknownName
from edgegen.registry import unknown

from ..checkpoint import Array, Checkpoint, Origin, TokenizerFiles, Weight
from .base import no_revision

PREFIX = "random:"
HEAD = 64
POSITIONS = 4096
# Two norms stand around each half of a layer, under these names in either model.
ENCODED = ("pre_self_attn", "post_self_attn", "pre_feedforward", "post_feedforward")
ALONE = ("input", "post_attention", "pre_feedforward", "post_feedforward")


@dataclass(frozen=True, kw_only=True)
class Size:
    """``layers`` in all, a multiple of three; heads are 64 wide."""

    layers: int
    width: int
    inner: int
    heads: int
    key_heads: int
    vocabulary: int

    @property
    def encoder_layers(self) -> int:
        return 2 * self.layers // 3

    def config(self, layers: int) -> dict[str, Any]:
        """In the words of transformers' Gemma3TextConfig."""
        return {
            "vocab_size": self.vocabulary,
            "hidden_size": self.width,
            "intermediate_size": self.inner,
            "num_hidden_layers": layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_heads,
            "head_dim": HEAD,
            "query_pre_attn_scalar": HEAD,
            "max_position_embeddings": POSITIONS,
            "sliding_window": POSITIONS,
            "layer_types": ["full_attention"] * layers,
            "rope_theta": 1e6,
            "bos_token_id": 2,
            "eos_token_id": 1,
            "pad_token_id": 0,
        }


SIZES: Mapping[str, Size] = {
    "tiny": Size(layers=3, width=64, inner=128, heads=2, key_heads=1, vocabulary=512),
    "30m": Size(layers=12, width=384, inner=1024, heads=6, key_heads=2, vocabulary=32_000),
    "300m": Size(layers=24, width=1024, inner=2816, heads=16, key_heads=4, vocabulary=32_000),
}

Shapes = dict[str, tuple[int, ...]]


def encoder_decoder(size: Size) -> tuple[dict[str, Any], Shapes]:
    """Configuration, and shapes of the weights by their names."""
    at, layers = "model.encoder.text_model", size.encoder_layers
    below = size.layers - layers
    shapes: Shapes = {f"{at}.embed_tokens.weight": (size.vocabulary, size.width)}
    shapes |= stack(size, at, layers, ENCODED) | stack(size, "model.decoder", below, ENCODED)
    config = {
        "model_type": "t5gemma2",
        "encoder": {"text_config": size.config(layers)},
        "decoder": size.config(below),
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }
    return config, shapes


def decoder_only(size: Size) -> tuple[dict[str, Any], Shapes]:
    """Configuration, and shapes of the weights by their names."""
    shapes: Shapes = {"model.embed_tokens.weight": (size.vocabulary, size.width)}
    shapes |= stack(size, "model", size.layers, ALONE)
    config = {"model_type": "gemma3_text", "tie_word_embeddings": True}
    return {**config, **size.config(size.layers)}, shapes


def stack(size: Size, at: str, layers: int, norms: tuple[str, ...]) -> Shapes:
    """The weights of a stack of layers and of the norm behind it."""
    width, queries, keys = size.width, size.heads * HEAD, size.key_heads * HEAD
    layer: Shapes = {
        "self_attn.q_proj": (queries, width),
        "self_attn.k_proj": (keys, width),
        "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (width, queries),
        "self_attn.q_norm": (HEAD,),
        "self_attn.k_norm": (HEAD,),
        "mlp.gate_proj": (size.inner, width),
        "mlp.up_proj": (size.inner, width),
        "mlp.down_proj": (width, size.inner),
        **{f"{name}_layernorm": (width,) for name in norms},
    }
    shapes: Shapes = {
        f"{at}.layers.{i}.{name}.weight": shape
        for i in range(layers)
        for name, shape in layer.items()
    }
    return {**shapes, f"{at}.norm.weight": (width,)}


STRUCTURES: Mapping[str, Callable[[Size], tuple[dict[str, Any], Shapes]]] = {
    "encoder-decoder": encoder_decoder,
    "decoder-only": decoder_only,
}
MODELS = tuple(f"{structure}-{size}" for structure in STRUCTURES for size in SIZES)


class RandomSource:
    """``random:encoder-decoder-30m`` and its like."""

    name = "random"
    takes = "random weights to time a structure by: random:STRUCTURE-SIZE"
    example = "random:encoder-decoder-30m"
    gives: tuple[str, ...] | None = ("t5gemma2", "gemma3_text")

    def matches(self, model: str) -> bool:
        return model.startswith(PREFIX)

    def load(self, model: str, revision: str | None, cache_dir: Path | None) -> Checkpoint:
        no_revision(model, revision)
        name = model.removeprefix(PREFIX)
        if name not in MODELS:
            raise UnknownName(unknown("random model", name, list(MODELS)))
        structure, _, size = name.rpartition("-")
        config, shapes = STRUCTURES[structure](SIZES[size])
        return Checkpoint(
            config=config,
            weights={weight: random_weight(weight, shape) for weight, shape in shapes.items()},
            tokenizers={"source": TokenizerFiles("bytes", offset=3)},
            origin=Origin(
                source=model,
                kind=self.name,
                licence="none",
                notes=("weights are random: for measuring, not for text",),
            ),
        )


def random_weight(name: str, shape: tuple[int, ...]) -> Weight:
    """Of unit gain: a matrix keeps the size of what it multiplies, a norm (stored less one) is
    neutral. The same values each time, from the name."""

    def read() -> Array:
        if len(shape) == 1:
            return np.zeros(shape, np.float32)
        random = np.random.default_rng(crc32(name.encode()))
        values = random.standard_normal(shape, np.float32)
        return values * np.float32(shape[1] ** -0.5)

    return Weight(shape, read)
