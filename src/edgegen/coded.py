"""A source's keys and values in 8 bits, as ``edgegen export --memory int8`` makes them.

Kernels that read them as a cache take no more rows a call than the memory has, and give it back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

# A short source is filled up to as many rows; drafts and beams are seldom more.
LEAST_ROWS = 64
Feeds = dict[str, NDArray[np.generic]]


def given_back(name: str) -> str:
    """What a graph calls the output that is its input ``cross_key_i`` or ``cross_value_i``."""
    part, _, layer = name.rpartition("_")
    return f"{part}_out_{layer}"


def is_coded(names: Iterable[str]) -> bool:
    """Whether a memory of these arrays is one of codes and scales."""
    return any(name.startswith("cross_scale_") for name in names)


def rows_of_call(memory: Mapping[str, NDArray[np.generic]]) -> int:
    """The most rows a call over this memory may have; 0 is any number.

    One less than the memory's: a call of as many would be a cache's first, summed otherwise.
    """
    return min(
        (array.shape[2] - 1 for array in memory.values() if array.dtype == np.int8), default=0
    )


def filled(memory: Mapping[str, NDArray[np.generic]], hidden: float) -> Feeds:
    """What ``encode`` left with its ``source_mask [B, S]``, S being ``LEAST_ROWS`` at least where
    codes are held: added rows are zeros and masked by ``hidden``."""
    mask = memory.get("source_mask")
    if mask is None or mask.shape[1] >= LEAST_ROWS or not is_coded(memory):
        return dict(memory)
    rows = mask.shape[1]
    shown = np.full((len(mask), LEAST_ROWS), hidden, mask.dtype)
    shown[:, :rows] = mask
    found: Feeds = {**memory, "source_mask": shown}
    for name, array in memory.items():
        if array.dtype == np.int8:
            texts, heads, _, numbers = array.shape
            codes = found[name] = np.zeros((texts, heads, LEAST_ROWS, numbers), np.int8)
            codes[:, :, :rows] = array
    return found
