"""Checkpoints small enough to export in a second: random weights under real configurations."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel, T5Config, T5ForConditionalGeneration

from edgegen.export.checkpoint import Checkpoint, Origin, Weight


def tiny_t5_model(**overrides: Any) -> T5ForConditionalGeneration:
    """Depths differ, so no test passes by mixing up the two stacks."""
    said: dict[str, Any] = {
        "vocab_size": 500,
        "d_model": 64,
        "d_kv": 16,
        "d_ff": 96,
        "num_layers": 2,
        "num_decoder_layers": 3,
        "num_heads": 4,
        "decoder_start_token_id": 0,
        **overrides,
    }
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(**said))
    model.train(False)
    return model


def tiny_t5(**overrides: Any) -> Checkpoint:
    """``overrides`` are ``T5Config``'s words."""
    return checkpoint_of(tiny_t5_model(**overrides))


def checkpoint_of(model: PreTrainedModel) -> Checkpoint:
    """A transformers model as a source would yield it, without a tokenizer."""
    return Checkpoint(
        config=model.config.to_dict(),
        weights={
            name: Weight.of(tensor.detach().numpy()) for name, tensor in model.state_dict().items()
        },
        tokenizers={},
        origin=Origin(source="tiny", kind="memory"),
    )
