"""T5Gemma 2: two stacks of Gemma 3's layers, the decoder's attention merged with its memory.

Computation: arXiv 2512.14856 and transformers' ``models/t5gemma2``. A decoder's row asks the text
so far and the source with one softmax: its query is rotated by its own position, keys of the text
by theirs, keys of the source not at all, and a window hides text only. In an encoder's window the
row itself counts with those before it. Encoder, decoder and head share one table. Text only: the
tower that reads pictures is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from edgegen.errors import CheckpointError
from edgegen.manifest import GenerationDefaults

from ..checkpoint import Checkpoint, Weight
from ..ops.base import Ops, V
from .base import Family, Shape
from .gemma import GEMMA3, GemmaStack, unit_norms
from .t5gemma import gemma_defaults

ENCODER, DECODER = "model.encoder.text_model", "model.decoder"
TABLES = (f"{ENCODER}.embed_tokens.weight", f"{DECODER}.embed_tokens.weight")
IMAGE_ENDS = (f"{ENCODER}.embed_tokens.eoi_embedding", f"{DECODER}.embed_tokens.eoi_embedding")


class T5Gemma2(Family):
    """transformers reads ``attn_logit_softcapping`` of this architecture and does not apply it."""

    model_types = ("t5gemma2",)
    task = "text2text-generation"
    limits = "text only: no pictures"
    batched = False

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        weights = checkpoint.weights
        texts = self.config["encoder"]["text_config"]
        self.encoder = GemmaStack(texts, weights, ENCODER, GEMMA3)
        self.decoder = GemmaStack(self.config["decoder"], weights, DECODER, GEMMA3)
        # Tied tensors are stored under one of their names.
        tables = [name for name in TABLES if name in weights]
        if not tables:
            raise CheckpointError(f"t5gemma2: expected {TABLES[0]} among the weights; got none.")
        self.table = tables[0]
        # Without the tower that reads pictures it is a model transformers cannot hold.
        self.in_transformers = any(".vision_tower." in name for name in weights)
        self.image_end = next((name for name in IMAGE_ENDS if name in weights), None)

    @property
    def shape(self) -> Shape:
        decoder = self.decoder
        return Shape(
            vocabulary=int(decoder.config["vocab_size"]),
            width=decoder.width,
            layers=decoder.layers,
            cache_heads=decoder.kv_heads,
            head_dim=decoder.head_dim,
            encoder=True,
            cross_layers=decoder.layers,
            cross_heads=decoder.kv_heads,
            merged=True,
        )

    def weights(self) -> dict[str, Weight]:
        return unit_norms(self.checkpoint.weights)

    def embedded(self, ops: Ops[V], ids: V) -> V:
        """The mark that ends an image has an embedding of its own, which is not scaled."""
        x = self.encoder.embedded(ops, ids, self.table)
        mark = int(self.config["encoder"].get("eoi_token_index", 256_000))
        if self.image_end is None or mark >= self.shape.vocabulary:
            return x
        away = ops.unary("abs", ops.binary("sub", ids, ops.constant(mark, "int64")))
        other = ops.unsqueeze(ops.binary("greater", away, ops.constant(0, "int64")), 2)
        return ops.where(other, x, ops.parameter(self.image_end))

    def encode(self, ops: Ops[V]) -> None:
        stack = self.encoder

        def attend(inner: V, i: int) -> V:
            spec, mask = stack.self_attention(i), ops.source_mask()
            if spec.window:
                mask = ops.source_window(inner, (spec.window + 1) // 2 - 1, spec.window // 2)
            return ops.encode_attend(inner, spec, mask)

        def sublayers(i: int) -> Sequence[tuple[str, Callable[[V], V]]]:
            return [("self_attn", partial(attend, i=i))]

        encoded = stack.run(ops, self.embedded(ops, ops.input("input_ids")), sublayers)
        for i in range(self.decoder.layers):
            ops.remember(encoded, i, replace(self.decoder.self_attention(i), rope=None))

    def decode(self, ops: Ops[V]) -> None:
        stack = self.decoder

        def sublayers(i: int) -> Sequence[tuple[str, Callable[[V], V]]]:
            spec = replace(stack.self_attention(i), merged=True)
            return [("self_attn", partial(ops.self_attend, layer=i, spec=spec))]

        x = self.embedded(ops, ops.input("tokens"))
        inner = stack.run(ops, x, sublayers, chosen=True)
        bound = float(stack.config.get("final_logit_softcapping") or 0.0)
        ops.head(inner, self.table, softcap=bound)

    def generation(self) -> GenerationDefaults:
        return gemma_defaults(self.checkpoint, self.encoder, self.decoder)
