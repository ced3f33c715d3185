"""A Moonshine under random weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from tiny import checkpoint_of
from tiny_words import END, PAD, UNKNOWN, VOCABULARY, Case
from transformers import MoonshineConfig, MoonshineForConditionalGeneration

from edgegen.export.checkpoint import Checkpoint


def tiny_moonshine(**overrides: Any) -> Checkpoint:
    """Heads of 32 and of 48 numbers, of which 28 and 42 are turned."""
    said: dict[str, Any] = {
        "vocab_size": VOCABULARY, "hidden_size": 96, "intermediate_size": 160,
        "encoder_num_hidden_layers": 2, "decoder_num_hidden_layers": 3,
        "encoder_num_attention_heads": 3, "decoder_num_attention_heads": 2,
        "max_position_embeddings": 64, "decoder_start_token_id": UNKNOWN, "bos_token_id": UNKNOWN,
        "eos_token_id": END, "pad_token_id": PAD, "initializer_range": 0.3,
        "partial_rotary_factor": 0.88, **overrides,
    }  # fmt: skip
    torch.manual_seed(12)
    model = MoonshineForConditionalGeneration(MoonshineConfig(**said))
    for name, tensor in model.state_dict().items():
        if "norm" in name and name.endswith("weight"):
            tensor.normal_(1.0, 0.3)
        elif name.endswith("bias"):
            tensor.normal_(0.0, 0.2)
    return replace(checkpoint_of(model), generation={"max_length": 64})


CASES = {"moonshine": Case(family="moonshine", make=tiny_moonshine)}
