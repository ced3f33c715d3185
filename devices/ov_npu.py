"""Intel NPUs through OpenVINO: graphs of fixed sizes, float16 arithmetic whatever is asked."""

from __future__ import annotations

from typing import Any

from edgegen.manifest import Variant

from .device import DeviceOptions, Limits
from .openvino import OvDevice


class OvNpu(OvDevice):
    """Core Ultra processors. There is no float32 in the hardware: ``exact`` changes nothing."""

    name = "ov-npu"
    place = "NPU"
    probe = "DEVICE_TYPE"
    remedy = "install the NPU driver (intel-driver-compiler-npu, intel-level-zero-npu)"
    limits = Limits(
        formats=("openvino",),
        # Asymmetric codes are taken too, and unpacked to float16: no smaller than it.
        weight_formats=("fp16", "int8", "int4"),
        caches=("append", "recurrent", "none"),
        static_shapes=True,
        compiles_slowly=True,
    )

    def describe(self) -> dict[str, str]:
        return {**super().describe(), "arithmetic": "float16"}

    def properties(
        self, variant: Variant, options: DeviceOptions, capabilities: list[str]
    ) -> dict[str, Any]:
        return {"INFERENCE_PRECISION_HINT": "f16", "PERFORMANCE_HINT": "LATENCY"}
