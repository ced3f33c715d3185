"""CodeT5+ 2B, 6B and 16B: a shallow encoder and a deep decoder of CodeGen's blocks.

The decoder's last block alone has cross-attention, beside its self-attention and feed-forward and
behind the same norm; rotary positions turn it too. Computation: arXiv 2305.07922 and the
``modeling_codet5p.py`` published with Salesforce/codet5p-2b, which transformers does not have.
220M and 770M are T5 (``t5.py``).

One file of weights has three uses, the tasks of an export: both towers; the decoder alone, which is
the frozen CodeGen it was made of; and the encoder alone, for embeddings. A bundle has one of them
and the weights of that one: who embeds needs no decoder on the device.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from msgspec.structs import replace as replace_fields

from edgegen.errors import CheckpointError
from edgegen.graph import Graph
from edgegen.manifest import Encoding, GenerationDefaults, MemoryFormat

from ..checkpoint import Array, Checkpoint, Pooling, Weight
from ..ops.base import Ops, V
from ..ops.specs import CrossAttention
from .base import Family, Shape, Task
from .codegen import CodeGen, Stack, code_generation, unpacked, without_masks
from .encoder import embedding_ports, encoder_graph, give_embedding


class CodeT5p(Family):
    """``encode`` leaves keys and values for one layer; ``decode`` reads the same text as prompt."""

    model_types = ("codet5p",)
    task: Task = "text2text-generation"
    every_task = ("text2text-generation", "text-generation", "feature-extraction")
    limits = "a bundle holds one of its tasks"
    in_transformers = False
    parity_prompts = CodeGen.parity_prompts

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(without_masks(checkpoint))
        stored = self.checkpoint.weights
        self.encoder = Stack.of("encoder", self.config["encoder"], stored)
        self.decoder = Stack.of("decoder.transformer", self.config["decoder"], stored)
        self.cross = f"{self.decoder.layer(self.decoder.layers - 1)}.crossattention"
        if f"{self.cross}.q_attn.weight" not in stored:
            raise CheckpointError(
                f"codet5p: {self.cross} is not in the checkpoint; expected cross-attention in the "
                "decoder's last block, as Salesforce/codet5p-2b has it."
            )

        self.pooling = checkpoint.pooling or Pooling(how="mean")

    @property
    def tasks(self) -> tuple[Task, ...]:
        return self.every_task

    @property
    def source_vocabulary(self) -> int:
        return int(self.config["encoder"]["vocab_size"])

    @property
    def shape(self) -> Shape:
        if self.task == "feature-extraction":
            rows = int(self.config["encoder"]["vocab_size"])
            return Shape(vocabulary=rows, width=self.encoder.width, layers=0, encoder=True)
        alone = self.task == "text-generation"
        return Shape(
            vocabulary=int(self.config["decoder"]["vocab_size"]),
            width=self.decoder.width,
            layers=self.decoder.layers,
            cache_heads=self.decoder.heads,
            head_dim=self.decoder.head_dim,
            encoder=not alone,
            cross_layers=0 if alone else 1,
            cross_heads=self.decoder.heads,
        )

    def graph_names(self) -> tuple[str, ...]:
        return ("encode",) if self.task == "feature-extraction" else super().graph_names()

    def graph(self, name: str, cache_kind: str, memory: MemoryFormat = "fp32") -> Graph:
        if self.task == "feature-extraction":
            return encoder_graph(embedding_ports(self.encoder.width))
        return super().graph(name, cache_kind, memory)

    def encoding(self) -> Encoding | None:
        if self.task != "feature-extraction":
            return None
        pooling = self.pooling
        return Encoding(width=self.encoder.width, pooling=pooling.how, unit=pooling.unit)

    def weights(self) -> dict[str, Weight]:
        stored = self.checkpoint.weights
        found = {
            **stored, **self.encoder.unpacked(stored), **self.decoder.unpacked(stored),
            **unpacked(self.cross, stored[f"{self.cross}.qkv_proj.weight"], ("v_proj", "k_proj")),
        }  # fmt: skip
        wider = stored.get("enc_to_dec_proj.weight")
        if wider is not None:
            # Keys and values read the encoder through its projection: one product does both.
            for part in ("k_proj", "v_proj"):
                at = f"{self.cross}.{part}"
                inner, bias = found[f"{at}.weight"], stored["enc_to_dec_proj.bias"]
                shape = (inner.shape[0], wider.shape[1])
                found[f"{at}.weight"] = Weight(shape, partial(_product, inner, wider))
                found[f"{at}.bias"] = Weight((inner.shape[0],), partial(_product, inner, bias))
        return found

    def cross_attention(self) -> CrossAttention:
        """Biases come from the encoder's projection where it has one."""
        decoder = self.decoder
        naming = replace(decoder.naming, q="q_attn")
        plain = naming.cross_attention(self.cross, heads=decoder.heads, head_dim=decoder.head_dim)
        if "enc_to_dec_proj.bias" in self.checkpoint.weights:
            k_bias, v_bias = (f"{self.cross}.{part}_proj.bias" for part in ("k", "v"))
            plain = replace(plain, k_bias=k_bias, v_bias=v_bias)
        return replace(plain, rope=decoder.rope)

    def encode(self, ops: Ops[V]) -> None:
        stack = self.encoder
        x = ops.gather_rows(stack.table, ops.input("input_ids"))
        inner = ops.norm(x, stack.norm(0))
        for i in range(stack.layers):
            made = ops.encode_attend(inner, stack.attention(i), ops.source_mask())
            made = ops.add(made, ops.ffn(inner, stack.feed_forward(i)))
            x, inner = ops.norm_add(x, made, stack.norm(i + 1))
        if self.task == "feature-extraction":
            give_embedding(ops, inner, self.pooling)
        else:
            ops.remember(inner, 0, self.cross_attention())

    def decode(self, ops: Ops[V]) -> None:
        stack = self.decoder
        x = ops.gather_rows(stack.table, ops.input("tokens"))
        inner = ops.norm(x, stack.norm(0))
        for i in range(stack.layers):
            made = ops.self_attend(inner, i, stack.attention(i))
            if i + 1 == stack.layers:
                if self.shape.encoder:
                    made = ops.add(made, ops.cross_attend(inner, 0, self.cross_attention()))
                x, inner, made = (ops.chosen_rows(rows) for rows in (x, inner, made))
            made = ops.add(made, ops.ffn(inner, stack.feed_forward(i)))
            x, inner = ops.norm_add(x, made, stack.norm(i + 1))
        ops.head(inner, "decoder.lm_head.weight", "decoder.lm_head.bias")

    def generation(self) -> GenerationDefaults:
        config = {**self.config["decoder"], **self.config}
        plain = code_generation(self.checkpoint, config)
        if self.task == "text-generation":
            return plain
        if self.task == "feature-extraction":
            most = int(self.config["encoder"].get("n_positions") or 0)
            return GenerationDefaults(start=(), end=(), pad=plain.pad, max_source=most)
        room = plain.max_positions - min(plain.max_new_tokens, plain.max_positions // 2)
        return replace_fields(plain, prompt_from_source=True, max_source=max(room, 0))


def _product(matrix: Weight, other: Weight) -> Array:
    """In float64, so that the fold adds no rounding of its own."""
    return (matrix.read().astype(np.float64) @ other.read().astype(np.float64)).astype(np.float32)
