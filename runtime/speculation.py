"""What an engine knows of speculation: what it costs, and what requests learned of drafters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from edgegen.devices import Device, DeviceOptions
from edgegen.manifest import RowIndependence, Variant

from .auto import MOST, Auto, Experience
from .budget import Budget, Fixed
from .calibration import Costs, Store, measure

if TYPE_CHECKING:
    from .engine import Engine
    from .options import GenerationOptions

DEFAULT_DRAFT_LENGTH = 8
UNCALIBRATED = (
    "draft auto decoded plainly: what a draft costs here was not measured; "
    "load the bundle with calibrate=True."
)
# Rounding is taken to be so many times what was seen, and this where nothing was looked at.
SAFETY, UNSEEN = 8.0, 1e-4
# What one code of an activation that tips over moves a logit by, at least: the gate's few calls may
# have had none (7e-7 was seen, and 5e-3 later).
TIPPED = 5e-3
# Source tokens a calibration pretends to have read.
SOURCE = 48


class Speculation:
    """Shared by the threads of a pipeline."""

    def __init__(self) -> None:
        self.costs: Costs | None = None
        self._lock = Lock()
        self._learnt: dict[str, Experience] = {}

    def budget(self, options: GenerationOptions) -> Budget:
        """How much a request may draft. Counts asked for are kept; otherwise costs decide, and
        where they are not known ``auto`` is plain and named drafters draft a usual length."""
        asked, name = options.num_assistant_tokens, options.draft
        if name == "none":
            return Fixed(0)
        if asked is not None and name != "auto":
            return Fixed(asked)
        if self.costs is None:
            return Fixed(0 if name == "auto" else DEFAULT_DRAFT_LENGTH)
        with self._lock:
            learnt = self._learnt.get(name)
            if learnt is None or learnt.costs != self.costs:
                learnt = self._learnt[name] = Experience(self.costs)
        return Auto(learnt, asked or MOST)

    def note(self, options: GenerationOptions) -> str:
        """What a result must say of how it was speculated; empty where nothing is."""
        if options.num_beams > 1:
            return ""
        return UNCALIBRATED if options.draft == "auto" and self.costs is None else ""

    def calibrate(self, engine: Engine, store: Store | None, warn: Callable[[str], None]) -> None:
        """Read the table of this engine's decoder from the store, or measure it and keep it."""
        key = costs_key(engine)
        found = store.read(key, warn) if store else None
        if found is None:
            found = measure_engine(engine)
            if store:
                store.write(key, found, warn)
        self.costs = found


def noise_of(engine: Engine, options: GenerationOptions) -> float:
    """What other rows of a call may change a logit by, as a share of its row's largest; 0 where
    rows are independent bit for bit. Some times what was seen when the bundle was checked, or what
    activations in 8 bits may do at any time."""
    variant = engine.variants["decode"]
    if rows_of(engine) == "bit":
        return 0.0
    seen = [
        found.rows_error
        for found in engine.manifest.parity
        if engine.device.limits.equal_rows
        and found.format == variant.format
        and found.weight_format == variant.precision.weight_format
        and not found.skipped
    ]
    coded = variant.format == "onnx" and variant.precision.weight_format in ("int8", "int4")
    least = TIPPED if coded and engine.device.limits.equal_rows else 0.0
    penalty = options.rules(engine.manifest.generation).repetition_penalty
    return SAFETY * max(penalty, 1.0 / penalty) * max(least, max(seen, default=UNSEEN))


def rows_of(engine: Engine) -> RowIndependence:
    """Whether rows of a decode call agree with those of others bit for bit, as was seen when the
    bundle was made, which was on a CPU."""
    bit = engine.variants["decode"].precision.rows == "bit"
    return "bit" if bit and engine.device.limits.equal_rows else "rounding"


def measure_engine(engine: Engine) -> Costs:
    """L(n) of an engine's decoder, over a source of nothing in particular."""
    manifest = engine.manifest
    token = next(iter(manifest.generation.end), 0)
    memory = None
    if manifest.speech is not None:
        memory = engine.remember_samples(np.zeros(manifest.speech.window_samples, np.float32))
    elif (image := manifest.image) is not None:
        memory = engine.remember_pixels(np.zeros((3, image.height, image.width), np.float32))
    elif "encode" in manifest.components:
        length = min(SOURCE, manifest.generation.max_source or SOURCE)
        memory = engine.remember_ids([token] * length)
    most = manifest.generation.max_positions // 2 or MOST + 1
    decoder = engine.decoder(memory)
    return measure(decoder, token, most=min(MOST + 1, most, decoder.chunk))


def costs_key(engine: Engine) -> dict[str, str]:
    """All that a decoder's speed on this machine depends on."""
    hashes = {file.path: file.sha256 for file in engine.manifest.files}
    variant = engine.variants["decode"]
    return {**_place(engine.device, engine.options), **_graph(variant, hashes)}


def _place(device: Device, options: DeviceOptions) -> dict[str, str]:
    asked = {"device": device.name, "threads": str(options.threads), "exact": str(options.exact)}
    return {**device.describe(), **asked}


def _graph(variant: Variant, hashes: Mapping[str, str]) -> dict[str, str]:
    weights = " ".join(hashes[name] for name in variant.weights)
    return {"graph": hashes[variant.file], "weights": weights}
