"""Intel GPUs through OpenVINO, integrated or discrete."""

from __future__ import annotations

from typing import Any

from edgegen.manifest import Variant

from .device import DeviceOptions, Limits
from .openvino import OvDevice

# Float32 arithmetic, said in full: this plugin's own choice is float16 with int8 activations.
# A variant's settings are the processor's and are not handed on.
EXACT = {
    "INFERENCE_PRECISION_HINT": "f32",
    "EXECUTION_MODE_HINT": "ACCURACY",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
}
FAST = {
    "INFERENCE_PRECISION_HINT": "f16",
    "EXECUTION_MODE_HINT": "PERFORMANCE",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "32",
}


class OvGpu(OvDevice):
    """Arrays stay in the host's memory, which an integrated GPU shares."""

    name = "ov-gpu"
    place = "GPU"
    remedy = "install Intel's compute runtime (intel-opencl-icd and its OpenCL loader)"
    limits = Limits(
        formats=("openvino",),
        weight_formats=("fp32", "fp16", "int8", "int4"),
        caches=("append", "stateful", "recurrent", "none"),
        compiles_slowly=True,
    )

    def properties(
        self, variant: Variant, options: DeviceOptions, capabilities: list[str]
    ) -> dict[str, Any]:
        return {
            **(EXACT if options.exact else FAST),
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "COMPILATION_NUM_THREADS": options.threads,
        }
