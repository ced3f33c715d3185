"""The CPU through ONNX Runtime: fused operators, caches in place, 4- and 8-bit weights."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgegen.manifest import Variant

from .device import DeviceOptions, Limits, Session
from .machine import processor
from .onnxruntime import MISSING, compile_session


class OrtCpu:
    """Every machine has it."""

    name = "ort-cpu"
    limits = Limits(
        formats=("onnx",),
        weight_formats=("fp32", "fp16", "int8", "int4", "qdq"),
        caches=("in_place", "recurrent", "append", "none"),
    )

    def missing(self) -> str | None:
        try:
            version("onnxruntime")
        except PackageNotFoundError:
            return MISSING
        return None

    def describe(self) -> dict[str, str]:
        return {"hardware": processor(), "onnxruntime": version("onnxruntime")}

    def compile(self, file: Path, variant: Variant, options: DeviceOptions) -> Session:
        return compile_session(file, variant, options, self.name, [("CPUExecutionProvider", {})])
