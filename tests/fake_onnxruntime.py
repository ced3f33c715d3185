"""ONNX Runtime with a GPU that is not there: its CUDA provider computes on the CPU.

What is asked of it goes to the real library; what only a GPU tells is made up and may fail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ctypes import string_at
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from math import prod
from types import ModuleType
from typing import Any
from weakref import finalize

import numpy as np
import onnxruntime as real
from numpy.typing import NDArray

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
PLACE = "cuda"


@dataclass
class Gpu:
    """What is wrong with it, and what it was told. ``on_cpu`` are operators its provider leaves."""

    starts: bool = True
    refuses: str = ""
    lost_at: int | None = None
    on_cpu: tuple[str, ...] = ("Shape",)
    runs: int = 0
    libraries_loaded: int = 0
    options: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    fallbacks_disabled: int = 0
    room: int = 1 << 40
    held: int = 0
    most_held: int = 0

    def took(self, size: int) -> None:
        self.held += size
        self.most_held = max(self.most_held, self.held)


@dataclass
class Assigned:
    """Nodes of one provider."""

    ep_name: str
    nodes: list[Any]

    def get_nodes(self) -> list[Any]:
        return self.nodes


class Binding:
    """Inputs are copied when they are bound, as into a GPU's memory."""

    def __init__(self, made: Any) -> None:
        self._real = made
        self._copies: dict[str, NDArray[Any]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def bind_input(
        self, name: str, device: str, index: int, kind: Any, shape: Sequence[int], pointer: int
    ) -> None:
        if device == PLACE:  # it lies there: no copy
            self._real.bind_input(name, "cpu", index, kind, shape, pointer)
            return
        size = prod(shape) * np.dtype(kind).itemsize
        copy = np.frombuffer(string_at(pointer, size), kind).copy()
        self._copies[name] = copy
        self._real.bind_input(name, device, index, kind, shape, copy.ctypes.data)

    def bind_output(self, name: str, device: str, *said: Any) -> None:
        self._real.bind_output(name, device.replace(PLACE, "cpu"), *said)


class Values:
    """Arrays in a GPU's memory."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    def ortvalue_from_shape_and_type(
        self, shape: Sequence[int], kind: Any, device: str, index: int
    ) -> Any:
        size = prod(shape) * np.dtype(kind).itemsize
        if self._gpu.held + size > self._gpu.room:
            raise RuntimeError("CUDA failure 2: out of memory\nmore lines")
        made = real.OrtValue.ortvalue_from_shape_and_type(shape, kind, "cpu", index)
        self._gpu.took(size)
        finalize(made, self._gpu.took, -size)
        return made

    def ortvalue_from_numpy(self, array: NDArray[Any], device: str = "cpu", index: int = 0) -> Any:
        if device == "cpu":
            return real.OrtValue.ortvalue_from_numpy(array)
        made = self.ortvalue_from_shape_and_type(array.shape, array.dtype.type, device, index)
        made.update_inplace(array)
        return made


class Inference:
    """A session of the real library, told of as the GPU's."""

    def __init__(self, gpu: Gpu, file: str, settings: Any, providers: Sequence[Any]) -> None:
        ((name, options),) = providers
        assert name == CUDA
        gpu.options.append(dict(options))
        if gpu.refuses:
            raise RuntimeError(gpu.refuses)
        self._gpu = gpu
        self._real = real.InferenceSession(file, settings, providers=[CPU])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def io_binding(self) -> Binding:
        return Binding(self._real.io_binding())

    def disable_fallback(self) -> None:
        self._gpu.fallbacks_disabled += 1

    def get_provider_graph_assignment_info(self) -> list[Any]:
        nodes = [
            node
            for part in self._real.get_provider_graph_assignment_info()
            for node in part.get_nodes()
        ]
        placed: Mapping[str, list[Any]] = {CUDA: [], CPU: []}
        for node in nodes:
            there = self._gpu.starts and node.op_type not in self._gpu.on_cpu
            placed[CUDA if there else CPU].append(node)
        return [Assigned(name, kept) for name, kept in placed.items()]

    def run_with_iobinding(self, binding: Any) -> None:
        gpu = self._gpu
        gpu.runs += 1
        if gpu.lost_at is not None and gpu.runs > gpu.lost_at:
            raise RuntimeError("CUDA failure 719: unspecified launch failure\nmore lines")
        self._real.run_with_iobinding(binding)


def module(gpu: Gpu) -> ModuleType:
    """The library as a module, with the GPU in it."""
    made = ModuleType("onnxruntime")
    made.__spec__ = ModuleSpec("onnxruntime", None)
    given: dict[str, Any] = {
        "__version__": "1.32.0+fake",
        "SessionOptions": real.SessionOptions,
        "get_available_providers": lambda: [CUDA, CPU],
        "get_all_providers": lambda: [CUDA, CPU],
        "get_ep_devices": list,
        "OrtValue": Values(gpu),
    }

    def inference(file: str, settings: Any, providers: Sequence[Any], **more: Any) -> Any:
        if providers[0][0] == CPU:
            return real.InferenceSession(file, settings, providers=[CPU], **more)
        return Inference(gpu, file, settings, providers)

    def preload_dlls() -> None:
        gpu.libraries_loaded += 1

    for name, value in given.items():
        setattr(made, name, value)
    made.InferenceSession = inference  # type: ignore[attr-defined]
    made.preload_dlls = preload_dlls  # type: ignore[attr-defined]
    return made
