"""ONNX Runtime sessions for any of its providers.

Ports are bound to the caller's own memory: what the caller rewrites in place costs nothing the next
call, and a cache bound as past and present is never copied. A provider with a memory of its own
copies inputs when they are bound, so there they are bound anew each call.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgegen.errors import DeviceError, DeviceMissing
from edgegen.graph import Graph, free_dims, resolve
from edgegen.manifest import Variant

from .compiled import kept, key_of
from .device import DeviceArray, DeviceOptions, Placement, Tensor
from .ort_memory import OrtMemory, first_line
from .saturation import EXACT, saturates

Bindable = Tensor | DeviceArray
# Lowerings that multiply unsigned bytes by signed ones.
BYTES = frozenset(("rows",))
# Sizes of call a request is ready for, and what their outputs may take together.
FRAMES, FRAME_BYTES = 40, 1 << 25
# How long idle workers look for work before they sleep: longer than the host part of a step.
SPIN_US = 1000
MISSING = "ONNX Runtime is not installed; pip install onnxruntime"
# GroupQueryAttention by tiles cuts a row's keys by the size of this machine's second-level cache,
# so which rows of wide heads are summed alike would differ from machine to machine; rows of decode
# calls take longer too. ONNX Runtime asks the process's environment, once for each node that it
# makes; it is told here and not by the thread that compiles, since others may be reading it then.
NO_TILES = "ORT_GQA_DISABLE_FLASH_ATTENTION"
os.environ[NO_TILES] = "1"


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
        self.inputs, self.home, self._value_of = session.inputs, session.place, session.value_of
        self.held: dict[str, Bindable] = {}
        self.outputs: dict[str, Tensor] = {}
        # Outputs whose size no input tells: ONNX Runtime makes them anew each run.
        self.open: list[str] = []
        self.ready = False
        self.version = 0
        self._places: dict[str, int] = {}  # of the outputs among those bound

    def bind(self, name: str, array: Bindable) -> None:
        """An input or an output, wherever its memory is."""
        if isinstance(array, DeviceArray):
            ports = self.inputs
            if name not in ports:
                self._places.setdefault(name, len(self._places))
            take = self.binding.bind_input if name in ports else self.binding.bind_output
            take(name, self.home, 0, array.dtype.type, array.shape, array.address)
            self.held[name] = array
        elif name in self.inputs:
            self.bind_input(name, array)
        else:
            self.bind_output(name, array)

    def bind_input(self, name: str, array: Tensor) -> None:
        check_contiguous(name, array)
        self.binding.bind_cpu_input(name, array)  # its memory, not a copy
        self.held[name] = array

    def bind_output(self, name: str, array: Tensor) -> None:
        check_contiguous(name, array)
        self._places.setdefault(name, len(self._places))
        self.binding.bind_ortvalue_output(name, self._value_of(array))  # its memory, not a copy
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

    def renew(self, inputs: Collection[str]) -> None:
        """Copy the inputs once more: they may have been rewritten in place."""
        for name, array in list(self.held.items()):
            if name in inputs and not isinstance(array, DeviceArray):
                self.bind_input(name, array)

    def drop(self, feeds: Mapping[str, Bindable]) -> None:
        """Hold no more of the device's memory than was bound."""
        for name, array in feeds.items():
            if isinstance(array, DeviceArray):
                del self.held[name]

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
        self._fixed: dict[str, Bindable] = {}
        self._version = 0
        self._frames: dict[tuple[int, ...], _Frame] = {}

    def bind(self, name: str, array: Bindable) -> None:
        if not isinstance(array, DeviceArray):
            check_contiguous(name, array)
        self._fixed[name] = array
        self._version += 1

    def run(self, feeds: Mapping[str, Bindable]) -> dict[str, Tensor]:
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
                frame.bind(name, array)
        if not frame.ready:
            frame.fit(session.graph)
            self._forget(size)
        if frame.open:
            frame.reopen()
        if session.copies:
            frame.renew(session.inputs)
        try:
            session.inference.run_with_iobinding(frame.binding)
        except Exception as error:  # the provider's own types are not public
            raise DeviceError(session.fault(error)) from error
        if session.memory is not None:  # what was fed is another part next time, and keeps memory
            frame.drop(feeds)
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
                sizes_may_differ |= name in sizing
            else:
                frame.outputs.pop(name, None)
            frame.bind(name, array)
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

    def __init__(
        self, inference: Any, variant: Variant, device: str, file: Path, provider: Provider
    ) -> None:
        ort = load_onnxruntime()
        self.inference: Any = inference
        self.value_of: Any = ort.OrtValue.ortvalue_from_numpy
        self.home, self.place = provider.name, provider.memory
        self.memory = OrtMemory(ort, provider.memory, device) if provider.memory else None
        self.copies = provider.name != CPU.name
        self.wide_masks = not self.copies
        self.graph: Graph = variant.graph
        self.device = device
        self.file = file
        self.inputs = self.graph.input_names()
        self.sizing = sizing_axes(self.graph)

    def request(self) -> OrtRequest:
        return OrtRequest(self)

    def fault(self, error: Exception) -> str:
        return f"{self.device} failed to run {self.file.name}: {first_line(error)}"

    def close(self) -> None:
        """Free the session's memory; open requests must not run afterwards."""
        self.inference = None

    def placement(self) -> Placement:
        """Nodes by provider, as the session recorded it when it was made."""
        parts = self.inference.get_provider_graph_assignment_info()
        nodes = Counter(
            (str(part.ep_name), str(node.op_type)) for part in parts for node in part.get_nodes()
        )
        return Placement(home=self.home, nodes=nodes)


