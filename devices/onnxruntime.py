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
from edgegen.graph import Graph, free_dims, resolve
from edgegen.manifest import Variant

from .device import DeviceOptions, Feeds, Tensor

# Sizes of call a request is ready for, and what their outputs may take together.
FRAMES, FRAME_BYTES = 40, 1 << 25
MISSING = "ONNX Runtime is not installed; pip install onnxruntime"


def load_onnxruntime() -> Any:
    """The module, or ``DeviceMissing`` with the pip line."""
    try:
        import onnxruntime
    except ImportError as error:
        raise DeviceMissing(f"{MISSING} ({error}).") from error
    return onnxruntime


class _Frame:
    """What is bound for calls of one size, and the outputs they write to."""

    def __init__(self, session: OrtSession) -> None:
        self.binding = session.inference.io_binding()
        self.held: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        # Outputs whose size no input tells: ONNX Runtime makes them anew each run.
        self.open: list[str] = []
        self.ready = False
        self.version = 0
        self._places: dict[str, int] = {}  # of the outputs among those bound

    def bind_input(self, name: str, array: Tensor) -> None:
        if not array.flags.c_contiguous:
            raise DeviceError(f"input {name} must be contiguous; got strides {array.strides}.")
        self.binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, address(array))
        self.held[name] = array

    def bind_output(self, name: str, array: Tensor) -> None:
        self._places.setdefault(name, len(self._places))
        self.binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, address(array))
        self.held[name] = array

    def fit(self, graph: Graph) -> None:
        """Size the outputs nobody bound from the inputs' shapes. One whose size only the graph
        knows stays open."""
        sizes: dict[str, int] = {}
        for port in graph.inputs:
            if port.name not in self.held:
                raise DeviceError(f"graph {graph.name}: input {port} was not given.")
            for dim, size in zip(port.shape, self.held[port.name].shape, strict=True):
                if isinstance(dim, str):
                    sizes[dim] = size
        for port in graph.outputs:
            if port.name in self.held:
                continue
            shape = resolve(port.shape, sizes)
            if shape is None:
                self.open.append(port.name)
                continue
            self.outputs[port.name] = found = np.empty(shape, port.dtype)
            self.bind_output(port.name, found)
        self.ready = True

    def reopen(self) -> None:
        for name in self.open:
            self._places.setdefault(name, len(self._places))
            self.binding.bind_output(name, "cpu")

    def made(self) -> dict[str, Tensor]:
        values = self.binding.get_outputs()
        return {name: values[self._places[name]].numpy() for name in self.open}

    def size(self) -> int:
        return sum(array.nbytes for array in self.outputs.values())


class OrtRequest:
    """Bindings of one caller, apart for each size of call, since to bind a size anew costs a small
    model a third of a call. Feeds whose array object was seen last time are not bound again."""

    def __init__(self, session: OrtSession) -> None:
        self._session = session
        self._fixed: dict[str, Tensor] = {}
        self._version = 0
        self._frames: dict[tuple[int, ...], _Frame] = {}

    def bind(self, name: str, array: Tensor) -> None:
        if name in self._session.inputs and not array.flags.c_contiguous:
            raise DeviceError(f"input {name} must be contiguous; got strides {array.strides}.")
        self._fixed[name] = array
        self._version += 1

    def run(self, feeds: Feeds) -> dict[str, Tensor]:
        session = self._session
        size = tuple([feeds[name].shape[axis] for name, axis in session.sizing if name in feeds])
        frame = self._frames.get(size)
        if frame is None:
            frame = self._frames[size] = _Frame(session)
        if frame.version != self._version:
            self._rebind(frame)
        held = frame.held
        for name, array in feeds.items():
            if held.get(name) is not array:
                frame.bind_input(name, array)
        if not frame.ready:
            frame.fit(session.graph)
            self._forget(size)
        if frame.open:
            frame.reopen()
        try:
            session.inference.run_with_iobinding(frame.binding)
        except Exception as error:  # the provider's own types are not public
            raise DeviceError(session.fault(error)) from error
        return {**frame.outputs, **frame.made()} if frame.open else frame.outputs

    def _rebind(self, frame: _Frame) -> None:
        """Bring a frame up to what was bound since it was last used."""
        sizing = {name for name, _ in self._session.sizing}
        sizes_may_differ = False
        for name, array in self._fixed.items():
            before = frame.held.get(name)
            if before is array:
                continue
            if name in self._session.inputs:
                frame.bind_input(name, array)
                sizes_may_differ |= name in sizing
            else:
                frame.outputs.pop(name, None)
                frame.bind_output(name, array)
        if sizes_may_differ and frame.ready:
            for name in frame.outputs:
                del frame.held[name]
            frame.outputs, frame.open, frame.ready = {}, [], False
        frame.version = self._version

    def _forget(self, newest: tuple[int, ...]) -> None:
        """Let the oldest frames go that hold more than enough memory, or are too many."""
        held = sum(frame.size() for frame in self._frames.values())
        for size in list(self._frames):
            if size != newest and (held > FRAME_BYTES or len(self._frames) > FRAMES):
                held -= self._frames.pop(size).size()


class OrtSession:
    """A compiled ONNX graph."""

    def __init__(self, inference: Any, variant: Variant, device: str, file: Path) -> None:
        self.inference: Any = inference
        self.graph: Graph = variant.graph
        self.device = device
        self.file = file
        self.inputs = self.graph.input_names()
        self.sizing = sizing_axes(self.graph)

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


def sizing_axes(graph: Graph) -> tuple[tuple[str, int], ...]:
    """For each free dimension of the outputs, the axis of an input that tells its length."""
    found: dict[str, tuple[str, int]] = {}
    wanted = free_dims(graph.outputs)
    for port in graph.inputs:
        for axis, dim in enumerate(port.shape):
            if dim in wanted:
                found.setdefault(str(dim), (port.name, axis))
    return tuple(found.values())


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
