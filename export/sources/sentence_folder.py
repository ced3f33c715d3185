"""What a sentence-transformers folder adds to a checkpoint: how one vector is made of a text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from edgegen.errors import CheckpointError

from ..checkpoint import Pooling
from .base import one_line, read_json

# Flags of a Pooling module's config.json, and the one word newer versions write.
MODES: Mapping[str, Literal["cls", "mean", "max"]] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
}
STEPS = ("Transformer", "Pooling", "Normalize")


def pooling_of(folder: Path) -> Pooling | None:
    """What ``modules.json`` and the folders it names say; None where there is none.

    Raises ``CheckpointError`` for steps and ways of pooling that are not known here.
    """
    if not (folder / "modules.json").is_file():
        return None
    modules = read_modules(folder / "modules.json")
    steps = {str(module.get("type", "")).rpartition(".")[2]: module for module in modules}
    if other := [name for name in steps if name not in STEPS]:
        raise CheckpointError(
            f"{folder}: the step {other[0]!r} of modules.json is not supported; "
            f"known: {', '.join(STEPS)}."
        )
    if "Pooling" not in steps:
        raise CheckpointError(f"{folder}: modules.json has no Pooling, expected one.")
    said = read_json(folder / str(steps["Pooling"].get("path", "")) / "config.json")
    return Pooling(
        how=mode_of(folder, said), unit="Normalize" in steps, max_tokens=most_tokens(folder)
    )


def most_tokens(folder: Path) -> int:
    """The longest text in tokens, 0 where nothing says it."""
    path = folder / "sentence_bert_config.json"
    most = read_json(path).get("max_seq_length") if path.is_file() else None
    if most is None:
        return 0
    if type(most) is not int or most < 0:
        raise CheckpointError(
            f"{path}: max_seq_length is {most!r}, expected a whole number; fetch the file again"
        )
    return most


def read_modules(path: Path) -> list[dict[str, Any]]:
    try:
        found: Any = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({one_line(error)}); fetch it again") from None
    modules: list[Any] = found if isinstance(found, list) else []
    if not modules or not all(isinstance(module, dict) for module in modules):
        raise CheckpointError(f"{path}: expected a list of modules; fetch it again")
    return modules


def mode_of(folder: Path, said: Mapping[str, Any]) -> Literal["cls", "mean", "max"]:
    on = [key for key, value in said.items() if key.startswith("pooling_mode_") and value is True]
    if not on and isinstance(said.get("pooling_mode"), str):
        word = str(said["pooling_mode"])
        on = [key for key, mode in MODES.items() if mode == word] or [word]
    if len(on) != 1 or on[0] not in MODES:
        raise CheckpointError(
            f"{folder}: pooling by {' and '.join(on) or 'nothing'} is not supported; "
            f"known: {', '.join(MODES.values())}, one of them."
        )
    return MODES[on[0]]
