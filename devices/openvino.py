"""OpenVINO sessions for any of its devices.

Arrays are shared with the backend, so what a caller rewrites in place costs nothing the next call
and outputs are views. Properties are always said, never inherited: this library's own choice on
some processors is bfloat16 and int8 activations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

import numpy as np

from edgegen.errors import DeviceError, DeviceMissing
from edgegen.graph import Dim, Graph
from edgegen.manifest import Variant
from edgegen.unreported import unreported

from .compiled import kept, key_of
from .device import DeviceOptions, Feeds, Limits, Placement, Session, Tensor

# Ends and weights of a graph, before and after compiling.
NOT_RUN = frozenset(("Constant", "Const", "Parameter", "Input", "Result", "Output"))
_STALE: Tensor = np.empty(0)  # stands for a feed that was copied
# OpenVINO puts the process's locale aside while it writes what it compiled: two at once put the
# other's stand-in back for good, and all that is read from then on is ASCII.
COMPILING = Lock()
MISSING = "OpenVINO is not installed; pip install 'edgegen[openvino]'"


def load_openvino() -> Any:
    """The module, or ``DeviceMissing`` with the pip line."""
    try:
        with unreported():
            import openvino
    except ImportError as error:
        raise DeviceMissing(f"{MISSING} ({error}).") from error
    return openvino


def reason(error: Exception) -> str:
    """What the library said, on one line and without the places in its own sources."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(("Exception from", "Check '"))]
    kept = told or [line for line in lines if line] or [type(error).__name__]
    return "; ".join(kept)[:300].rstrip(".")


def clash(axes: tuple[Dim, ...], shape: tuple[int, ...], sizes: dict[str, int]) -> str | None:
    """Note the sizes of the free dimensions; the first that was noted otherwise before."""
    for dim, size in zip(axes, shape, strict=True):
        if isinstance(dim, str) and sizes.setdefault(dim, size) != size:
            return f"size {size} where {dim}={sizes[dim]}"
    return None


class OvRequest:
    """Bindings of one caller. A feed whose array object was seen last time is not set again."""

    def __init__(self, session: OvSession) -> None:
        self._session = session
        self._infer = session.compiled.create_infer_request()
        self._held: dict[str, Tensor] = {}
        self._kept: dict[str, Tensor] = {}  # the backend holds addresses, not arrays
        self._bound_outputs: set[str] = set()
        self._checked = False

    def bind(self, name: str, array: Tensor) -> None:
        if name not in self._session.places:
            raise DeviceError(f"{self._session.file.name} has no port {name} to bind.")
        if not array.flags.c_contiguous:
            raise DeviceError(f"port {name} must be contiguous; got strides {array.strides}.")
        self._set(name, array)
        self._held[name] = array
        self._checked = False
        if name in self._session.outputs:
            self._bound_outputs.add(name)

    def run(self, feeds: Feeds) -> dict[str, Tensor]:
        held, session = self._held, self._session
        changed = {name: array for name, array in feeds.items() if held.get(name) is not array}
        for name, array in changed.items():
            if name not in session.inputs:
                raise DeviceError(f"{session.file.name} has no input {name}.")
            if array.flags.c_contiguous:
                self._set(name, array)
                held[name] = array
            else:  # a copy goes stale, so it is made anew each call
                self._set(name, array.copy(order="C"))
                held[name] = _STALE
        if changed or not self._checked:
            self._check_sizes(feeds)
        try:
            # Not infer(), which copies every output besides.
            self._infer.start_async()
            self._infer.wait()
        except Exception as error:  # the backend's own types are not public
            raise DeviceError(
                f"{session.device} failed to run {session.file.name}: {reason(error)}."
            ) from error
        return {
            name: self._infer.get_output_tensor(i).data
            for i, name in enumerate(session.outputs)
            if name not in self._bound_outputs
        }

    def _check_sizes(self, feeds: Feeds) -> None:
        """Every input is there and sizes agree: kernels read past the end where they do not."""
        session, sizes = self._session, dict[str, int]()
        for axes, names in session.alike.items():
            first: tuple[int, ...] | None = None
            for name in names:
                array = feeds.get(name, self._held.get(name, _STALE))
                if array is _STALE:
                    raise DeviceError(f"{session.where}: not given: {session.ports[name]}.")
                if array.shape == first:
                    continue
                first = array.shape
                if fault := clash(axes, first, sizes):
                    raise DeviceError(f"{session.where}: {session.ports[name]} got {fault}.")
        for dim, size in sizes.items():
            terms = dim.split("+")
            if all(term in sizes for term in terms) and sum(sizes[t] for t in terms) != size:
                told = ", ".join(f"{term}={sizes[term]}" for term in terms)
                raise DeviceError(f"{session.where}: {dim}={size} where {told}.")
        self._checked = True

    def _set(self, name: str, array: Tensor) -> None:
        place = self._session.places[name]
        try:
            self._infer.set_tensor(place, self._session.tensor(array, shared_memory=True))
        except Exception as error:  # the backend's own types are not public
            raise DeviceError(
                f"port {self._session.ports[name]} cannot take {array.dtype}{list(array.shape)}: "
                f"{reason(error)}."
            ) from error
        self._kept[name] = array


