"""One source for every kind of encoder: words, sound, a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from tiny_words import END, VOCABULARY

from edgegen.export.families.base import Shape

Floats = NDArray[np.float32]


def ids(count: int, seed: int = 0) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).integers(3, VOCABULARY, count)]


def chirp(samples: int) -> Floats:
    """A tone that rises, at 16 kHz."""
    time = np.arange(samples) / 16000
    return np.sin(2000 * time * (1 + time / 30)).astype(np.float32)


def shading(channels: int, height: int, width: int) -> Floats:
    """Waves across a picture, another direction in each channel; about -1 to 1."""
    rows, columns = np.mgrid[:height, :width] / 5.0
    waves = [np.sin(rows * (1 + i) + columns * (2 - i)) for i in range(channels)]
    return np.stack(waves).astype(np.float32)


def source_of(shape: Shape, length: int = 11) -> dict[str, Any]:
    """A feed of ``features`` or ``encode`` without the batch axis; none for a decoder alone."""
    if not shape.encoder:
        return {}
    if shape.source == "ids":
        return {"input_ids": [*ids(length - 1, seed=7), END]}
    if shape.source == "pixels":
        return {"pixel_values": shading(*shape.picture)}
    return {"samples": chirp(480000 if shape.source == "features" else 11007)}


def source_at(shape: Shape, index: int, length: int) -> dict[str, Any]:
    """Sources that differ by ``index``; ``length`` in tokens, sound and pictures have their own."""
    if not shape.encoder:
        return {}
    random = np.random.default_rng([3, index])
    if shape.source == "ids":
        return {"input_ids": [*ids(length - 1, seed=100 + index), END]}
    if shape.source == "pixels":
        noise = random.normal(size=shape.picture).astype(np.float32)
        return {"pixel_values": shading(*shape.picture) + noise}
    samples = 480000 if shape.source == "features" else 4007 + 811 * index
    tone = chirp(samples) * np.float32(random.uniform(0.1, 1))
    return {"samples": tone + random.normal(0, 0.02 * (1 + index), samples).astype(np.float32)}
