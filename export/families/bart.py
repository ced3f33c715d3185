"""BART and its kin: one line of ``STYLES`` each, the rest is in the checkpoint's own names.

They differ in how positions enter, where norms stand and what is added to the logits. Computation
and parameter names: transformers' folders of the same names (BART arXiv 1910.13461, mBART
2001.08210, Pegasus 1912.08777, Marian 1804.00344, M2M100 2010.11125 and NLLB 2207.04672,
Blenderbot 2004.13637).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import msgspec
import numpy as np

from edgegen.errors import CheckpointError
from edgegen.manifest import GenerationDefaults, Translation

from ..checkpoint import Array, Checkpoint, Weight
from ..ops.base import Ops, V
from ..ops.specs import Activation, CrossAttention, FeedForward, Norm, SelfAttention
from .base import Family, Shape
from .decoding import decoding_defaults
from .naming import Naming, activation_of
from .translation import translation_of

EPS = 1e-5
SHARED, OUTPUT, BIAS = "model.shared.weight", "lm_head.weight", "final_logits_bias"
EMBEDDINGS = {side: f"model.{side}.embed_tokens.weight" for side in ("encoder", "decoder")}
ATTENTION, CROSS, FED = "self_attn", "encoder_attn", "final"
SUBLAYERS = {"encoder": (ATTENTION, FED), "decoder": (ATTENTION, CROSS, FED)}


def marian_waves(rows: int, width: int, pad: int) -> Array:
    """Sines in the first half, cosines in the second, computed in float64."""
    rates = np.power(10000.0, np.arange(0, width, 2) / width)
    angles = np.arange(rows)[:, None] / rates
    return np.concatenate([np.sin(angles), np.cos(angles)], 1).astype(np.float32)


def fairseq_waves(rows: int, width: int, pad: int) -> Array:
    """As tensor2tensor has them: the last rate is 1/10000 and the first position ``pad + 1``."""
    import torch  # the checkpoint's own arithmetic: float32, where the last bit of a rate shows

    half = width // 2
    rates = torch.exp(torch.arange(half).float() * -(np.log(10000.0) / (half - 1)))
    angles = torch.arange(pad + 1, pad + 1 + rows).float()[:, None] * rates
    return np.asarray(torch.cat([angles.sin(), angles.cos()], 1).numpy(), np.float32)


@dataclass(frozen=True, kw_only=True)
class Style:
    """``waves`` None: positions are learned, behind ``unused`` rows of their table.

    ``pre_norm``: a norm before each sublayer and one at the end, else one after each. ``words``:
    the decoder norms its embeddings before positions are added, the encoder after.
    """

    waves: Callable[[int, int, int], Array] | None = None
    unused: int = 0
    pre_norm: bool = False
    words: bool = False


STYLES: Mapping[str, Style] = {
    "bart": Style(unused=2),
    "mbart": Style(unused=2, pre_norm=True),
    "plbart": Style(unused=2),
    "pegasus": Style(waves=marian_waves, pre_norm=True),
    "marian": Style(waves=marian_waves),
    "m2m_100": Style(waves=fairseq_waves, pre_norm=True),
    "blenderbot": Style(pre_norm=True),
    "blenderbot-small": Style(words=True),
}


class Bart(Family):
    """Two stacks of one width; depths, heads and feed-forwards may differ.

    A padding token among the text gets a place like any other; M2M100's own class gives it none.
    """

    model_types = tuple(STYLES)
    styles = STYLES
    task = "text2text-generation"

    def __init__(self, checkpoint: Checkpoint) -> None:
        weights = {name: one for name, one in whole_names(checkpoint.weights) if is_read(name)}
        super().__init__(replace(checkpoint, weights=weights))
        self.style = self.styles[checkpoint.model_type]
        self.width = int(self.config["d_model"])
        self.scale = self.width**0.5 if self.config.get("scale_embedding") else 1.0
        self.activation: Activation = activation_of(
            str(self.config.get("activation_function", "gelu"))
        )
        self.naming = Naming(known=weights)
        self.tables = self.named_tables()
        self.biased = BIAS in weights and bool(weights[BIAS].read().any())

    def named_tables(self) -> dict[str, str]:
        """The encoder's, the decoder's and the output table: one name where the values are one."""
        weights = self.checkpoint.weights
        names = {**EMBEDDINGS, "output": OUTPUT}
        tables = (SHARED, EMBEDDINGS["decoder"], OUTPUT)
        base = next((name for name in tables if name in weights), None)
        if base is None:
            raise CheckpointError(f"{SHARED} is missing; fetch the checkpoint again.")
        return {
            role: name if name in weights and not weights[name].equals(weights[base]) else base
            for role, name in names.items()
        }

    def heads(self, side: str) -> int:
        return int(self.config[f"{side}_attention_heads"])

    def layers(self, side: str) -> int:
        return int(self.config[f"{side}_layers"])

    @property
    def shape(self) -> Shape:
        heads, layers = self.heads("decoder"), self.layers("decoder")
        return Shape(
            vocabulary=self.checkpoint.weights[self.tables["output"]].shape[0],
            width=self.width,
            layers=layers,
            cache_heads=heads,
            head_dim=self.width // heads,
            encoder=True,
            cross_layers=layers,
            cross_heads=heads,
        )

    @property
    def source_vocabulary(self) -> int:
        return self.checkpoint.weights[self.tables["encoder"]].shape[0]

    def weights(self) -> dict[str, Weight]:
        found = dict(self.checkpoint.weights)
        for side in SUBLAYERS:
            found[f"{side}.places"] = self.places(side)
        if self.biased:
            bias = found[BIAS]
            found[BIAS] = Weight((bias.shape[-1],), lambda: bias.read().reshape(-1))
        return found

    def places(self, side: str) -> Weight:
        """``[positions, width]``: the first row is the first position's."""
        name, unused = f"model.{side}.embed_positions.weight", self.style.unused
        table = self.checkpoint.weights.get(name)
        if table is not None:
            return Weight((table.shape[0] - unused, self.width), lambda: table.read()[unused:])
        if self.style.waves is None:
            raise CheckpointError(f"{name} is missing; fetch the checkpoint again.")
        rows, pad = int(self.config["max_position_embeddings"]), int(self.config["pad_token_id"])
        return Weight((rows, self.width), partial(self.style.waves, rows, self.width, pad))

    # ------------------------------------------------------------------ layers

    def norms(self, side: str) -> Iterator[Norm]:
        """In the order they are applied; before each sublayer and at the end, or after each."""
        for i in range(self.layers(side)):
            for part in SUBLAYERS[side]:
                yield self.norm(f"{side}.layers.{i}.{part}_layer_norm")
        if self.style.pre_norm:
            yield self.norm(f"{side}.layer_norm")

    def norm(self, name: str) -> Norm:
        return Norm(weight=f"model.{name}.weight", bias=f"model.{name}.bias", eps=EPS, kind="layer")

    def self_attention(self, side: str, i: int) -> SelfAttention:
        heads = self.heads(side)
        at = f"model.{side}.layers.{i}.{ATTENTION}"
        return self.naming.self_attention(at, heads=heads, head_dim=self.width // heads)

    def cross_attention(self, i: int) -> CrossAttention:
        heads = self.heads("decoder")
        at = f"model.decoder.layers.{i}.{CROSS}"
        return self.naming.cross_attention(at, heads=heads, head_dim=self.width // heads)

    def feed_forward(self, side: str, i: int) -> FeedForward:
        at = f"model.{side}.layers.{i}"
        return self.naming.feed_forward(at, up="fc1", down="fc2", activation=self.activation)

    def embedded(self, ops: Ops[V], side: str, ids: V, places: V) -> V:
        """Rows of the words' table and of the positions', added and normed if there is a norm."""
        x = ops.scale(ops.gather_rows(self.tables[side], ids), self.scale)
        rows = ops.gather(ops.parameter(f"{side}.places"), places, 0)
        norm = self.norm(f"{side}.layernorm_embedding")
        if norm.weight not in self.checkpoint.weights:
            return ops.add(x, rows)
        if self.style.words and side == "decoder":
            return ops.add(ops.norm(x, norm), rows)
        return ops.norm_add(x, rows, norm)[1]

    def begin(self, ops: Ops[V], x: V, norms: Iterator[Norm]) -> tuple[V, V]:
        """What sublayers are added to, and what the first one reads."""
        return x, ops.norm(x, next(norms)) if self.style.pre_norm else x

    def follow(self, ops: Ops[V], x: V, delta: V, norms: Iterator[Norm]) -> tuple[V, V]:
        """The same two after a sublayer."""
        total, normed = ops.norm_add(x, delta, next(norms))
        return (total, normed) if self.style.pre_norm else (normed, normed)

    def encode(self, ops: Ops[V]) -> None:
        ids, norms = ops.input("input_ids"), self.norms("encoder")
        # Two dimensions: ONNX Runtime takes a table's rows by a bare range for a slice and fails.
        places = ops.reshape(ops.arange(ids, 1), (1, -1))
        embedded = self.embedded(ops, "encoder", ids, places)
        x, inner = self.begin(ops, embedded, norms)
        for i in range(self.layers("encoder")):
            spec = self.self_attention("encoder", i)
            attended = ops.encode_attend(inner, spec, ops.source_mask())
            x, inner = self.follow(ops, x, attended, norms)
            fed = ops.ffn(inner, self.feed_forward("encoder", i))
            x, inner = self.follow(ops, x, fed, norms)
        for i in range(self.shape.layers):
            ops.remember(inner, i, self.cross_attention(i))

    def decode(self, ops: Ops[V]) -> None:
        norms = self.norms("decoder")
        embedded = self.embedded(ops, "decoder", ops.input("tokens"), ops.input("positions"))
        x, inner = self.begin(ops, embedded, norms)
        for i in range(self.shape.layers):
            attended = ops.self_attend(inner, i, self.self_attention("decoder", i))
            x, inner = self.follow(ops, x, attended, norms)
            masked = self.shape.source_masked
            crossed = ops.cross_attend(inner, i, self.cross_attention(i), masked=masked)
            if i + 1 == self.shape.layers:
                x, crossed = ops.chosen_rows(x), ops.chosen_rows(crossed)
            x, inner = self.follow(ops, x, crossed, norms)
            fed = ops.ffn(inner, self.feed_forward("decoder", i))
            x, inner = self.follow(ops, x, fed, norms)
        ops.head(inner, self.tables["output"], BIAS if self.biased else None)

    # --------------------------------------------------------------- generation

    def generation(self) -> GenerationDefaults:
        limit = int(self.config["max_position_embeddings"])
        found = decoding_defaults(self.checkpoint, positions=limit, max_source=limit)
        # Beside a language token the tokenizer's own frame would say a language of its own.
        suffix = found.end[:1] if self.translation() else ()
        return msgspec.structs.replace(found, source_suffix=suffix)

    def translation(self) -> Translation | None:
        return translation_of(self.checkpoint)


def whole_names(weights: Mapping[str, Weight]) -> Iterator[tuple[str, Weight]]:
    """Names as the model with a head has them: some checkpoints were saved without one."""
    bare = not any(name.startswith("model.") for name in weights)
    for name, weight in weights.items():
        inside = bare and name.partition(".")[0] in ("shared", "encoder", "decoder")
        yield (f"model.{name}" if inside else name), weight


def is_read(name: str) -> bool:
    """Whether the network reads it: old checkpoints hold their version and computed waves too."""
    return not name.endswith((".version", "embed_positions.weights"))
