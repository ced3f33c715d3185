"""The CPU through OpenVINO: many rows at little more than the cost of one, bfloat16 where it is."""

from __future__ import annotations

from typing import Any

from edgegen.manifest import Variant

from .device import DeviceOptions, Limits
from .machine import processor
from .openvino import OvDevice
from .ov_attention import take_apart

# Float32 arithmetic on float weights. A variant's settings come after: what it was checked with.
EXACT = {
    "INFERENCE_PRECISION_HINT": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
    "KV_CACHE_PRECISION": "f32",
}
# What the processor does fastest, where it has the instructions.
FAST = {
    "INFERENCE_PRECISION_HINT": "bf16",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "32",
    "KV_CACHE_PRECISION": "u8",
}


class OvCpu(OvDevice):
    """x86-64 and Arm processors."""

    name = "ov-cpu"
    place = "CPU"
    remedy = "use ort-cpu"
    limits = Limits(
        formats=("openvino",),
        weight_formats=("fp32", "fp16", "bf16", "int8", "int4"),
        # Gathering rows inside costs what copying them in does, and more as a text grows.
        caches=("append", "stateful", "recurrent", "none"),
        memories=("fp32", "int8"),
        equal_rows=True,
        tokens_together=256,
        exercised="hardware",
    )

    def describe(self) -> dict[str, str]:
        return {**super().describe(), "hardware": processor()}

    def prepare(self, model: Any, variant: Variant) -> None:
        # Keys of its own OpenVINO attends to in one operator.
        if variant.cache.kind != "stateful":
            take_apart(model)

    def properties(
        self, variant: Variant, options: DeviceOptions, capabilities: list[str]
    ) -> dict[str, Any]:
        if options.exact or few_rows_of_integers(variant):
            chosen = {**EXACT, **variant.settings}
        else:
            chosen = dict(FAST)
            if "BF16" not in capabilities:
                chosen["INFERENCE_PRECISION_HINT"] = "f32"
        return {
            **chosen,
            "INFERENCE_NUM_THREADS": options.threads,
            "NUM_STREAMS": 1,
            # As many threads as were asked for, and free to move: pinned ones of two sessions
            # would share a core while another idles.
            "ENABLE_HYPER_THREADING": True,
            "ENABLE_CPU_PINNING": False,
        }


def few_rows_of_integers(variant: Variant) -> bool:
    """Whether bfloat16 is the slower way: OpenVINO widens weights of 8 and 4 bits to it in every
    call. An encoder's many rows bear that, and a decoder-only model's prompt; a call of a decoder
    over a source took 1.1 to 1.4 times as long with one row and 2.5 times with eight, on processors
    of two makers."""
    over_source = any(port.name.startswith("cross_") for port in variant.graph.inputs)
    return over_source and variant.precision.weight_format in ("int8", "int4")
