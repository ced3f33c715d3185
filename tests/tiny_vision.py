"""Encoders of pictures with text decoders, and GPT-2 alone, under random weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from tiny import checkpoint_of
from tiny_words import END, PAD, UNKNOWN, VOCABULARY, Case
from transformers import (
    BertConfig,
    BertLMHeadModel,
    DeiTConfig,
    DeiTModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    TrOCRConfig,
    TrOCRForCausalLM,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTModel,
)

from edgegen.export.checkpoint import Checkpoint

IDS: dict[str, Any] = {"bos_token_id": UNKNOWN, "eos_token_id": END, "pad_token_id": PAD}
PREPROCESSOR: dict[str, Any] = {
    "do_resize": True, "size": {"height": 24, "width": 40}, "resample": 2, "do_rescale": True,
    "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.5, 0.6, 0.7], "do_center_crop": False,
}  # fmt: skip


def stirred(model: PreTrainedModel) -> PreTrainedModel:
    """Norms that are not one, biases and positions that are not nothing."""
    for name, tensor in model.state_dict().items():
        if any(part in name for part in ("norm", "ln_")) and name.endswith("weight"):
            tensor.normal_(1.0, 0.3)
        elif name.endswith("bias") or name.endswith("token") or "position" in name or "wpe" in name:
            tensor.normal_(0.0, 0.3)
    model.train(False)
    return model


def seen(**said: Any) -> dict[str, Any]:
    return {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 96, "image_size": (24, 40), "patch_size": 8, "initializer_range": 0.3,
        **said,
    }  # fmt: skip


def captioner(encoder: PreTrainedModel, decoder: PreTrainedModel) -> Checkpoint:
    model = VisionEncoderDecoderModel(encoder=encoder, decoder=decoder)
    model.config.decoder_start_token_id = UNKNOWN
    model.config.pad_token_id, model.config.eos_token_id = PAD, END
    made = checkpoint_of(stirred(model))
    return replace(made, preprocessor=PREPROCESSOR)


def tiny_trocr(**overrides: Any) -> Checkpoint:
    """As wide as its encoder's rows are for its cross-attention; positions are learned."""
    said: dict[str, Any] = {
        "vocab_size": VOCABULARY, "d_model": 96, "decoder_layers": 3, "decoder_attention_heads": 6,
        "decoder_ffn_dim": 80, "max_position_embeddings": 600, "init_std": 0.2, **IDS,
        "decoder_start_token_id": UNKNOWN, "cross_attention_hidden_size": 64, "is_decoder": True,
        "add_cross_attention": True, "activation_function": "relu", **overrides,
    }  # fmt: skip
    torch.manual_seed(13)
    decoder = TrOCRForCausalLM(TrOCRConfig(**said))
    for name, tensor in decoder.state_dict().items():  # else it looks at its own words alone
        tensor.mul_(0.25 if "embed" in name or "output" in name else 1.5)
    return captioner(ViTModel(ViTConfig(**seen())), decoder)


def tiny_trocr_waves(**overrides: Any) -> Checkpoint:
    """DeiT's further token; waves for positions, no norm of embeddings, scaled words."""
    return tiny_trocr_on_deit(
        use_learned_position_embeddings=False, layernorm_embedding=False, scale_embedding=True,
        cross_attention_hidden_size=None, d_model=64, decoder_attention_heads=2,
        decoder_layers=1, **overrides,
    )  # fmt: skip


def tiny_trocr_on_deit(**said: Any) -> Checkpoint:
    torch.manual_seed(14)
    words: dict[str, Any] = {
        "vocab_size": VOCABULARY, "decoder_ffn_dim": 80, "max_position_embeddings": 600,
        "init_std": 0.2, **IDS, "decoder_start_token_id": UNKNOWN, "is_decoder": True,
        "add_cross_attention": True, **said,
    }  # fmt: skip
    decoder = TrOCRForCausalLM(TrOCRConfig(**words))
    return captioner(DeiTModel(DeiTConfig(**seen(num_hidden_layers=3))), decoder)


def gpt2(**said: Any) -> GPT2LMHeadModel:
    words: dict[str, Any] = {
        "vocab_size": VOCABULARY, "n_embd": 96, "n_layer": 3, "n_head": 3, "n_inner": 160,
        "n_positions": 600, "initializer_range": 0.2, **IDS, **said,
    }  # fmt: skip
    torch.manual_seed(15)
    return GPT2LMHeadModel(GPT2Config(**words))


def tiny_vit_gpt2(**overrides: Any) -> Checkpoint:
    """A narrower encoder, widened by a projection."""
    decoder = gpt2(n_layer=2, add_cross_attention=True, is_decoder=True, **overrides)
    return captioner(ViTModel(ViTConfig(**seen(num_hidden_layers=1))), decoder)


def tiny_vit_bert(**overrides: Any) -> Checkpoint:
    """Of its encoder's width, so that no projection stands between them."""
    said: dict[str, Any] = {
        "vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 3, "hidden_act": "relu",
        "num_attention_heads": 2, "intermediate_size": 80, "max_position_embeddings": 600,
        "is_decoder": True, "add_cross_attention": True, "initializer_range": 0.3, **IDS,
        **overrides,
    }  # fmt: skip
    torch.manual_seed(16)
    return captioner(ViTModel(ViTConfig(**seen())), BertLMHeadModel(BertConfig(**said)))


def tiny_gpt2(**overrides: Any) -> Checkpoint:
    return checkpoint_of(stirred(gpt2(scale_attn_by_inverse_layer_idx=True, **overrides)))


CASES = {
    "vit-trocr": Case(family="vision", make=tiny_trocr),
    "deit-trocr-waves": Case(family="vision", make=tiny_trocr_waves),
    "vit-gpt2": Case(family="vision", make=tiny_vit_gpt2),
    "vit-bert": Case(family="vision", make=tiny_vit_bert),
    "gpt2": Case(family="gpt2", make=tiny_gpt2),
}
