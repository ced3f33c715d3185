"""Any GPU through ONNX Runtime's WebGPU provider: Vulkan, Direct3D 12 or Metal.

Inputs and outputs are bound in the host's memory: each call copies them to the GPU and back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .device import DeviceOptions, Limits
from .provider import COUNTING, OrtProvider


class OrtWebgpu(OrtProvider):
    """As a library beside onnxruntime (``onnxruntime-ep-webgpu``), or built in."""

    name = "ort-webgpu"
    provider = "WebGpuExecutionProvider"
    package = "onnxruntime_ep_webgpu"
    remedy = (
        "pip install onnxruntime-ep-webgpu, or in place of onnxruntime: pip install "
        "onnxruntime-webgpu"
    )
    limits = Limits(
        formats=("onnx",),
        weight_formats=("fp32", "fp16", "int8", "int4"),
        caches=("append", "in_place", "recurrent", "none"),
        cpu_ops=COUNTING,
        lacks=("rows",),
        exercised="emulated",
    )

    def options(self, places: tuple[Any, ...], options: DeviceOptions) -> Mapping[str, str]:
        return {}
