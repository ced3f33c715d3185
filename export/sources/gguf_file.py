"""GGUF's container: metadata, and where each tensor lies in the file.

The layout follows ggml's docs/gguf.md. Read here and not with the gguf package's reader because
that one checks no length and makes an object of every piece of the vocabulary, which takes many
seconds; its tables of number formats are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.errors import CheckpointError

from ..checkpoint import Array
from .base import Cursor

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32
AXES = 4
NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9
PLAIN = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
# What the gguf package leaves to numpy.
NUMPY = {"F64": "<f8", "I8": "<i1", "I16": "<i2", "I32": "<i4", "I64": "<i8"}
# No model has more layers: a longer list is a vocabulary's.
MOST_LAYERS = 1024


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One tensor, its bytes still in the file. ``shape`` is numpy's, slowest axis first."""

    name: str
    kind: str  # ggml's name of the number format: "F32", "Q4_1"
    shape: tuple[int, ...]
    data: memoryview

    @property
    def origin(self) -> str:
        return PLAIN.get(self.kind, self.kind)

    def packed(self) -> NDArray[np.uint8]:
        """``uint8 [rows, bytes of a row]``."""
        return np.frombuffer(self.data, np.uint8).reshape(prod(self.shape[:-1]), -1)

    def values(self) -> Array:
        """The numbers, those of blocks by the gguf package's own arithmetic."""
        packed = self.packed()
        numbers = packed.view(NUMPY[self.kind]) if self.kind in NUMPY else _numbers(packed, self)
        return np.array(numbers, np.float32).reshape(self.shape)


@dataclass(frozen=True, kw_only=True)
class GgufFile:
    """What a GGUF file holds. In ``metadata`` a list is a tuple where it may be numbers by layer,
    and its length where it is a vocabulary's."""

    metadata: dict[str, Any]
    tensors: list[Tensor]


def read_gguf(path: Path, data: memoryview) -> GgufFile:
    """Raises ``CheckpointError`` on other versions and on lengths the file cannot hold."""
    cursor = Cursor(path, data)
    magic = bytes(cursor.take(4, "the magic"))
    if magic != MAGIC:
        raise CheckpointError(
            f"{path}: starts with {magic!r}, expected {MAGIC!r}; it is no GGUF, fetch it again"
        )
    version = cursor.number("I", "the version")
    if version not in VERSIONS:
        raise CheckpointError(
            f"{path}: GGUF version {version}, expected 2 or 3 in little-endian order;"
            " convert the model again with llama.cpp"
        )
    count = cursor.number("Q", "the number of tensors")
    metadata: dict[str, Any] = {}
    for _ in range(cursor.number("Q", "the number of metadata entries")):
        key = _string(cursor, "a metadata key")
        metadata[key] = _value(cursor, cursor.number("I", f"{key!r}'s type"), key)
    infos = [_info(cursor) for _ in range(count if count * 24 <= cursor.left else _refuse(cursor))]
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if type(alignment) is not int or not 0 < alignment <= 1 << 16:
        raise cursor.fault(f"general.alignment is {alignment!r}")
    start = -(-cursor.at // alignment) * alignment
    tensors = [_tensor(cursor, start, *info) for info in infos]
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise cursor.fault("two tensors have one name")
    _refuse_unreadable(path, tensors)
    return GgufFile(metadata=metadata, tensors=tensors)


def _refuse(cursor: Cursor) -> int:
    raise cursor.fault("more tensors are announced than the file can describe")


def _string(cursor: Cursor, what: str) -> str:
    raw = cursor.take(cursor.number("Q", f"{what}'s length"), what)
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError:
        raise cursor.fault(f"{what} is not UTF-8") from None


def _value(cursor: Cursor, kind: int, key: str) -> Any:
    if kind in NUMBERS:
        return cursor.number(NUMBERS[kind], repr(key))
    if kind == STRING:
        return _string(cursor, repr(key))
    if kind != ARRAY:
        raise cursor.fault(f"{key!r} has value type {kind}, known are 0 to 12")
    inner = cursor.number("I", f"{key!r}'s element type")
    count = cursor.number("Q", f"{key!r}'s length")
    if inner in SIZES and count <= MOST_LAYERS and not key.startswith("tokenizer."):
        return cursor.numbers(NUMBERS[inner], count, repr(key))
    if inner in SIZES:
        cursor.take(count * SIZES[inner], repr(key))
    elif inner == STRING:
        for _ in range(count):
            cursor.take(cursor.number("Q", f"a length in {key!r}"), f"a string in {key!r}")
    else:
        raise cursor.fault(f"{key!r} is a list of value type {inner}")
    return count


def _info(cursor: Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name = _string(cursor, "a tensor's name")
    axes = cursor.number("I", f"{name!r}'s number of axes")
    if not 1 <= axes <= AXES:
        raise cursor.fault(f"{name!r} has {axes} axes, expected 1 to {AXES}")
    shape = cursor.numbers("Q", axes, f"{name!r}'s shape")
    kind, offset = cursor.number("I", f"{name!r}'s type"), cursor.number("Q", f"{name!r}'s offset")
    return name, shape[::-1], kind, offset


def _tensor(
    cursor: Cursor, start: int, name: str, shape: tuple[int, ...], kind: int, offset: int
) -> Tensor:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    known = {int(entry): entry for entry in GGML_QUANT_SIZES}
    if kind not in known:
        raise cursor.fault(f"{name!r} has number type {kind}, which the gguf package does not know")
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    if min(shape) < 1 or shape[-1] % block:
        raise cursor.fault(f"{name!r} is {list(shape)}, expected rows of whole blocks of {block}")
    cursor.at = min(start + offset, len(cursor.data))
    data = cursor.take(prod(shape) // block * size, repr(name))
    return Tensor(name=name, kind=known[kind].name, shape=shape, data=data)


def _numbers(packed: NDArray[np.uint8], tensor: Tensor) -> NDArray[Any]:
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    return dequantize(packed, GGMLQuantizationType[tensor.kind])


def _refuse_unreadable(path: Path, tensors: list[Tensor]) -> None:
    """The package knows sizes of more number formats than it has arithmetic for."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    for tensor in {tensor.kind: tensor for tensor in tensors}.values():
        if tensor.kind in NUMPY:
            continue
        _, size = GGML_QUANT_SIZES[GGMLQuantizationType[tensor.kind]]
        try:
            _numbers(np.zeros((1, size), np.uint8), tensor)
        except NotImplementedError:
            raise CheckpointError(
                f"{path}: {tensor.name!r} is in {tensor.kind}, which the gguf package has no"
                " arithmetic for; expected e.g. F16, Q8_0 or Q4_K, convert the model to one"
            ) from None
