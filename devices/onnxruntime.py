"""ONNX Runtime sessions for any of its providers.

Ports are bound by address: what the caller rewrites in place costs nothing the next call, and a
cache bound as past and present is never copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgegen.errors import DeviceError, DeviceMissing
from edgegen.graph import Graph, resolve
from edgegen.manifest import Variant

from .device import DeviceOptions, Feeds, Tensor

MISSING = "ONNX Runtime is not installed; pip install onnxruntime"


def load_onnxruntime() -> Any:
    """The module, or ``DeviceMissing`` with the pip line."""
    try:
        import onnxruntime
    except ImportError as error:
        raise DeviceMissing(f"{MISSING} ({error}).") from error
    return onnxruntime


class OrtRequest:
    """Bindings of one caller. Feeds whose array object was seen last time are not bound again."""

    def __init__(self, session: OrtSession) -> None:
        self._session = session
        self._binding = session.inference.io_binding()
        self._held: dict[str, Tensor] = {}
        self._outputs: dict[str, Tensor] = {}
        # Outputs whose size no input tells: ONNX Runtime makes them anew each run.
        self._open: set[str] = set()
        self._places: dict[str, int] = {}  # of the outputs among those bound

    def bind(self, name: str, array: Tensor) -> None:
        if name in self._session.inputs:
            self._bind_input(name, array)
        else:
            self._bind_output(name, array)
            self._held[name] = array

    def _bind_input(self, name: str, array: Tensor) -> None:
        if not array.flags.c_contiguous:
            raise DeviceError(f"input {name} must be contiguous; got strides {array.strides}.")
        self._binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, address(array))
        self._held[name] = array

    def _bind_output(self, name: str, array: Tensor) -> None:
        self._places.setdefault(name, len(self._places))
        self._binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, address(array))

    def run(self, feeds: Feeds) -> dict[str, Tensor]:
        held, sizing = self._held, self._session.sizing
        refit = not self._outputs and not self._open
        for name, array in feeds.items():
            before = held.get(name)
            if before is not array:
                self._bind_input(name, array)
                if before is None or any(
                    before.shape[axis] != array.shape[axis] for axis in sizing[name]
                ):
                    refit = True
        if refit:
            self._fit_outputs()
        for name in self._open:
            self._places.setdefault(name, len(self._places))
            self._binding.bind_output(name, "cpu")
        try:
            self._session.inference.run_with_iobinding(self._binding)
        except Exception as error:  # the provider's own types are not public
            raise DeviceError(self._session.fault(error)) from error
        return {**self._outputs, **self._made()} if self._open else self._outputs

    def _made(self) -> dict[str, Tensor]:
        values = self._binding.get_outputs()
        return {name: values[self._places[name]].numpy() for name in self._open}

    def _fit_outputs(self) -> None:
        """Size the unbound outputs from the inputs' shapes; rebind those that changed. An output
        whose size only the graph knows stays open."""
        graph = self._session.graph
        sizes: dict[str, int] = {}
        for port in graph.inputs:
            if port.name not in self._held:
                raise DeviceError(f"graph {graph.name}: input {port} was not given.")
            for dim, size in zip(port.shape, self._held[port.name].shape, strict=True):
                if isinstance(dim, str):
                    sizes[dim] = size
        for port in graph.outputs:
            if port.name in self._held:
                continue
            shape = resolve(port.shape, sizes)
            if shape is None:
                self._open.add(port.name)
                continue
            found = self._outputs.get(port.name)
            if found is None or found.shape != shape:
                found = np.empty(shape, port.dtype)
                self._outputs[port.name] = found
                self._bind_output(port.name, found)


class OrtSession:
    """A compiled ONNX graph."""

    def __init__(self, inference: Any, variant: Variant, device: str, file: Path) -> None:
        self.inference: Any = inference
        self.graph: Graph = variant.graph
        self.device = device
        self.file = file
        self.inputs = self.graph.input_names()
        self.sizing = sizing_inputs(self.graph)

    def request(self) -> OrtRequest:
        return OrtRequest(self)

    def fault(self, error: Exception) -> str:
        first = str(error).strip().splitlines()[0][:300]
        return f"{self.device} failed to run {self.file.name}: {first}"

    def close(self) -> None:
        """Free the session's memory; open requests must not run afterwards."""
        self.inference = None


def address(array: Tensor) -> int:
    """Where the array's memory begins; ``ctypes.data`` gives the same at ten times the cost."""
    return int(array.__array_interface__["data"][0])


def sizing_inputs(graph: Graph) -> dict[str, tuple[int, ...]]:
    """For each input, the axes whose length decides the shape of some output."""
    wanted = {dim for port in graph.outputs for dim in port.shape if isinstance(dim, str)}
    return {
        port.name: tuple(axis for axis, dim in enumerate(port.shape) if dim in wanted)
        for port in graph.inputs
    }


def compile_session(
    file: Path,
    variant: Variant,
    options: DeviceOptions,
    device: str,
    providers: Sequence[tuple[str, Mapping[str, str]]],
) -> OrtSession:
    """An inference session with explicit threads and no silent provider fallback."""
    ort = load_onnxruntime()
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    # Sizes change every call, so a memory plan per shape is never reused.
    settings.enable_mem_pattern = False
    # Spinning workers win a few microseconds a call and burn a core between calls.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "1")
    settings.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if [name for name, _ in providers] != ["CPUExecutionProvider"]:
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        inference = ort.InferenceSession(
            str(file),
            settings,
            providers=[name for name, _ in providers],
            provider_options=[dict(entries) for _, entries in providers],
        )
        inference.disable_fallback()
    except Exception as error:  # the provider's own types are not public
        first = str(error).strip().splitlines()[0][:300]
        raise DeviceError(f"{device} cannot compile {file.name}: {first}") from error
    return OrtSession(inference, variant, device, file)
