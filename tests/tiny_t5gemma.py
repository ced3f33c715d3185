"""Tiny checkpoints of T5Gemma and T5Gemma 2: sides of unequal depths, heads and, where the
architecture allows it, widths; windows shorter than the tests' texts; bounds that are felt."""

from __future__ import annotations

from typing import Any

import torch
from tiny import checkpoint_of
from tiny_words import END, PAD, UNKNOWN, VOCABULARY, Case
from transformers import (
    PreTrainedModel,
    T5Gemma2Config,
    T5Gemma2ForConditionalGeneration,
    T5GemmaConfig,
    T5GemmaForConditionalGeneration,
)

from edgegen.export.checkpoint import Checkpoint

SIDE: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 96, "intermediate_size": 128, "num_hidden_layers": 4,
    "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 24, "query_pre_attn_scalar": 20,
    "max_position_embeddings": 640, "sliding_window": 5, "bos_token_id": UNKNOWN,
    "eos_token_id": END, "pad_token_id": PAD,
}  # fmt: skip
BOUNDED = {"attn_logit_softcapping": 3.0, "final_logit_softcapping": 6.0}
UNBOUNDED = {"attn_logit_softcapping": None, "final_logit_softcapping": None}
OTHER_SIDE: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 4,
}  # fmt: skip
# One image patch a token, and hardly a weight.
TOWER = {
    "model_type": "siglip_vision_model", "hidden_size": 8, "intermediate_size": 8,
    "num_hidden_layers": 1, "num_attention_heads": 1, "image_size": 8, "patch_size": 4,
}  # fmt: skip
LOCAL, GLOBAL = "sliding_attention", "full_attention"


def made(model: PreTrainedModel, *, words: float) -> Checkpoint:
    """Norms that are not one, and tables quiet enough that no word is repeated for ever."""
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "norm" in name:
                tensor.normal_(0.6 if "pre_" in name else 0.2, 0.3)
            elif "eoi" in name:
                tensor.normal_(0.0, 0.5)
            elif "embed" in name:
                tensor.normal_(0.0, words)
            elif tensor.ndim == 2:
                tensor.normal_(0.0, 1.1 / tensor.shape[1] ** 0.5)
    model.train(False)
    return checkpoint_of(model)


def tiny_t5gemma_model(
    encoder: dict[str, Any], decoder: dict[str, Any], **said: Any
) -> PreTrainedModel:
    torch.manual_seed(11)
    return T5GemmaForConditionalGeneration(
        T5GemmaConfig(encoder={**SIDE, **encoder, **said}, decoder={**SIDE, **decoder, **said})
    )


def tiny_t5gemma(**overrides: Any) -> Checkpoint:
    """A narrow encoder before a wide decoder, everything bounded."""
    return made(tiny_t5gemma_model({**OTHER_SIDE, **BOUNDED}, BOUNDED, **overrides), words=0.015)


def tiny_t5gemma_unbounded(**overrides: Any) -> Checkpoint:
    """One width, a key head for each query, no bounds, an output table of its own."""
    said = {**UNBOUNDED, "num_key_value_heads": 6, "num_hidden_layers": 2, **overrides}
    model = tiny_t5gemma_model({}, said, **said)
    table = model.lm_head.out_proj.weight
    model.lm_head.out_proj.weight = torch.nn.Parameter(torch.randn(table.shape))
    return made(model, words=0.1)


def tiny_t5gemma2(**overrides: Any) -> Checkpoint:
    """Windows even and odd; the mark that ends an image is a word."""
    side = {**SIDE, "head_dim": 32, "num_attention_heads": 4, "num_key_value_heads": 1, **overrides}
    texts = {
        **side, "num_hidden_layers": 3, "num_key_value_heads": 2, "sliding_window": 6,
        "layer_types": [LOCAL, GLOBAL, LOCAL],
    }  # fmt: skip
    rows = {**side, "layer_types": [LOCAL, LOCAL, GLOBAL, LOCAL], "final_logit_softcapping": 6.0}
    encoder = {
        "text_config": texts, "vision_config": TOWER, "mm_tokens_per_image": 4,
        "eoi_token_index": 9,
    }  # fmt: skip
    torch.manual_seed(12)
    config = T5Gemma2Config(encoder=encoder, decoder=rows, image_token_index=3)
    return made(T5Gemma2ForConditionalGeneration(config), words=0.03)


CASES = {
    "t5gemma": Case(family="t5gemma", make=tiny_t5gemma),
    "t5gemma-unbounded": Case(family="t5gemma", make=tiny_t5gemma_unbounded),
    "t5gemma2": Case(family="t5gemma2", make=tiny_t5gemma2),
}
