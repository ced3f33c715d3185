"""Weights in safetensors or pytorch_model.bin files, whole or in shards, read when asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from zipfile import is_zipfile

from edgegen.errors import CheckpointError

from ..checkpoint import Array, Weight
from .base import one_line, read_json

if TYPE_CHECKING:
    import torch

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
WHOLE = ("model.safetensors", "pytorch_model.bin")
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights; empty when the folder has none.

    Safetensors come before pickles, whole files before shards. Shards that the index names but the
    folder lacks are listed too: reading them says so. Raises ``CheckpointError``."""
    for whole, index in zip(WHOLE, INDEXES, strict=True):
        if (folder / whole).is_file():
            return [folder / whole]
        if (folder / index).is_file():
            return _shards(folder / index)
    loose = sorted(folder.glob("*.safetensors"))
    return loose[:1] if len(loose) == 1 else []


def weights_of(folder: Path) -> tuple[dict[str, Weight], tuple[str, ...]]:
    """All float tensors of a folder by name, and notes on what was left out."""
    files = weight_files(folder)
    if not files:
        raise CheckpointError(
            f"{folder}: no weights, expected {' or '.join(WHOLE)} or their shards with an index;"
            " save the model with save_pretrained"
        )
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(
            f"{folder}: shards are missing: {', '.join(missing)}; copy the whole folder"
        )
    weights: dict[str, Weight] = {}
    skipped: list[str] = []
    for file in files:
        reader = _safetensors if file.suffix == ".safetensors" else _pickle
        reader(file, weights, skipped)
    if not weights:
        raise CheckpointError(f"{folder}: the weight files hold no float tensor; copy them again")
    notes = (f"left out, not floats: {', '.join(sorted(skipped))}",) if skipped else ()
    return weights, notes


def _shards(index: Path) -> list[Path]:
    table = read_json(index).get("weight_map")
    values = list(cast(dict[str, object], table).values()) if isinstance(table, dict) else []
    names = {value for value in values if isinstance(value, str)}
    if not names or len(names) != len(set(map(str, values))):
        raise CheckpointError(f"{index}: no weight_map of file names; copy the folder again")
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise CheckpointError(f"{index}: shard {outside[0]!r} lies outside the folder; refused")
    return [index.parent / name for name in sorted(names)]


def _safetensors(path: Path, weights: dict[str, Weight], skipped: list[str]) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        handle: Any = safe_open(path, framework="pt")
        names = cast(list[str], list(handle.keys()))
        slices = {name: handle.get_slice(name) for name in names}
        shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
        kinds = {name: str(part.get_dtype()) for name, part in slices.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not a whole safetensors file ({one_line(error)}); fetch it again"
        ) from None
    for name in names:
        if kinds[name] not in DTYPES:
            skipped.append(name)
            continue

        def read(name: str = name) -> Array:
            return _float32(handle.get_tensor(name))

        weights[name] = Weight(shapes[name], read, origin=DTYPES[kinds[name]])


def _pickle(path: Path, weights: dict[str, Weight], skipped: list[str]) -> None:
    import torch

    try:
        # Before torch 1.6 weights were no archive, and only an archive can be mapped.
        archive = is_zipfile(path)
        # weights_only: a pickle may carry code, this loader runs none of it.
        state: object = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except Exception as error:  # the unpickler raises whatever the bytes lead it to
        raise CheckpointError(
            f"{path}: torch cannot read it as plain weights ({one_line(error)});"
            " save the model as safetensors"
        ) from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: expected named tensors; save the model as safetensors")
    for name, tensor in cast(dict[str, Any], state).items():
        if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
            skipped.append(str(name))
            continue

        def read(tensor: torch.Tensor = tensor) -> Array:
            return _float32(tensor)

        weights[name] = Weight(
            tuple(tensor.shape), read, origin=str(tensor.dtype).removeprefix("torch.")
        )


def _float32(tensor: torch.Tensor) -> Array:
    # A copy: the caller may change it, and the mapped file must not be held by an array.
    array: Array = tensor.detach().float().contiguous().numpy()
    return array.copy()