def check_contiguous(name: str, array: Tensor) -> None:
    """Raises ``DeviceError``."""
    if not array.flags.c_contiguous:
        raise DeviceError(f"port {name} must be contiguous; got strides {array.strides}.")


def sizing_axes(graph: Graph) -> tuple[tuple[str, int], ...]:
    """For each free dimension of the outputs, the axis of an input that tells its length."""
    found: dict[str, tuple[str, int]] = {}
    wanted = free_dims(graph.outputs)
    for port in graph.inputs:
        for axis, dim in enumerate(port.shape):
            if dim in wanted:
                found.setdefault(str(dim), (port.name, axis))
    return tuple(found.values())


@dataclass(frozen=True, kw_only=True)
class Provider:
    """An execution provider: the library's name of it, and its options.

    ``places`` are a plug-in's own devices; a provider that is built in has none. ``memory`` is
    where its own lies, if arrays may be left there, in the library's words. ``cpu_ops`` may be left
    to the CPU. One that gives out what it compiled keeps it in ``cache``; that depends on
    ``versions``. ``slower_fused`` are ONNX Runtime's own rewritings of a graph that it loses by.
    """

    name: str
    options: Mapping[str, str] = field(default_factory=dict[str, str])
    places: tuple[Any, ...] = ()
    memory: str = ""
    cpu_ops: tuple[str, ...] = ()
    cache: Path | None = None
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    slower_fused: tuple[str, ...] = ()


# Its kernel that adds and norms at once goes number by number, and takes seven times as long for
# many rows as one after the other.
CPU = Provider(name="CPUExecutionProvider", slower_fused=("SkipLayerNormFusion",))


def compile_session(
    file: Path, variant: Variant, options: DeviceOptions, device: str, provider: Provider
) -> OrtSession:
    """An inference session whose nodes all run on ``provider``, but for what was declared or asked.

    Raises ``DeviceError`` that names the operators left to the CPU.
    """

    def made(graph: Path, *entries: tuple[str, str]) -> OrtSession:
        return _session(graph, file, variant, options, device, provider, entries)

    def written(folder: Path) -> OrtSession:
        target = str(folder / "context.onnx")
        return made(file, ("ep.context_enable", "1"), ("ep.context_file_path", target))

    if provider.cache is None:
        return made(file)
    key = key_of(
        file,
        [file.parent / Path(name).name for name in variant.weights],
        device=device,
        options=dict(provider.options),
        versions=dict(provider.versions),
        cpu_nodes=options.cpu_nodes,
    )
    return kept(provider.cache, key, written, lambda folder: made(folder / "context.onnx"))


def _session(
    graph: Path,
    file: Path,
    variant: Variant,
    options: DeviceOptions,
    device: str,
    provider: Provider,
    entries: tuple[tuple[str, str], ...],
) -> OrtSession:
    """``graph`` is what is read, ``file`` what people know it by."""
    ort = load_onnxruntime()
    settings = session_options(ort, options, provider)
    for key, value in (*entries, *exact_bytes(variant, provider)):
        settings.add_session_config_entry(key, value)
    try:
        if provider.places:
            settings.add_provider_for_devices(list(provider.places), dict(provider.options))
            inference = ort.InferenceSession(str(graph), settings)
        else:
            chosen = [(provider.name, dict(provider.options))]
            inference = ort.InferenceSession(
                str(graph),
                settings,
                providers=chosen,
                disabled_optimizers=list(provider.slower_fused),
            )
        inference.disable_fallback()
        session = OrtSession(inference, variant, device, file, provider)
        placement = session.placement()
    except Exception as error:  # the provider's own types are not public
        raise DeviceError(f"{device} cannot compile {file.name}: {first_line(error)}") from error
    if fault := astray(placement, options, provider):
        session.close()
        raise DeviceError(f"{device} {fault.format(file=file.name)}")
    return session


def astray(placement: Placement, options: DeviceOptions, provider: Provider) -> str:
    """What is wrong with where the nodes came to run; empty where nothing is."""
    left = placement.left
    if left and provider.name not in placement.places:
        # ONNX Runtime goes on without a provider that does not start.
        return (
            "runs no node of {file}: " + provider.name + " did not start, or takes none of them; "
            "check the driver and its libraries, or use another device."
        )
    undeclared = [op for op in left if op not in provider.cpu_ops]
    if options.cpu_nodes or not undeclared:
        return ""
    told = ", ".join(f"{left[op]} {op}" for op in undeclared)
    return (
        "leaves nodes of {file} to the CPU (" + told + "); use another device for this part, such "
        "as ort-cpu."
    )


def exact_bytes(variant: Variant, provider: Provider) -> list[tuple[str, str]]:
    """What makes products of bytes exact on the CPU, where they are not."""
    return [EXACT] if provider is CPU and variant.lowering in BYTES and saturates() else []


def session_options(ort: Any, options: DeviceOptions, provider: Provider) -> Any:
    """Explicit threads, no silent fallback, and a record of where each node runs."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 4 if provider is not CPU else 3  # exceptions tell the same
    # Sizes change every call, so a memory plan per shape is never reused.
    settings.enable_mem_pattern = False
    # Workers that spin from one decode call to the next win a few microseconds each. Left alone,
    # they spin for tens of milliseconds, on cores that the next part's workers want.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "1")
    settings.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_US))
    settings.add_session_config_entry("session.inter_op.allow_spinning", "0")
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if provider is not CPU and not provider.cpu_ops and not options.cpu_nodes:
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return settings
