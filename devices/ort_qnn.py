"""Qualcomm's HTP (Hexagon NPU) through ONNX Runtime's QNN provider.

On an x86-64 processor the same library simulates the HTP: its arithmetic is real, its speed is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from .device import DeviceOptions, Limits
from .provider import OrtProvider, kind_of

# The simulator asks which chip it is: Snapdragon 8 Gen 3. A chip knows itself.
SIMULATED = {"soc_model": "57", "htp_arch": "75"}


class OrtQnn(OrtProvider):
    """Graphs of fixed sizes, quantised by their own scales (qdq) or in float16."""

    name = "ort-qnn"
    provider = "QNNExecutionProvider"
    package = "onnxruntime_qnn"
    remedy = "pip install onnxruntime-qnn"
    contexts = True
    limits = Limits(
        formats=("onnx",),
        weight_formats=("qdq", "fp16"),
        caches=("append", "recurrent", "none"),
        static_shapes=True,
        compiles_slowly=True,
        exercised="simulator",
    )

    def options(self, places: tuple[Any, ...], options: DeviceOptions) -> Mapping[str, str]:
        return {
            "backend_path": str(import_module(self.package).get_qnn_htp_path()),
            # Without this the rounding of inputs and outputs is left to the CPU.
            "offload_graph_io_quantization": "0",
            **(SIMULATED if simulated(places) else {}),
        }

    def describe(self) -> dict[str, str]:
        told = super().describe()
        if simulated(self.found()):
            told["hardware"] = f"simulator of an HTP v{SIMULATED['htp_arch']} on this processor"
        return told


def simulated(places: tuple[Any, ...]) -> bool:
    """The library lists no NPU here."""
    return all(kind_of(place) != "NPU" for place in places)
