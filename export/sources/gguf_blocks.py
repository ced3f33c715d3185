"""GGUF's block formats as integer codes, where codes, scales and zero points say them exactly.

Layouts follow ggml's src/ggml-common.h. What is not in the table (formats with a minimum beside
the scale, such as Q4_1 or Q4_K, and codebooks) has no such form: a minimum is added after the
product and is seldom a whole number of scales.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import Array, Blocks

Bytes = NDArray[np.uint8]
CENTRE = 128  # the zero point of 8-bit codes: kernels need none stored where all are this


class Packed(NamedTuple):
    """Codes ``uint8 [rows, in]`` and scales ``float32 [rows, in / block]``."""

    codes: Bytes
    scales: Array
    block: int
    bits: int


def blocks_of(data: Bytes, kind: str, rows: NDArray[np.intp] | None) -> Blocks:
    """The blocks of one tensor. ``data`` is ``uint8 [out, bytes of a row]`` as in the file;
    ``rows``, if given, is the order its rows are taken in. ``kind`` is a key of ``FORMATS``."""
    packed = FORMATS[kind](data if rows is None else data[rows])
    zero = CENTRE if packed.bits == 8 else 1 << (packed.bits - 1)
    return Blocks(
        codes=np.ascontiguousarray(packed.codes),
        scales=np.ascontiguousarray(packed.scales),
        zeros=np.full(packed.scales.shape, zero, np.uint8),
        block=packed.block,
        bits=packed.bits,
        origin=kind,
    )


def _split(data: Bytes, *sizes: int) -> list[Bytes]:
    """Cut every block of ``sum(sizes)`` bytes into its fields: ``[rows, blocks, size]`` each."""
    blocks = data.reshape(data.shape[0], -1, sum(sizes))
    return np.split(blocks, np.cumsum(sizes)[:-1], axis=2)


def _float16(field: Bytes) -> Array:
    """The one half float in each block: ``[rows, blocks, 2]`` to ``float32 [rows, blocks]``."""
    return np.ascontiguousarray(field).view(np.float16)[..., 0].astype(np.float32)


def _flat(codes: NDArray[np.uint8] | NDArray[np.int8]) -> Bytes:
    return codes.reshape(codes.shape[0], -1).view(np.uint8)


def _nibbles(field: Bytes) -> Bytes:
    """16 bytes: their low halves are the first 16 codes of a block, their high halves the rest."""
    return np.concatenate([field & np.uint8(15), field >> np.uint8(4)], axis=2)


def _q8_0(data: Bytes) -> Packed:
    """Block of 32: half scale, 32 int8."""
    scale, codes = _split(data, 2, 32)
    return Packed(_flat(codes ^ np.uint8(CENTRE)), _float16(scale), 32, 8)


def _q4_0(data: Bytes) -> Packed:
    """Block of 32: half scale, 16 bytes of nibbles around 8."""
    scale, codes = _split(data, 2, 16)
    return Packed(_flat(_nibbles(codes)), _float16(scale), 32, 4)


def _q5_0(data: Bytes) -> Packed:
    """Block of 32: half scale, 32 fifth bits, 16 bytes of nibbles; codes around 16."""
    scale, fifth, low = _split(data, 2, 4, 16)
    high = np.unpackbits(fifth, axis=2, bitorder="little")
    codes = _nibbles(low) | (high << np.uint8(4))
    return Packed(_flat(codes + np.uint8(CENTRE - 16)), _float16(scale), 32, 8)


def _q6_k(data: Bytes) -> Packed:
    """Block of 256 in sixteen groups of 16: 128 bytes of low nibbles, 64 of high pairs, sixteen
    int8 group scales, half scale; codes around 32.

    Each half of 128 codes takes 64 low bytes (low nibbles, then high nibbles) and 32 high bytes
    (four pairs of bits a byte, lowest first)."""
    low, high, groups, scale = _split(data, 128, 64, 16, 2)
    rows, count = low.shape[:2]
    halves = low.reshape(rows, count, 2, 64)
    nibbles = np.concatenate([halves & np.uint8(15), halves >> np.uint8(4)], axis=3)
    bytes_ = high.reshape(rows, count, 2, 1, 32)
    pairs = (bytes_ >> np.array([0, 2, 4, 6], np.uint8)[:, None]) & np.uint8(3)
    codes = nibbles | (pairs.reshape(rows, count, 2, 128) << np.uint8(4))
    scales = _float16(scale)[..., None] * groups.view(np.int8).astype(np.float32)
    return Packed(_flat(codes + np.uint8(CENTRE - 32)), scales.reshape(rows, -1), 16, 8)


FORMATS: dict[str, Callable[[Bytes], Packed]] = {
    "Q8_0": _q8_0,
    "Q4_0": _q4_0,
    "Q5_0": _q5_0,
    "Q6_K": _q6_k,
}
