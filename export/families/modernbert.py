"""ModernBERT and Ettin's encoders: rotary positions, local and global layers, gated feed-forwards.

Computation: arXiv 2412.13663 and transformers' ``models/modernbert``; Ettin: arXiv 2507.11412. A
local layer sees ``local_attention // 2`` tokens on either side, both ends included, where the
decoder of the same name (``modernbert_decoder.py``) sees that many with the token's own.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from edgegen.errors import CheckpointError

from ..checkpoint import Array, Checkpoint, Weight
from ..ops.base import Ops, V
from ..ops.specs import Activation, FeedForward, Norm, Rope, SelfAttention
from .encoder import EncoderFamily
from .naming import Naming, activation_of

# Rotary bases where a configuration names none.
THETAS = {"full_attention": 160000.0, "sliding_attention": 10000.0}


class Layers:
    """What encoder and decoder of this architecture have in common."""

    def __init__(self, config: Mapping[str, Any], known: Container[str], at: str) -> None:
        self.config, self.at = config, at
        self.width = int(config["hidden_size"])
        self.heads = int(config["num_attention_heads"])
        self.head_dim = self.width // self.heads
        self.count = int(config["num_hidden_layers"])
        self.eps = float(config.get("norm_eps", 1e-5))
        self.reach = int(config.get("local_attention") or 0) // 2
        self.naming = Naming(known=known, o="Wo")
        self.table = f"{at}embeddings.tok_embeddings.weight"

    def is_local(self, i: int) -> bool:
        kinds = self.config.get("layer_types")
        if kinds:
            return bool(kinds[i] == "sliding_attention")
        return bool(i % int(self.config.get("global_attn_every_n_layers", 3)))

    def rope(self, i: int) -> Rope:
        """transformers 5 keeps parameters by layer kind, older configurations in two keys."""
        kind = "sliding_attention" if self.is_local(i) else "full_attention"
        said: Any = (self.config.get("rope_parameters") or {}).get(kind) or {}
        older = "local_rope_theta" if self.is_local(i) else "global_rope_theta"
        scaling = str(said.get("rope_type", "default"))
        if scaling != "default":
            raise CheckpointError(f"rotary scaling {scaling!r} is not supported; known: default.")
        return Rope(theta=float(said.get("rope_theta") or self.config.get(older) or THETAS[kind]))

    def activation(self, key: str) -> Activation:
        return activation_of(str(self.config.get(key, "gelu")))

    def norm(self, part: str) -> Norm:
        """A layer norm by its name behind the stack's prefix."""
        name = f"{self.at}{part}"
        bias = f"{name}.bias" if f"{name}.bias" in self.naming.known else None
        return Norm(weight=f"{name}.weight", bias=bias, eps=self.eps, kind="layer")

    def attention(self, i: int) -> SelfAttention:
        plain = self.naming.self_attention(
            f"{self.at}layers.{i}.attn", heads=self.heads, head_dim=self.head_dim
        )
        return replace(plain, rope=self.rope(i))

    def feed_forward(self, i: int) -> FeedForward:
        return self.naming.feed_forward(
            f"{self.at}layers.{i}.mlp",
            gate="Wi.0",
            up="Wi.1",
            down="Wo",
            activation=self.activation("hidden_activation"),
        )

    def unpacked(self, weights: Mapping[str, Weight]) -> dict[str, Weight]:
        """The weights with what is stored stacked taken apart."""
        found = dict(weights)
        for i in range(self.count):
            at = f"{self.at}layers.{i}"
            split(found, f"{at}.mlp.Wi", [f"{at}.mlp.Wi.{part}" for part in (0, 1)])
            split(found, f"{at}.attn.Wqkv", [f"{at}.attn.{part}_proj" for part in "qkv"])
        return found

    def embedded(self, ops: Ops[V], ids: V) -> V:
        return ops.norm(ops.gather_rows(self.table, ids), self.norm("embeddings.norm"))

    def head(self, ops: Ops[V], x: V, at: str) -> V:
        """What stands between the last layer and any table of outputs: dense, activation, norm."""
        dense = ops.linear(x, f"{at}.dense.weight", self.naming.bias_of(at, "dense"))
        turned = ops.activate(self.activation("classifier_activation"), dense)
        return ops.norm(turned, self.naming.layer_norm(at, "norm", self.eps))


def split(weights: dict[str, Weight], stacked: str, parts: Sequence[str]) -> None:
    """Put equal shares of a stacked matrix, and of its bias, in its place."""
    for kind in ("weight", "bias"):
        whole = weights.pop(f"{stacked}.{kind}", None)
        if whole is None:
            continue
        rows = whole.shape[0] // len(parts)
        for place, part in enumerate(parts):
            weights[f"{part}.{kind}"] = Weight(
                (rows, *whole.shape[1:]), partial(_share, whole, rows, place), origin=whole.origin
            )


def _share(whole: Weight, rows: int, place: int) -> Array:
    return whole.read()[place * rows : (place + 1) * rows]


class ModernBert(EncoderFamily):
    """One stack; the checkpoint's class says what is read off it."""

    model_types = ("modernbert",)
    limits = "no text is generated"

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        inside = "model.embeddings.tok_embeddings.weight" in checkpoint.weights
        self.prefix = "model." if inside else ""
        plain = Layers(self.config, (), self.prefix)
        self.split_weights = plain.unpacked(checkpoint.weights)
        self.layers = Layers(self.config, self.split_weights, self.prefix)

    def weights(self) -> dict[str, Weight]:
        return self.split_weights

    @property
    def width(self) -> int:
        return self.layers.width

    @property
    def classifier_pooling(self) -> Literal["cls", "mean"]:
        return "mean" if self.config.get("classifier_pooling") == "mean" else "cls"

    def contextual(self, ops: Ops[V]) -> V:
        layers = self.layers
        x = inner = layers.embedded(ops, ops.input("input_ids"))
        for i in range(layers.count):
            mask = (
                ops.source_window(x, layers.reach, layers.reach)
                if layers.is_local(i)
                else ops.source_mask()
            )
            attended = ops.encode_attend(inner, layers.attention(i), mask)
            x, inner = ops.norm_add(x, attended, layers.norm(f"layers.{i}.mlp_norm"))
            last = i + 1 == layers.count
            after = "final_norm" if last else f"layers.{i + 1}.attn_norm"
            x, inner = ops.norm_add(x, ops.ffn(inner, layers.feed_forward(i)), layers.norm(after))
        return inner

    def before_outputs(self, ops: Ops[V], x: V) -> V:
        return self.layers.head(ops, x, "head")

    @property
    def output_table(self) -> str:
        return "decoder.weight" if "decoder.weight" in self.split_weights else self.layers.table
