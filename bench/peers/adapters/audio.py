"""Wave files as every recogniser takes them; read once, so that no turn is timed reading."""

from __future__ import annotations

import wave
from functools import cache

import numpy as np
from numpy.typing import NDArray

RATE = 16_000


@cache
def samples(path: str) -> NDArray[np.float32]:
    """Mono samples in [-1, 1]. The driver wrote the file: 16 bits, 16 kHz, one channel."""
    with wave.open(path, "rb") as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (RATE, 1, 2):
            raise ValueError(f"{path}: expected 16 kHz, mono, 16 bits")
        data = file.readframes(file.getnframes())
    return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)
