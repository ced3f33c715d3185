"""A transformers configuration from GGUF metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from edgegen.errors import CheckpointError

from .base import one_line
from .gguf_layout import sizes_of

# metadata key after the architecture -> configuration key; what comes later wins
KEYS = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.sliding_window": "sliding_window",
    "rope.freq_base": "rope_theta",
    "attention.key_length": "head_dim",
    "vocab_size": "vocab_size",
}
OPTIONAL = ("attention.sliding_window", "attention.key_length", "vocab_size", "rope.freq_base")
IDS = {
    "bos_token_id": "bos_token_id",
    "eos_token_id": "eos_token_id",
    "unknown_token_id": "unk_token_id",
    "padding_token_id": "pad_token_id",
}
MODEL_TYPES = {"gemma3": "gemma3_text"}  # a GGUF holds the text half alone


def config_of(
    path: Path, architecture: str, metadata: Mapping[str, Any], tied: bool
) -> dict[str, Any]:
    """``metadata`` in the words of transformers, the rest from its own defaults.

    Raises ``CheckpointError`` when a size is missing or differs by layer, positions are scaled (the
    file keeps the factors, but not the rule that yields them), or turn a part of each head only
    (llama.cpp refuses that too)."""
    from transformers import AutoConfig

    scaling = metadata.get(f"{architecture}.rope.scaling.type", "none")
    if scaling != "none":
        raise CheckpointError(
            f"{path}: positions are scaled ({scaling!r}), which a GGUF describes only in part;"
            " name the transformers checkpoint instead"
        )
    values = _values(path, architecture, metadata)
    values["tie_word_embeddings"] = tied
    model_type = MODEL_TYPES.get(architecture, architecture)
    try:
        config: Any = AutoConfig.for_model(model_type, **values)
    except Exception as error:  # the classes check sizes each in their own way
        raise CheckpointError(
            f"{path}: transformers makes no {model_type!r} configuration of its metadata"
            f" ({one_line(error)}); fetch the file again"
        ) from None
    found = {**config.to_dict(), "model_type": model_type}
    turned, head = metadata.get(f"{architecture}.rope.dimension_count"), sizes_of(found)["head"]
    if turned not in (None, head):
        raise CheckpointError(
            f"{path}: {architecture}.rope.dimension_count is {turned!r}, expected a head's whole"
            f" width of {head}; name the transformers checkpoint instead"
        )
    return found


def _values(path: Path, architecture: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {"vocab_size": metadata.get("tokenizer.ggml.tokens")}
    faults: list[str] = []
    for key, ours in KEYS.items():
        value = metadata.get(f"{architecture}.{key}")
        if value is None and key in OPTIONAL:
            continue
        if isinstance(value, tuple):  # numbers by layer
            value = _same(path, f"{architecture}.{key}", cast(tuple[object, ...], value))
        if not isinstance(value, (int, float)) or not 0 < value < 1 << 31:
            faults.append(f"{architecture}.{key} is {value!r}")
            continue
        values[ours] = value
    size = values["vocab_size"]
    if not isinstance(size, int):
        faults.append("tokenizer.ggml.tokens is missing")
    for key, ours in IDS.items():
        value = metadata.get(f"tokenizer.ggml.{key}")
        if value is None:
            continue
        if not isinstance(value, int) or not isinstance(size, int) or not 0 <= value < size:
            faults.append(f"tokenizer.ggml.{key} is {value!r} of {size!r}")
        values[ours] = value
    key = f"{architecture}.attention.sliding_window_pattern"
    if key in metadata and "sliding_window" in values and not faults:
        values["layer_types"] = _layer_types(metadata[key], values["num_hidden_layers"])
        if values["layer_types"] is None:
            faults.append(f"{key} is {metadata[key]!r}")
    if faults:
        raise CheckpointError(
            f"{path}: metadata does not fit a model: {', '.join(faults)}; fetch the file again"
        )
    return values


def _layer_types(said: object, layers: int) -> list[str] | None:
    """Which layers see a window: all but every nth, or one by one. None where ``said`` is neither.

    llama.cpp's ``llama_hparams::set_swa_pattern``, and gguf's ``add_sliding_window_pattern``."""
    if type(said) is int and said > 0:
        windowed = [(i + 1) % said > 0 for i in range(layers)]
    elif isinstance(said, tuple) and len(cast(tuple[object, ...], said)) == layers:
        windowed = [bool(one) for one in cast(tuple[object, ...], said)]
    else:
        return None
    return ["sliding_attention" if one else "full_attention" for one in windowed]


def _same(path: Path, key: str, numbers: tuple[object, ...]) -> object:
    """The number of every layer."""
    if len(set(numbers)) > 1:
        raise CheckpointError(
            f"{path}: {key} differs by layer ({', '.join(map(str, numbers[:4]))}...), expected one"
            " number for all; models of unequal layers are not supported"
        )
    return numbers[0] if numbers else None
