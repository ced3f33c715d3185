"""Scales for a text's own keys and values in 8 bits: found by answering texts in float32 caches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgegen.devices import DeviceOptions, device_named
from edgegen.errors import ExportError
from edgegen.manifest import Variant

from ..families.base import Family
from ..ops.coded_rows import RowScales
from ..ops.memory_ops import LARGEST_CODE
from ..stepper import Stepper, memory_of
from .calibration import inputs_within

# Tokens written behind a prompt, and by how much numbers may outgrow the largest then seen.
TOKENS, MARGIN = 48, 1.5
SMALLEST_SCALE = 1e-8


def check_rows(family: Family) -> None:
    """Raises ``ExportError`` where a text has no keys and values of its own to hold in 8 bits."""
    shape = family.shape
    reasons = {
        "has no cache in place": shape.bidirectional_prompt,
        "has states in their place": bool(shape.recurrent_width),
        "begins with its source's": shape.merged,
    }
    for why, holds in reasons.items():
        if holds:
            raise ExportError(
                f"kv cache int8: a {family.checkpoint.model_type} decoder {why}; leave --kv-cache "
                "out."
            )


def row_scales(
    family: Family, folder: Path, variants: Mapping[str, Variant], texts: Sequence[str]
) -> RowScales:
    """A scale for each number of each layer's keys and values.

    ``variants`` are ``decode`` with a cache of floats, and what comes before it; files lie in
    ``folder``. A rotation turns numbers of a key into each other, its neighbours or those half a
    head apart, so they have one scale.
    """
    device = device_named("ort-cpu")
    sessions = {
        name: device.compile(folder / Path(one.file).name, one, DeviceOptions())
        for name, one in variants.items()
    }
    largest: dict[str, NDArray[np.float32]] = {}
    try:
        for text in texts:
            source, prompt = inputs_within(family, text, TOKENS)
            memory = memory_of(sessions, source) if "encode" in sessions else {}
            most = family.generation().max_positions or len(prompt) + TOKENS
            rows = min(len(prompt) + TOKENS, most)
            stepper = Stepper(sessions["decode"], variants["decode"], memory, rows)
            logits = stepper.decode(prompt)
            while stepper.length < rows:
                logits = stepper.decode([int(logits[-1].argmax())])
            for name, cache in stepper.cache.items():
                seen = np.abs(cache[0, :, : stepper.length]).max(1)
                largest[name] = np.maximum(largest[name], seen) if name in largest else seen
    finally:
        for session in sessions.values():
            session.close()
    found: dict[tuple[str, int], NDArray[np.float32]] = {}
    for name, seen in largest.items():
        part, _, layer = name.split("_")
        whole = turned(seen) if part == "key" else seen
        scale = np.maximum(whole * MARGIN / LARGEST_CODE, SMALLEST_SCALE)
        found[part, int(layer)] = scale.astype(np.float32)
    return found


def turned(seen: NDArray[np.float32]) -> NDArray[np.float32]:
    """``[heads, head_dim]``: the largest of a number and those a rotation may make it of."""
    places, half = np.arange(seen.shape[1]), seen.shape[1] // 2
    across = seen[:, (places + half) % seen.shape[1]]
    return np.maximum(np.maximum(seen, across), seen[:, np.minimum(places ^ 1, len(places) - 1)])
