"""Tiny checkpoints as transformers folders, changed as published ones are, and exported."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tiny_words import tokenizer

from edgegen.export.build import export
from edgegen.export.checkpoint import Checkpoint, TokenizerFiles
from edgegen.export.options import ExportOptions
from edgegen.manifest import Manifest

PROMPTS = ("ban dun fist gor kan bu lon", "mist de")
Renaming = Callable[[str], str]


def write_folder(
    folder: Path,
    checkpoint: Checkpoint,
    *,
    config: Mapping[str, Any] | None = None,
    without: Sequence[str] = (),
    generation: Mapping[str, Any] | None = None,
    weights: Mapping[str, torch.Tensor] | None = None,
    renamed: Renaming = str,
    words: TokenizerFiles | None = None,
) -> Path:
    """``config`` and ``weights`` are added, keys ``without`` left out of config.json."""
    folder.mkdir()
    said = {**checkpoint.config, **(config or {})}
    kept = {key: value for key, value in said.items() if key not in without}
    (folder / "config.json").write_text(json.dumps(kept, default=str))
    rules = checkpoint.generation if generation is None else generation
    if rules:
        (folder / "generation_config.json").write_text(json.dumps(dict(rules)))
    if checkpoint.preprocessor:
        told = json.dumps(dict(checkpoint.preprocessor))
        (folder / "preprocessor_config.json").write_text(told)
    state = {
        renamed(name): torch.from_numpy(weight.read().copy())
        for name, weight in checkpoint.weights.items()
    }
    save_file({**state, **(weights or {})}, folder / "model.safetensors", {"format": "pt"})
    (folder / "tokenizer.json").write_bytes((words or tokenizer(end=True)).data)
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


def exported(folder: Path, prompts: tuple[str, ...] = PROMPTS, **asked: Any) -> Manifest:
    """The bundle's manifest; it lies beside the folder, named ``<folder>.bundle``."""
    options = ExportOptions(
        model=str(folder), output=bundle_of(folder), parity_prompts=prompts, **asked
    )
    return export(options)


def bundle_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.bundle")
