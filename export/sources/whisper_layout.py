"""Whisper's parameters: where CTranslate2 keeps each that transformers names.

CTranslate2 fuses the query, key and value projections (key without a bias, stored as zeros);
transformers keeps them apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgegen.errors import CheckpointError

from ..checkpoint import Weight
from .base import check_shapes
from .ctranslate2_file import Variable, weight_of

# (transformers name, CTranslate2 name, which third or half of the rows: (index, parts))
Entry = tuple[str, str, tuple[int, int]]
WHOLE = (0, 1)


def config_of(path: Path, variables: Mapping[str, Variable]) -> dict[str, Any]:
    """WhisperConfig's keys, read off the shapes. Raises ``CheckpointError``."""
    encoder = _shape(path, variables, "encoder/position_encodings/encodings", 2)
    decoder = _shape(path, variables, "decoder/position_encodings/encodings", 2)
    vocabulary = _shape(path, variables, "decoder/embeddings/weight", 2)
    mels = _shape(path, variables, "encoder/conv1/weight", 3)
    return {
        "model_type": "whisper",
        "architectures": ["WhisperForConditionalGeneration"],
        "is_encoder_decoder": True,
        "tie_word_embeddings": True,
        "activation_function": "gelu",
        "scale_embedding": False,
        "vocab_size": vocabulary[0],
        "d_model": vocabulary[1],
        "num_mel_bins": mels[1],
        "max_source_positions": encoder[0],
        "max_target_positions": decoder[0],
        **_side(path, variables, "encoder"),
        **_side(path, variables, "decoder"),
    }


def _side(path: Path, variables: Mapping[str, Variable], side: str) -> dict[str, int]:
    layers = 0
    while f"{side}/layer_{layers}/ffn/linear_0/weight" in variables:
        layers += 1
    width = _shape(path, variables, f"{side}/layer_0/ffn/linear_0/weight", 2)[0]
    return {
        f"{side}_layers": layers,
        f"{side}_ffn_dim": width,
        f"{side}_attention_heads": _heads(path, variables, side),
    }


def _heads(path: Path, variables: Mapping[str, Variable], side: str) -> int:
    name = f"{side}/num_heads"
    heads = variables.get(name)
    width = _shape(path, variables, f"{side}/position_encodings/encodings", 2)[1]
    count = int(heads.array().reshape(-1)[0].item()) if heads and not heads.shape else 0
    if count < 1 or width % count:
        raise CheckpointError(
            f"{path}: {name} is {count} for a width of {width}, expected a divisor;"
            " convert the model again"
        )
    return count


def _shape(path: Path, variables: Mapping[str, Variable], name: str, rank: int) -> tuple[int, ...]:
    variable = variables.get(name)
    if variable is None or len(variable.shape) != rank:
        got = "nothing" if variable is None else f"{len(variable.shape)}"
        raise CheckpointError(
            f"{path}: model.bin should hold {name} with {rank} axes, got {got};"
            " the file is damaged, fetch it again"
        )
    return variable.shape


def weights_of(
    path: Path, variables: Mapping[str, Variable], config: Mapping[str, Any]
) -> dict[str, Weight]:
    """All parameters of ``WhisperForConditionalGeneration`` but the tied ``proj_out``.

    Raises ``CheckpointError`` when one is missing or its shape does not fit the rest."""
    weights: dict[str, Weight] = {}
    for name, stored, (index, parts) in _entries(config):
        variable = variables.get(stored)
        if variable is None or not variable.shape or variable.shape[0] % parts:
            continue  # check_shapes names it with all other faults
        size = variable.shape[0] // parts
        rows = slice(index * size, (index + 1) * size)
        weights[name] = weight_of(variable, variables.get(f"{stored}_scale"), rows, path)
    check_shapes(path, weights, dict(_shapes(config)))
    return weights


def _entries(config: Mapping[str, Any]) -> Iterator[Entry]:
    yield "model.decoder.embed_tokens.weight", "decoder/embeddings/weight", WHOLE
    for side in ("encoder", "decoder"):
        positions = f"{side}/position_encodings/encodings"
        yield f"model.{side}.embed_positions.weight", positions, WHOLE
        yield from _norm(f"model.{side}.layer_norm", f"{side}/layer_norm")
        for i in range(config[f"{side}_layers"]):
            yield from _layer(f"model.{side}.layers.{i}", f"{side}/layer_{i}", side)
    for conv in ("conv1", "conv2"):
        yield from _linear(f"model.encoder.{conv}", f"encoder/{conv}", WHOLE)


def _layer(name: str, stored: str, side: str) -> Iterator[Entry]:
    yield from _norm(f"{name}.self_attn_layer_norm", f"{stored}/self_attention/layer_norm")
    fused, out = f"{stored}/self_attention/linear_0", f"{stored}/self_attention/linear_1"
    yield from _linear(f"{name}.self_attn.q_proj", fused, (0, 3))
    yield f"{name}.self_attn.k_proj.weight", f"{fused}/weight", (1, 3)
    yield from _linear(f"{name}.self_attn.v_proj", fused, (2, 3))
    yield from _linear(f"{name}.self_attn.out_proj", out, WHOLE)
    if side == "decoder":
        cross = f"{stored}/attention"
        yield from _norm(f"{name}.encoder_attn_layer_norm", f"{cross}/layer_norm")
        yield from _linear(f"{name}.encoder_attn.q_proj", f"{cross}/linear_0", WHOLE)
        yield f"{name}.encoder_attn.k_proj.weight", f"{cross}/linear_1/weight", (0, 2)
        yield from _linear(f"{name}.encoder_attn.v_proj", f"{cross}/linear_1", (1, 2))
        yield from _linear(f"{name}.encoder_attn.out_proj", f"{cross}/linear_2", WHOLE)
    yield from _norm(f"{name}.final_layer_norm", f"{stored}/ffn/layer_norm")
    yield from _linear(f"{name}.fc1", f"{stored}/ffn/linear_0", WHOLE)
    yield from _linear(f"{name}.fc2", f"{stored}/ffn/linear_1", WHOLE)


def _linear(name: str, stored: str, part: tuple[int, int]) -> Iterator[Entry]:
    yield f"{name}.weight", f"{stored}/weight", part
    yield f"{name}.bias", f"{stored}/bias", part


def _norm(name: str, stored: str) -> Iterator[Entry]:
    yield f"{name}.weight", f"{stored}/gamma", WHOLE
    yield f"{name}.bias", f"{stored}/beta", WHOLE


def _shapes(config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """What each parameter's shape must be, by its name alone."""
    width = config["d_model"]
    special = {
        "model.decoder.embed_tokens.weight": (config["vocab_size"], width),
        "model.encoder.embed_positions.weight": (config["max_source_positions"], width),
        "model.decoder.embed_positions.weight": (config["max_target_positions"], width),
        "model.encoder.conv1.weight": (width, config["num_mel_bins"], 3),
        "model.encoder.conv2.weight": (width, width, 3),
    }
    for name, _, _ in _entries(config):
        inner = config[f"{name.split('.')[1]}_ffn_dim"]
        if name in special:
            yield name, special[name]
        elif ".fc1." in name:
            yield name, (inner, width) if name.endswith("weight") else (inner,)
        elif ".fc2." in name and name.endswith("weight"):
            yield name, (width, inner)
        elif "_proj.weight" in name:
            yield name, (width, width)
        else:
            yield name, (width,)
