"""CTranslate2's model.bin: named variables, some quantised.

The layout follows CTranslate2's own writer (python/ctranslate2/specs/model_spec.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from edgegen.errors import CheckpointError

from ..checkpoint import Array, Blocks, Weight
from .base import Cursor

VERSION = 6
RANKS = 8  # no tensor of any specification has more axes; a hostile file might say 255
DTYPES: dict[int, type] = {
    0: np.float32,
    1: np.int8,
    2: np.int16,
    3: np.int32,
    4: np.float16,
    5: ml_dtypes.bfloat16,
}


@dataclass(frozen=True, kw_only=True)
class Variable:
    """One named tensor of model.bin, its bytes still in the file."""

    name: str
    shape: tuple[int, ...]
    dtype: type
    data: memoryview

    def array(self) -> NDArray[np.generic]:
        """The numbers as stored."""
        return np.frombuffer(self.data, dtype=np.dtype(self.dtype)).reshape(self.shape)


def read_model(path: Path, data: memoryview) -> tuple[str, dict[str, Variable]]:
    """The specification's name and all variables of a version 6 file, aliases resolved.

    Raises ``CheckpointError`` on any other version and on lengths the file cannot hold."""
    cursor = Cursor(path, data)
    version = cursor.number("I", "the version")
    if version != VERSION:
        raise CheckpointError(
            f"{path}: binary version {version}, expected {VERSION}; convert the model again"
            " with ctranslate2 3 or newer"
        )
    spec = cursor.text(cursor.number("H", "a name length"), "the specification's name")
    cursor.number("I", "the revision")
    variables: dict[str, Variable] = {}
    for _ in range(cursor.number("I", "the number of variables")):
        variable = _read_variable(cursor)
        if variable.name in variables:
            raise cursor.fault(f"variable {variable.name!r} comes twice")
        variables[variable.name] = variable
    for _ in range(cursor.number("I", "the number of aliases")):
        alias = cursor.text(cursor.number("H", "a name length"), "an alias")
        name = cursor.text(cursor.number("H", "a name length"), "an alias's variable")
        if name not in variables:
            raise cursor.fault(f"alias {alias!r} names {name!r}, which is not there")
        variables.setdefault(alias, variables[name])
    if cursor.left:
        raise cursor.fault(f"{cursor.left} bytes follow the end")
    return spec, variables


def _read_variable(cursor: Cursor) -> Variable:
    name = cursor.text(cursor.number("H", "a name length"), "a variable's name")
    rank = cursor.number("B", f"{name!r}'s rank")
    if rank > RANKS:
        raise cursor.fault(f"{name!r} has {rank} axes")
    shape = cursor.numbers("I", rank, f"{name!r}'s shape")
    kind = cursor.number("B", f"{name!r}'s type")
    size = cursor.number("I", f"{name!r}'s length")
    if kind not in DTYPES:
        raise cursor.fault(f"{name!r} has number type {kind}, known are {sorted(DTYPES)}")
    dtype = DTYPES[kind]
    if prod(shape) * np.dtype(dtype).itemsize != size:
        raise cursor.fault(f"{name!r} is {list(shape)} {np.dtype(dtype).name} in {size} bytes")
    return Variable(name=name, shape=shape, dtype=dtype, data=cursor.take(size, f"{name!r}"))


def weight_of(variable: Variable, scale: Variable | None, rows: slice, path: Path) -> Weight:
    """``rows`` of a variable as a weight; ``scale`` is its companion when it is quantised.

    CTranslate2 stores ``round(value * scale)``: one scale a row (int8) or one in all (int16)."""
    shape = (len(range(*rows.indices(variable.shape[0]))), *variable.shape[1:])
    name = np.dtype(variable.dtype).name
    if scale is None:
        if variable.dtype not in (np.float32, np.float16, ml_dtypes.bfloat16):
            raise CheckpointError(
                f"{path}: {variable.name} is {name} without a scale; fetch the file again"
            )
        return Weight(shape, partial(_floats, variable, rows), origin=name)
    if scale.dtype is not np.float32 or scale.shape not in ((), (1,), (variable.shape[0],)):
        raise CheckpointError(
            f"{path}: {scale.name} is {list(scale.shape)}, expected one float32 scale a row of"
            f" {variable.name}; fetch the file again"
        )
    values = scale.array().astype(np.float32)
    if not np.all((values > 1e-30) & np.isfinite(values)):
        raise CheckpointError(
            f"{path}: {scale.name} holds scales that are not positive numbers; fetch the file again"
        )
    if variable.dtype is np.int8 and len(variable.shape) == 2:
        blocks = partial(_int8, variable, scale, rows)
        return Weight.coded(shape, blocks, name)
    return Weight(shape, partial(_scaled, variable, scale, rows), origin=name)


def _floats(variable: Variable, rows: slice) -> Array:
    return np.array(variable.array()[rows], dtype=np.float32)


def _scaled(variable: Variable, scale: Variable, rows: slice) -> Array:
    spread = _row_scales(variable, scale, rows)
    return _floats(variable, rows) * spread.reshape(-1, *([1] * (len(variable.shape) - 1)))


def _row_scales(variable: Variable, scale: Variable, rows: slice) -> Array:
    values = np.broadcast_to(scale.array().reshape(-1), (variable.shape[0],))
    return np.ascontiguousarray(np.float32(1) / values[rows].astype(np.float32))


def _int8(variable: Variable, scale: Variable, rows: slice) -> Blocks:
    stored = np.ascontiguousarray(variable.array()[rows]).view(np.uint8)
    scales = _row_scales(variable, scale, rows)[:, None]
    return Blocks(
        codes=stored ^ np.uint8(128),  # int8 to the same value above a zero point of 128
        scales=scales,
        zeros=np.full(scales.shape, 128, np.uint8),
        block=stored.shape[1],
        bits=8,
        origin="ctranslate2 int8",
    )