class OvSession:
    """A compiled IR graph."""

    def __init__(
        self,
        compiled: Any,
        variant: Variant,
        device: str,
        file: Path,
        place: str,
        read: Mapping[str, int],
    ) -> None:
        self.compiled: Any = compiled
        self.home = place
        self.read = read  # operators of the graph as it was read
        self.graph: Graph = variant.graph
        self.device = device
        self.memory, self.wide_masks = None, False
        self.file = file
        self.where = f"graph {self.graph.name}"
        # Layers' ports have one shape: compared whole, only the first is taken apart.
        self.alike: dict[tuple[Dim, ...], list[str]] = {}
        for port in self.graph.inputs:
            self.alike.setdefault(port.shape, []).append(port.name)
        self.tensor: Any = load_openvino().Tensor
        self.inputs = [port.name for port in self.graph.inputs]
        self.outputs = [port.name for port in self.graph.outputs]
        self.ports = {port.name: port for port in (*self.graph.inputs, *self.graph.outputs)}
        self.places = {
            **dict(zip(self.inputs, compiled.inputs, strict=True)),
            **dict(zip(self.outputs, compiled.outputs, strict=True)),
        }

    def request(self) -> OvRequest:
        return OvRequest(self)

    def properties(self) -> dict[str, str]:
        """What the compiled graph really runs with, read back from the backend."""
        known = [str(name) for name in self.compiled.get_property("SUPPORTED_PROPERTIES")]
        return {
            name: said(self.compiled.get_property(name))
            for name in sorted(known)
            if name != "SUPPORTED_PROPERTIES"
        }

    def places_used(self) -> list[str]:
        """The devices that compute, as the compiled graph tells."""
        told = self.compiled.get_property("EXECUTION_DEVICES")
        # The NPU's plugin tells one name, others a list of them.
        return [told] if isinstance(told, str) else [str(name) for name in told]

    def placement(self) -> Placement:
        """Nodes of the graph as it runs, or as it was read where the device, which then compiled it
        whole, does not show the other. Several devices at once stand together."""
        try:
            ops = self.compiled.get_runtime_model().get_ops()
            found: Mapping[str, int] = Counter(
                str(op.get_rt_info()["layerType"].astype(str)) for op in ops
            )
        except Exception:  # of the library's own kind: compiled to one blob
            found = self.read
        where = "+".join(name.partition(".")[0] for name in self.places_used())
        nodes = {(where, op): count for op, count in found.items() if op not in NOT_RUN}
        return Placement(home=self.home, nodes=nodes)

    def close(self) -> None:
        """Free the session's memory; open requests must not run afterwards."""
        self.compiled = None
        self.places = {}


def said(value: Any) -> str:
    """A property's value in the words the library takes back."""
    name = getattr(value, "get_type_name", None)
    return str(name()) if name is not None else str(value)


