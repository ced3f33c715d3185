"""A checkpoint as a transformers folder: config.json, safetensors in shards, tokenizer."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from .checkpoint import Checkpoint, Weight
from .sources.base import one_line
from .sources.tokenizer_folder import BYTES

Dtype = Literal["bf16", "fp32"]
DTYPES: Mapping[Dtype, torch.dtype] = {"bf16": torch.bfloat16, "fp32": torch.float32}
SHARD_BYTES = 2 << 30


def write_folder(checkpoint: Checkpoint, folder: Path, dtype: Dtype, card: str) -> None:
    """Write what ``from_pretrained`` and the local source read. ``card`` is the README's text
    behind the licence. One shard is in memory at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    name = str(DTYPES[dtype]).removeprefix("torch.")
    write_json(folder / "config.json", {**checkpoint.config, "dtype": name})
    write_json(folder / "generation_config.json", checkpoint.generation)
    files = checkpoint.tokenizers.get("source")
    if files is not None:
        fast = files.kind == "tokenizers"
        if fast:
            (folder / "tokenizer.json").write_bytes(files.data)
        # ByT5's bytes need no file, only their name.
        kind = "PreTrainedTokenizerFast" if fast else BYTES
        said = {"tokenizer_class": kind, **checkpoint.tokenizer_config}
        write_json(folder / "tokenizer_config.json", said)
    head = f"---\nlicense: {checkpoint.origin.licence}\n---\n\n"
    (folder / "README.md").write_text(head + card, encoding="utf-8")
    write_weights(checkpoint.weights, folder, DTYPES[dtype])


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(dict(value), indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_weights(weights: Mapping[str, Weight], folder: Path, dtype: torch.dtype) -> None:
    """Safetensors and, of several, their index. Raises ``OSError`` where they cannot be written."""
    parts = list(shards(weights, dtype.itemsize))
    table: dict[str, str] = {}
    for i, names in enumerate(parts, 1):
        whole = len(parts) == 1
        file = "model.safetensors" if whole else f"model-{i:05d}-of-{len(parts):05d}.safetensors"
        # Copies: a file may not hold one tensor under two names.
        arrays = ((name, weights[name].read()) for name in names)
        tensors = {name: torch.from_numpy(array).to(dtype, copy=True) for name, array in arrays}
        try:
            save_file(tensors, folder / file, metadata={"format": "pt"})
        except SafetensorError as error:  # its own, whatever the disk said
            raise OSError(None, one_line(error), file) from None
        table |= dict.fromkeys(names, file)
    if len(parts) > 1:
        size = sum(math.prod(weight.shape) for weight in weights.values()) * dtype.itemsize
        index = {"metadata": {"total_size": size}, "weight_map": table}
        write_json(folder / "model.safetensors.index.json", index)


def shards(weights: Mapping[str, Weight], width: int) -> Iterator[Sequence[str]]:
    """Names in groups of at most ``SHARD_BYTES``, or of one."""
    names: list[str] = []
    held = 0
    for name, weight in weights.items():
        size = math.prod(weight.shape) * width
        if names and held + size > SHARD_BYTES:
            yield names
            names, held = [], 0
        names.append(name)
        held += size
    yield names
