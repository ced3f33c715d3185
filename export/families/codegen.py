"""CodeGen and CodeGen2: attention and feed-forward side by side behind one norm.

Computation: arXiv 2203.13474 and transformers' ``models/codegen/modeling_codegen.py``; CodeGen2,
its packing and its prompts for gaps: arXiv 2305.02309 and the model card of Salesforce/codegen2-1B.
``Stack`` is the tower of blocks that CodeT5+ is built of as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from msgspec.structs import replace as replace_fields

from edgegen.errors import CheckpointError
from edgegen.manifest import GenerationDefaults, Infill

from ..checkpoint import Array, Checkpoint, Weight
from ..ops.base import Ops, V
from ..ops.specs import Activation, FeedForward, Norm, Rope, SelfAttention
from .base import Family, Shape
from .decoding import prompted_defaults
from .naming import Naming, activation_of

# The rows of a packed projection lie in as many slices as the training had cores, each of them
# query, value, key. CodeGen2's 1B and 3.7B were trained on twice as many.
SLICES, SLICES_OF_CODEGEN2 = 4, 8
PACKED = ("q_proj", "v_proj", "k_proj")
END_OF_TEXT, SEPARATOR, END_OF_MARK = "<|endoftext|>", "<sep>", "<eom>"
MOST_MARKS = 100


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Blocks under ``prefix``: ``x + attention(norm(x)) + feed_forward(norm(x))``."""

    prefix: str
    naming: Naming
    width: int
    heads: int
    layers: int
    eps: float
    rotary: int
    activation: Activation

    @classmethod
    def of(cls, prefix: str, config: Mapping[str, Any], stored: Mapping[str, Weight]) -> Stack:
        """Sizes by GPT-2's words. Raises ``CheckpointError`` for what the blocks cannot be."""
        width, heads = int(config["n_embd"]), int(config["n_head"])
        if width % heads or heads % SLICES:
            raise CheckpointError(
                f"{prefix}: {heads} heads over a width of {width}; CodeGen's packing needs heads "
                f"in {SLICES} equal slices and equal shares of the width."
            )
        return cls(
            prefix=prefix,
            naming=Naming(known=stored),
            width=width,
            heads=heads,
            layers=int(config["n_layer"]),
            eps=float(config.get("layer_norm_epsilon", 1e-5)),
            rotary=int(config.get("rotary_dim") or 0),
            activation=activation_of(str(config.get("activation_function", "gelu_new"))),
        )

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def rope(self) -> Rope:
        return Rope(theta=10000.0, dims=self.rotary, interleaved=True)

    @property
    def table(self) -> str:
        return f"{self.prefix}.wte.weight"

    def layer(self, i: int) -> str:
        return f"{self.prefix}.h.{i}"

    def unpacked(self, stored: Mapping[str, Weight]) -> dict[str, Weight]:
        """Every layer's query, key and value as matrices of their own, heads in order."""
        found: dict[str, Weight] = {}
        for i in range(self.layers):
            at = f"{self.layer(i)}.attn"
            found |= unpacked(at, stored[f"{at}.qkv_proj.weight"], PACKED)
        return found

    def norm(self, i: int) -> Norm:
        """The norm before block ``i``, or behind the last."""
        if i == self.layers:
            return self.naming.layer_norm(self.prefix, "ln_f", self.eps)
        return self.naming.layer_norm(self.layer(i), "ln_1", self.eps)

    def attention(self, i: int) -> SelfAttention:
        plain = self.naming.self_attention(
            f"{self.layer(i)}.attn", heads=self.heads, head_dim=self.head_dim
        )
        return replace(plain, rope=self.rope)

    def feed_forward(self, i: int) -> FeedForward:
        return self.naming.feed_forward(
            f"{self.layer(i)}.mlp", up="fc_in", down="fc_out", activation=self.activation
        )


