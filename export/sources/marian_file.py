"""Marian's binary model file: named tensors, some of them intgemm's 8-bit matrices.

The layout follows marian-dev's src/common/binary.cpp: a header of counts, all names, all shapes,
padding, then the data in the order of the headers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgegen.errors import CheckpointError

from ..checkpoint import Array, Blocks, Weight
from .base import Cursor

VERSION = 1
AXES = 4  # marian's shapes have at most four
CHARACTERS, FLOAT32, INTGEMM8 = 0x101, 0x404, 0x4101
TYPES = {CHARACTERS: "int8", FLOAT32: "float32", INTGEMM8: "intgemm8"}
NOT_TRANSPOSED = "Wemb"  # the embedding is looked up by rows, so intgemm leaves its order alone


@dataclass(frozen=True, kw_only=True)
class Item:
    """One tensor of the file, its bytes still in the file."""

    name: str
    kind: int
    shape: tuple[int, ...]
    data: memoryview


def read_items(path: Path, data: memoryview) -> dict[str, Item]:
    """All tensors by name. Raises ``CheckpointError`` on other versions and impossible lengths."""
    cursor = Cursor(path, data)
    version = cursor.number("Q", "the version")
    if version != VERSION:
        raise CheckpointError(
            f"{path}: Marian binary version {version}, expected {VERSION};"
            " convert the model with marian-conv of Marian 1.9 or newer"
        )
    count = cursor.number("Q", "the number of tensors")
    headers = [cursor.numbers("Q", 4, f"header {i}") for i in range(_sane(cursor, count))]
    names = [cursor.text(header[0], f"name {i}") for i, header in enumerate(headers)]
    if len(set(names)) != len(names):
        raise cursor.fault("two tensors have one name")
    shapes = [_shape(cursor, name, header[2]) for name, header in zip(names, headers, strict=True)]
    cursor.take(cursor.number("Q", "the padding's length"), "the padding")
    items: dict[str, Item] = {}
    for name, shape, (_, kind, _, length) in zip(names, shapes, headers, strict=True):
        if kind not in TYPES:
            known = ", ".join(f"{key:#x} {value}" for key, value in TYPES.items())
            raise cursor.fault(f"{name!r} has number type {kind:#x}, known are {known}")
        needed = _bytes_needed(kind, prod(shape))
        if length < needed:
            raise cursor.fault(f"{name!r} {list(shape)} needs {needed} bytes, has {length}")
        stored = cursor.take(length, repr(name))
        items[name] = Item(name=name, kind=kind, shape=shape, data=stored)
    if cursor.left:
        raise cursor.fault(f"{cursor.left} bytes follow the end")
    return items


def _sane(cursor: Cursor, count: int) -> int:
    """A count of 32-byte headers, if that many fit."""
    if count * 32 > cursor.left:
        raise cursor.fault(f"{count} tensors are announced")
    return count


def _shape(cursor: Cursor, name: str, axes: int) -> tuple[int, ...]:
    if not 1 <= axes <= AXES:
        raise cursor.fault(f"{name!r} has {axes} axes, expected 1 to {AXES}")
    shape = cursor.numbers("i", axes, f"{name!r}'s shape")
    if min(shape) < 1:
        raise cursor.fault(f"{name!r} has the shape {list(shape)}")
    return shape


def _bytes_needed(kind: int, numbers: int) -> int:
    if kind == FLOAT32:
        return 4 * numbers
    return numbers + 4 if kind == INTGEMM8 else numbers


def weight_of(item: Item) -> Weight:
    """A matrix as ``[out, in]``, a row vector as ``[n]``.

    ``decoder_ff_logit_out_b`` and the norms are stored ``[1, n]``; matrices ``[in, out]`` by their
    shape, of which intgemm's are transposed in memory already."""
    if item.kind == INTGEMM8:
        blocks = partial(_blocks, item)
        shape = item.shape if item.name == NOT_TRANSPOSED else item.shape[::-1]
        return Weight.coded(shape, blocks, "intgemm8")
    if item.shape[0] == 1:
        return Weight((prod(item.shape),), partial(_vector, item))
    turned = item.name != NOT_TRANSPOSED
    shape = item.shape[::-1] if turned else item.shape
    return Weight(shape, partial(_matrix, item, turned))


def _vector(item: Item) -> Array:
    return np.frombuffer(item.data, np.float32, prod(item.shape)).copy()


def _matrix(item: Item, turned: bool) -> Array:
    stored = np.frombuffer(item.data, np.float32, prod(item.shape)).reshape(item.shape)
    return np.array(stored.T if turned else stored, order="C")


def _blocks(item: Item) -> Blocks:
    """value = q / multiplier, one multiplier for the matrix, stored right after its int8 values."""
    rows, columns = item.shape if item.name == NOT_TRANSPOSED else item.shape[::-1]
    count = rows * columns
    codes: NDArray[np.uint8] = np.frombuffer(item.data, np.uint8, count).reshape(rows, columns)
    multiplier = np.frombuffer(item.data[count : count + 4], np.float32)[0]
    return Blocks(
        codes=codes ^ np.uint8(128),  # int8 to the same value above a zero point of 128
        scales=np.full((rows, 1), np.float32(1) / multiplier, np.float32),
        zeros=np.full((rows, 1), 128, np.uint8),
        block=columns,
        bits=8,
        origin="intgemm8",
    )


def multiplier_of(item: Item) -> float:
    """The number that intgemm's int8 values were multiplied by before rounding."""
    count = prod(item.shape)
    return float(np.frombuffer(item.data[count : count + 4], np.float32)[0])
