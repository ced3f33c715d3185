"""The CPU through ONNX Runtime: fused operators, caches in place, 4- and 8-bit weights."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from edgegen.manifest import Variant

from .device import DeviceOptions, Limits, Session
from .machine import processor
from .onnxruntime import CPU, MISSING, compile_session, load_onnxruntime


class OrtCpu:
    """Every machine has it."""

    name = "ort-cpu"
    limits = Limits(
        formats=("onnx",),
        weight_formats=("fp32", "fp16", "int8", "int4", "qdq"),
        caches=("in_place", "recurrent", "append", "none"),
        memories=("fp32", "int8"),
        equal_rows=True,
        tokens_together=256,
        exercised="hardware",
    )

    def missing(self) -> str | None:
        # By module: wheels for other hardware bring it under names of their own.
        return None if find_spec("onnxruntime") else MISSING

    def describe(self) -> dict[str, str]:
        return {"hardware": processor(), "onnxruntime": load_onnxruntime().__version__}

    def compile(self, file: Path, variant: Variant, options: DeviceOptions) -> Session:
        return compile_session(file, variant, options, self.name, CPU)