class OvDevice(ABC):
    """Base of OpenVINO's devices: ``place`` is the library's name. ``probe`` is a property only a
    present device tells, and asking an absent one says why."""

    name: str
    limits: ClassVar[Limits]
    place: str
    probe: str = "FULL_DEVICE_NAME"
    remedy: str

    def missing(self) -> str | None:
        if find_spec("openvino") is None:
            return MISSING
        core = load_openvino().Core()
        try:
            core.get_property(self.place, self.probe)
        except Exception as error:  # the backend's own types are not public
            return self._absent(error)
        return None

    def _absent(self, error: Exception) -> str:
        return f"OpenVINO has no {self.place} here ({reason(error)}); {self.remedy}"

    def describe(self) -> dict[str, str]:
        core = load_openvino().Core()
        return {
            "hardware": str(core.get_property(self.place, "FULL_DEVICE_NAME")),
            **drivers(core, self.place),
        }

    @abstractmethod
    def properties(
        self, variant: Variant, options: DeviceOptions, capabilities: list[str]
    ) -> dict[str, Any]:
        """What a graph is compiled with; ``Session.properties`` tells what came of it."""

    def prepare(self, model: Any, variant: Variant) -> None:
        """Change the graph, in place, to what the device does faster."""
        del model, variant  # most take it as it is

    def compile(self, file: Path, variant: Variant, options: DeviceOptions) -> Session:
        core = load_openvino().Core()
        try:
            capabilities = core.get_property(self.place, "OPTIMIZATION_CAPABILITIES")
            versions = self.describe()
        except Exception as error:  # the backend's own types are not public
            raise DeviceMissing(f"device {self.name}: {self._absent(error)}.") from error
        properties = self.properties(variant, options, list(capabilities))
        return compile_session(
            core,
            file,
            variant,
            self.name,
            self.place,
            properties,
            versions,
            options.cache_of(self.limits),
            prepare=self.prepare,
            alone=not options.cpu_nodes,
        )


# The driver's version, where a device has one.
DRIVERS = ("NPU_DRIVER_VERSION", "GPU_DRIVER_VERSION")


def drivers(core: Any, place: str) -> dict[str, str]:
    """Versions a compiled graph depends on: the library's, the plugin's build, the driver's."""
    supported = {str(key) for key in core.get_property(place, "SUPPORTED_PROPERTIES")}
    told = {"openvino": str(load_openvino().__version__)}
    for key in DRIVERS:
        if key in supported:
            told["driver"] = str(core.get_property(place, key))
    return told


def compile_session(
    core: Any,
    file: Path,
    variant: Variant,
    device: str,
    place: str,
    properties: Mapping[str, Any],
    versions: Mapping[str, str],
    root: Path | None,
    *,
    prepare: Callable[[Any, Variant], None],
    alone: bool,
) -> OvSession:
    """Compile ``file`` with the variant's shared weights, which lie beside it, on OpenVINO's device
    ``place``, and on no other where it is to be ``alone``. The weights are mapped, not read; the
    graph is the device's to ``prepare``. What was compiled is kept in ``root``, if any."""
    weights = [file.parent / Path(name).name for name in variant.weights[:1]]

    def compiled(cache: Path | None = None) -> OvSession:
        chosen = {**properties, **({"CACHE_DIR": str(cache)} if cache else {})}
        try:
            with COMPILING:
                model = core.read_model(file, *weights)
                prepare(model, variant)
                graph = core.compile_model(model, place, chosen)
            read = Counter(str(op.get_type_name()) for op in model.get_ops())
            session = OvSession(graph, variant, device, file, place, read)
            where = session.places_used()
        except Exception as error:  # the backend's own types are not public
            raise DeviceError(f"{device} cannot compile {file.name}: {reason(error)}.") from error
        if alone and any(one.partition(".")[0] != place for one in where):
            raise DeviceError(
                f"{device} runs {file.name} on {', '.join(where)}, not on {place} alone; use "
                "another device for this part, such as ov-cpu."
            )
        return session

    if root is None:
        return compiled()
    said = {name: str(value) for name, value in properties.items()}
    key = key_of(file, weights, device=device, options=said, versions=dict(versions))
    return kept(root, key, compiled, compiled)