class CodeGen(Family):
    """``decode`` alone. With ``prefix_lm`` in its configuration the rows of a prompt see each
    other."""

    model_types = ("codegen",)
    task = "text-generation"
    limits = "ONNX graphs of prefix-LMs keep their cache outside"
    parity_prompts = (
        "def fibonacci(n):\n",
        "# read a file and count its lines\nimport sys\n\n",
        "int main(int argc, char **argv) {\n    ",
        "a",
    )

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(in_four_slices(without_masks(checkpoint)))
        self.stack = Stack.of("transformer", self.config, self.checkpoint.weights)
        stored = self.checkpoint.weights
        self.output_table = "lm_head.weight" if "lm_head.weight" in stored else self.stack.table
        self.output_bias = "lm_head.bias" if "lm_head.bias" in stored else None

    @property
    def shape(self) -> Shape:
        return Shape(
            vocabulary=int(self.config["vocab_size"]),
            width=self.stack.width,
            layers=self.stack.layers,
            cache_heads=self.stack.heads,
            head_dim=self.stack.head_dim,
            bidirectional_prompt=bool(self.config.get("prefix_lm")),
        )

    def weights(self) -> dict[str, Weight]:
        stored = self.checkpoint.weights
        return {**stored, **self.stack.unpacked(stored)}

    def decode(self, ops: Ops[V]) -> None:
        stack = self.stack
        x = ops.gather_rows(stack.table, ops.input("tokens"))
        inner = ops.norm(x, stack.norm(0))
        for i in range(stack.layers):
            made = ops.self_attend(inner, i, stack.attention(i))
            if i + 1 == stack.layers:
                x, inner, made = (ops.chosen_rows(rows) for rows in (x, inner, made))
            made = ops.add(made, ops.ffn(inner, stack.feed_forward(i)))
            x, inner = ops.norm_add(x, made, stack.norm(i + 1))
        ops.head(inner, self.output_table, self.output_bias)

    def generation(self) -> GenerationDefaults:
        return code_generation(
            self.checkpoint, bidirectional_prompt=self.shape.bidirectional_prompt
        )

    def infill(self) -> Infill | None:
        """CodeGen2's marks, where the tokenizer has them."""
        words = special_words(self.checkpoint)
        marks: dict[str, int] = {}
        while len(marks) < MOST_MARKS and (mark := f"<mask_{len(marks) + 1}>") in words:
            marks[mark] = words[mark]
        if not marks or SEPARATOR not in words or END_OF_MARK not in words:
            return None
        before = [words[END_OF_TEXT]] if END_OF_TEXT in words else []
        return Infill(marks=marks, separator=(*before, words[SEPARATOR]), end=words[END_OF_MARK])


def code_generation(
    checkpoint: Checkpoint, config: Mapping[str, Any] | None = None, **more: Any
) -> GenerationDefaults:
    """Defaults of CodeGen's tokenizer and of sizes in ``config``, the checkpoint's own unless
    given.

    Published configurations say 1 and 2 for begin and end, which are ``"`` and ``#`` there: the
    tokenizer's own end of text wins.
    """
    named = special_words(checkpoint).get(END_OF_TEXT)
    ours = {} if named is None else {"bos_token_id": named, "eos_token_id": named}
    config = checkpoint.config if config is None else config
    said = checkpoint.generation
    whole = replace(
        checkpoint, config={**config, **ours}, generation={**said, **ours} if said else {}
    )
    positions = int(config.get("n_positions") or 0)
    found = prompted_defaults(whole, positions=positions, end=50256, pad=None)
    return replace_fields(found, **more)


def special_words(checkpoint: Checkpoint) -> dict[str, int]:
    """Ids of the tokens that were added to the tokenizer's vocabulary, by their text."""
    import json

    files = checkpoint.tokenizers.get("source")
    if files is None or files.kind != "tokenizers":
        return {}
    added: list[dict[str, Any]] = json.loads(files.data).get("added_tokens") or []
    return {str(token["content"]): int(token["id"]) for token in added}


def without_masks(checkpoint: Checkpoint) -> Checkpoint:
    """Published files hold each layer's causal mask among the weights."""
    kept = {
        name: weight
        for name, weight in checkpoint.weights.items()
        if not name.endswith(("attn.causal_mask", "crossattention.causal_mask"))
    }
    return replace(checkpoint, weights=kept)


def in_four_slices(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint as transformers' class has it, which knows four slices only.

    CodeGen2's 1B and 3.7B, whose code comes with the checkpoint (``auto_map``), are told from the
    others by a ``head_dim`` in the configuration, as CTranslate2's converter tells them.
    """
    config = checkpoint.config
    if not ("head_dim" in config and "auto_map" in config):
        return checkpoint
    weights = dict(checkpoint.weights)
    for name, weight in checkpoint.weights.items():
        if name.endswith("attn.qkv_proj.weight"):
            weights[name] = Weight(weight.shape, partial(_four_slices, weight))
    return replace(checkpoint, weights=weights)


def _four_slices(packed: Weight) -> Array:
    parts = [part_of(packed, SLICES_OF_CODEGEN2, 3, at) for at in range(3)]
    sliced = [part.reshape(SLICES, -1, part.shape[1]) for part in parts]
    return np.concatenate(sliced, 1).reshape(packed.shape)


def unpacked(at: str, packed: Weight, parts: tuple[str, ...]) -> dict[str, Weight]:
    """The matrices of a packed projection by their names under ``at``."""
    shape = (packed.shape[0] // len(parts), packed.shape[1])
    return {
        f"{at}.{part}.weight": Weight(shape, partial(part_of, packed, SLICES, len(parts), i))
        for i, part in enumerate(parts)
    }


def part_of(packed: Weight, slices: int, parts: int, which: int) -> Array:
    """``[slices * parts * rows, width]`` -> ``[slices * rows, width]``: one part of every slice."""
    matrix = packed.read()
    columns = matrix.shape[1]
    return matrix.reshape(slices, parts, -1, columns)[:, which].reshape(-1, columns)
