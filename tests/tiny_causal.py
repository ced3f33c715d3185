"""Decoder-only checkpoints of the Llama kind under random weights."""

from __future__ import annotations

from typing import Any

import torch
from tiny import checkpoint_of
from tiny_words import END, PAD, UNKNOWN, VOCABULARY, Case, Make
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from edgegen.export.checkpoint import Checkpoint

SAID: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 96, "intermediate_size": 160,
    "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16,
    "tie_word_embeddings": True, "bos_token_id": UNKNOWN, "eos_token_id": END,
    "pad_token_id": PAD, "initializer_range": 0.3,
}  # fmt: skip


def made(model: PreTrainedModel) -> Checkpoint:
    """Norm weights that are not all one and biases that are not all zero, so that one left out is
    seen."""
    for name, tensor in model.state_dict().items():
        if "norm" in name:
            tensor.normal_(0.6, 0.3)
        elif name.endswith("bias"):
            tensor.normal_(0.0, 0.3)
    return checkpoint_of(model)


def of(config: Any, model: Any, seed: int, **said: Any) -> Make:
    def make(**overrides: Any) -> Checkpoint:
        torch.manual_seed(seed)
        return made(model(config(**{**SAID, **said, **overrides})))

    return make


LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip
# Three query heads share a key head.
tiny_llama = of(LlamaConfig, LlamaForCausalLM, 2)
# A head of its own for each query, an output table of its own, biases, stretched rotations.
tiny_llama3 = of(
    LlamaConfig, LlamaForCausalLM, 2, tie_word_embeddings=False, num_key_value_heads=6,
    rope_parameters=LLAMA3, attention_bias=True, num_hidden_layers=2,
)  # fmt: skip
# The two upper layers see a window of five.
tiny_qwen2 = of(
    Qwen2Config, Qwen2ForCausalLM, 6, num_hidden_layers=4, use_sliding_window=True,
    sliding_window=5, max_window_layers=2,
)  # fmt: skip
# Heads together are wider than the model; a window is named and not used.
tiny_qwen3 = of(
    Qwen3Config, Qwen3ForCausalLM, 7, head_dim=24, num_key_value_heads=3, sliding_window=5,
    max_window_layers=1, tie_word_embeddings=False,
)  # fmt: skip
# A window in every layer.
tiny_mistral = of(MistralConfig, MistralForCausalLM, 8, sliding_window=5, num_hidden_layers=2)
# Two of five layers have no positions, and see a window.
tiny_smollm3 = of(
    SmolLM3Config, SmolLM3ForCausalLM, 9, num_hidden_layers=5, no_rope_layer_interval=2,
    use_sliding_window=True, sliding_window=5,
)  # fmt: skip
tiny_gemma = of(
    GemmaConfig, GemmaForCausalLM, 10, num_key_value_heads=1,
    initializer_range=0.1, num_hidden_layers=2,
)  # fmt: skip


def tiny_gemma3(**overrides: Any) -> Checkpoint:
    """Six local layers with a window of five, one global."""
    said: dict[str, Any] = {
        **SAID, "num_hidden_layers": 7, "num_attention_heads": 4, "num_key_value_heads": 1,
        "head_dim": 32, "sliding_window": 5, "query_pre_attn_scalar": 24, "initializer_range": 0.2,
        **overrides,
    }  # fmt: skip
    torch.manual_seed(3)
    model = Gemma3ForCausalLM(Gemma3TextConfig(**said))
    model.state_dict()["model.embed_tokens.weight"].mul_(0.1)
    return made(model)


CASES = {
    "llama-grouped": Case(family="causal", make=tiny_llama),
    "llama-untied-stretched": Case(family="causal", make=tiny_llama3),
    "gemma": Case(family="causal", make=tiny_gemma),
    "gemma3": Case(family="causal", make=tiny_gemma3),
    "qwen2": Case(family="causal", make=tiny_qwen2),
    "qwen3": Case(family="causal", make=tiny_qwen3),
    "mistral": Case(family="causal", make=tiny_mistral),
    "smollm3": Case(family="causal", make=tiny_smollm3),
}
