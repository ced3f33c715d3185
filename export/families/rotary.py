"""Rotary positions as configurations describe them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgegen.errors import CheckpointError

from ..ops.specs import Rope


def rope_of(said: Mapping[str, Any], theta: float, head_dim: int) -> Rope:
    """``said`` are a configuration's ``rope_parameters`` (or ``rope_scaling``) of one layer kind.

    Raises ``CheckpointError`` for a scaling that is not known.
    """
    kind = str(said.get("rope_type", said.get("type", "default")))
    return Rope(theta=theta, inverse_scale=stretch(kind, said, theta, head_dim))


def stretch(kind: str, said: Mapping[str, Any], theta: float, head_dim: int) -> tuple[float, ...]:
    """Factors on the rates: ``linear``, ``llama3`` (transformers, modeling_rope_utils)."""
    if kind == "default":
        return ()
    half = head_dim // 2
    if kind == "linear":
        return (1.0 / float(said["factor"]),) * half
    if kind != "llama3":
        raise CheckpointError(
            f"rotary scaling {kind!r} is not supported; known: default, linear, llama3."
        )
    factor = float(said["factor"])
    low, high = float(said["low_freq_factor"]), float(said["high_freq_factor"])
    rates = theta ** (-np.arange(half) * 2.0 / head_dim)
    turns = float(said["original_max_position_embeddings"]) * rates / (2 * np.pi)
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return tuple(float(f) for f in (1 - smooth) / factor + smooth)
