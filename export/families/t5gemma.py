"""T5Gemma: two stacks of Gemma 2's layers, the decoder's with cross-attention between.

Computation: arXiv 2504.06225 and transformers' ``models/t5gemma``. Scores and logits are bounded,
every other layer sees a window: a decoder's row the last ``sliding_window`` with its own, an
encoder's row that many on either side besides its own. Cross-attention has no positions. The two
widths may differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from edgegen.manifest import GenerationDefaults

from ..checkpoint import Checkpoint, Weight
from ..ops.base import Ops, V
from .base import Family, Shape
from .decoding import decoding_defaults
from .gemma import GEMMA2, GemmaStack, unit_norms


class T5Gemma(Family):
    """The prompt goes to the encoder alone; the decoder starts from one token."""

    model_types = ("t5gemma",)
    task = "text2text-generation"

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        weights = checkpoint.weights
        self.encoder = GemmaStack(self.config["encoder"], weights, "model.encoder", GEMMA2)
        self.decoder = GemmaStack(self.config["decoder"], weights, "model.decoder", GEMMA2)
        self.table, head = "model.decoder.embed_tokens.weight", "lm_head.out_proj.weight"
        own = head in weights and not weights[head].equals(weights[self.table])
        self.output_table = head if own else self.table

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
        )

    def weights(self) -> dict[str, Weight]:
        return unit_norms(self.checkpoint.weights)

    def encode(self, ops: Ops[V]) -> None:
        stack, ids = self.encoder, ops.input("input_ids")
        cap = float(stack.config.get("attn_logit_softcapping") or 0.0)

        def attend(inner: V, i: int) -> V:
            spec = replace(stack.self_attention(i), softcap=cap)
            mask = ops.source_mask()
            if spec.window:
                mask = ops.source_window(inner, spec.window, spec.window)
            return ops.encode_attend(inner, spec, mask)

        def sublayers(i: int) -> Sequence[tuple[str, Callable[[V], V]]]:
            return [("self_attn", partial(attend, i=i))]

        x = stack.embedded(ops, ids, "model.encoder.embed_tokens.weight")
        encoded = stack.run(ops, x, sublayers)
        for i in range(self.decoder.layers):
            ops.remember(encoded, i, self.decoder.cross_attention(i))

    def decode(self, ops: Ops[V]) -> None:
        stack = self.decoder
        cap = float(stack.config.get("attn_logit_softcapping") or 0.0)

        def sublayers(i: int) -> Sequence[tuple[str, Callable[[V], V]]]:
            attention = replace(stack.self_attention(i), softcap=cap)
            crossing = replace(stack.cross_attention(i), softcap=cap)
            return [
                ("self_attn", partial(ops.self_attend, layer=i, spec=attention)),
                ("cross_attn", partial(ops.cross_attend, layer=i, spec=crossing)),
            ]

        x = stack.embedded(ops, ops.input("tokens"), self.table)
        inner = stack.run(ops, x, sublayers, chosen=True)
        bound = float(stack.config.get("final_logit_softcapping") or 0.0)
        ops.head(inner, self.output_table, softcap=bound)

    def generation(self) -> GenerationDefaults:
        return gemma_defaults(self.checkpoint, self.encoder, self.decoder)


def gemma_defaults(
    checkpoint: Checkpoint, encoder: GemmaStack, decoder: GemmaStack
) -> GenerationDefaults:
    """Special ids are the decoder's where the whole does not name them."""
    outer = {key: value for key, value in checkpoint.config.items() if value is not None}
    config: dict[str, Any] = {**decoder.config, **outer}
    positions = [int(side.config["max_position_embeddings"]) for side in (encoder, decoder)]
    return decoding_defaults(
        replace(checkpoint, config=config), positions=positions[1], max_source=positions[0]
    )
