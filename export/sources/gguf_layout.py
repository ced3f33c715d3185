"""Which transformers parameter each GGUF tensor is, and what llama.cpp's converter did to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# llama.cpp's name in a block -> (transformers' name in a layer, shape in the sizes of `sizes_of`)
Names = Mapping[str, tuple[str, tuple[str, ...]]]

BLOCK: Names = {
    "attn_q.weight": ("self_attn.q_proj.weight", ("query", "width")),
    "attn_k.weight": ("self_attn.k_proj.weight", ("key", "width")),
    "attn_v.weight": ("self_attn.v_proj.weight", ("key", "width")),
    "attn_output.weight": ("self_attn.o_proj.weight", ("width", "query")),
    "ffn_gate.weight": ("mlp.gate_proj.weight", ("inner", "width")),
    "ffn_up.weight": ("mlp.up_proj.weight", ("inner", "width")),
    "ffn_down.weight": ("mlp.down_proj.weight", ("width", "inner")),
    "attn_norm.weight": ("input_layernorm.weight", ("width",)),
}
PRE_NORM: Names = {"ffn_norm.weight": ("post_attention_layernorm.weight", ("width",))}
SANDWICH_NORM: Names = {
    "post_attention_norm.weight": ("post_attention_layernorm.weight", ("width",)),
    "ffn_norm.weight": ("pre_feedforward_layernorm.weight", ("width",)),
    "post_ffw_norm.weight": ("post_feedforward_layernorm.weight", ("width",)),
}
HEAD_NORM: Names = {
    "attn_q_norm.weight": ("self_attn.q_norm.weight", ("head",)),
    "attn_k_norm.weight": ("self_attn.k_norm.weight", ("head",)),
}
BIASES: Names = {
    "attn_q.bias": ("self_attn.q_proj.bias", ("query",)),
    "attn_k.bias": ("self_attn.k_proj.bias", ("key",)),
    "attn_v.bias": ("self_attn.v_proj.bias", ("key",)),
}
OUTER: Names = {
    "token_embd.weight": ("model.embed_tokens.weight", ("vocabulary", "width")),
    "output_norm.weight": ("model.norm.weight", ("width",)),
}
HEAD: Names = {"output.weight": ("lm_head.weight", ("vocabulary", "width"))}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One architecture of GGUF (its ``general.architecture``)."""

    block: Names = field(default_factory=dict[str, tuple[str, tuple[str, ...]]])
    interleaved: bool = False  # rows of q and k heads: pairs side by side, not in halves
    norm_offset: float = 0.0  # what the converter added to norm weights


LAYOUTS: dict[str, Layout] = {
    "llama": Layout(block={**BLOCK, **PRE_NORM}, interleaved=True),
    "qwen2": Layout(block={**BLOCK, **PRE_NORM, **BIASES}),
    "qwen3": Layout(block={**BLOCK, **PRE_NORM, **HEAD_NORM}),
    "gemma2": Layout(block={**BLOCK, **SANDWICH_NORM}, norm_offset=1.0),
    "gemma3": Layout(block={**BLOCK, **SANDWICH_NORM, **HEAD_NORM}, norm_offset=1.0),
}


def sizes_of(config: Mapping[str, Any]) -> dict[str, int]:
    """The sizes that shapes are made of, from a transformers config."""
    heads = int(config["num_attention_heads"])
    head = int(config.get("head_dim") or config["hidden_size"] // heads)
    return {
        "width": int(config["hidden_size"]),
        "inner": int(config["intermediate_size"]),
        "head": head,
        "query": heads * head,
        "key": int(config["num_key_value_heads"]) * head,
        "vocabulary": int(config["vocab_size"]),
    }


def parameters_of(
    layout: Layout, config: Mapping[str, Any]
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """GGUF tensor name -> transformers parameter and its shape, for every tensor of the model."""
    sizes = sizes_of(config)
    outer = OUTER if config.get("tie_word_embeddings") else {**OUTER, **HEAD}
    table = {name: (ours, _shape(dims, sizes)) for name, (ours, dims) in outer.items()}
    for i in range(int(config["num_hidden_layers"])):
        for name, (ours, dims) in layout.block.items():
            table[f"blk.{i}.{name}"] = (f"model.layers.{i}.{ours}", _shape(dims, sizes))
    return table


def _shape(dims: tuple[str, ...], sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(sizes[name] for name in dims)
