"""NVIDIA GPUs through ONNX Runtime's CUDA provider.

Keys and values of a text stay in the GPU's memory; a call's tokens are copied there and its logits
back. Batches keep theirs in the host's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgegen.manifest import Variant

from .device import DeviceOptions, Limits, Session
from .onnxruntime import load_onnxruntime
from .provider import COUNTING, OrtProvider


class OrtCuda(OrtProvider):
    """GPUs of compute capability 7.5 and later."""

    name = "ort-cuda"
    provider = "CUDAExecutionProvider"
    memory = "cuda"
    remedy = (
        "pip uninstall onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]' in its place"
    )
    limits = Limits(
        formats=("onnx",),
        weight_formats=("fp32", "fp16", "int8", "int4"),
        # GroupQueryAttention takes neither float32 nor a mask there: no cache in place.
        caches=("append", "recurrent", "none"),
        cpu_ops=COUNTING,
        lacks=("rows",),
        exercised="hardware",
    )

    def options(self, places: tuple[Any, ...], options: DeviceOptions) -> Mapping[str, str]:
        return {"use_tf32": "0" if options.exact else "1"}

    def compile(self, file: Path, variant: Variant, options: DeviceOptions) -> Session:
        # CUDA and cuDNN may come as wheels, which the loader does not search by itself.
        load_onnxruntime().preload_dlls()
        return super().compile(file, variant, options)
