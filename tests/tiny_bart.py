"""Tiny checkpoints of BART's kin: unequal depths, heads and feed-forwards, uneven norms."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import transformers
from tiny import checkpoint_of
from tiny_words import END, PAD, UNKNOWN, VOCABULARY, Case
from transformers import PreTrainedModel

from edgegen.export.checkpoint import Checkpoint

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 64, "encoder_layers": 3, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 96, "decoder_ffn_dim": 80,
    "max_position_embeddings": 544, "pad_token_id": PAD, "eos_token_id": END,
    "bos_token_id": UNKNOWN, "decoder_start_token_id": UNKNOWN, "init_std": 0.2,
}  # fmt: skip
# Class names' stem and what each configuration says of its own.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "bart": ("Bart", {"forced_eos_token_id": END}),
    "mbart": ("MBart", {"scale_embedding": True, "encoder_layers": 1}),
    "plbart": ("PLBart", {"scale_embedding": True}),
    "pegasus": ("Pegasus", {"scale_embedding": True, "activation_function": "relu"}),
    "marian": ("Marian", {"scale_embedding": True, "activation_function": "swish"}),
    "m2m_100": ("M2M100", {"encoder_layers": 1}),
    "blenderbot": ("Blenderbot", {"encoder_no_repeat_ngram_size": 3}),
    "blenderbot-small": ("BlenderbotSmall", {"activation_function": "gelu_new"}),
}


def tiny_kin_model(kind: str, **overrides: Any) -> PreTrainedModel:
    """``overrides`` are the configuration's words."""
    stem, own = KINDS[kind]
    config = getattr(transformers, f"{stem}Config")(**{**SIZES, **own, **overrides})
    name = "MTModel" if stem == "Marian" else "ForConditionalGeneration"
    torch.manual_seed(6)
    model: PreTrainedModel = getattr(transformers, f"{stem}{name}")(config)
    # Quieter places or a louder source, and one word would be repeated for ever.
    words = 0.15 if config.scale_embedding else 0.8
    for name, tensor in model.state_dict().items():
        if "norm" in name:
            tensor.normal_(0.0 if name.endswith("bias") else 0.8, 0.2)
        elif name == "final_logits_bias":
            tensor.normal_(0.0, 0.2)
        elif "shared" in name:
            tensor.normal_(0.0, words)
        elif "embed_positions" in name and stem not in ("Marian", "Pegasus"):
            tensor.normal_(0.0, 0.8)
        elif "proj" in name or "fc" in name:
            tensor.mul_(0.4 if "fc2" in name or "encoder_attn.v_proj" in name else 2.0)
    model.train(False)
    return model


def tiny_kin(kind: str, **said: Any) -> Checkpoint:
    return checkpoint_of(tiny_kin_model(kind, **said))


CASES = {kind: Case(family="bart", make=partial(tiny_kin, kind)) for kind in KINDS}
