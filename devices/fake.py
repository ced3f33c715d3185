"""A device for tests: a Python function per graph, and faults on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgegen.errors import DeviceError
from edgegen.graph import Graph
from edgegen.manifest import Variant

from .device import DeviceOptions, Feeds, Limits, Placement, Tensor

Function = Callable[[Feeds], Mapping[str, Tensor]]
LOST = "the device was lost and does not come back; restart it, or use another"


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What goes wrong: the device is ``missing`` for a reason, refuses to compile (all graphs, or
    those named), fails at the call of that index (from 0) with these ``words``, or gives outputs of
    a ``wrong_shape``. One that is ``lost`` fails at every call after, and compiles nothing."""

    missing: str | None = None
    compiling: bool = False
    graphs: tuple[str, ...] = ()
    at_call: int | None = None
    words: str = ""
    lost: bool = False
    wrong_shape: bool = False


class FakeRequest:
    """Bound ports and feeds go to the function; bound outputs are written in place."""

    def __init__(self, session: FakeSession) -> None:
        self._session = session
        self._bound: dict[str, Tensor] = {}

    def bind(self, name: str, array: Tensor) -> None:
        self._bound[name] = array

    def run(self, feeds: Feeds) -> dict[str, Tensor]:
        session = self._session
        names = session.graph.input_names()
        given = {name: array for name, array in self._bound.items() if name in names}
        given.update(feeds)
        session.graph.check(given)
        session.count()
        found = dict(session.function(given))
        if session.faults.wrong_shape:
            found = {name: array[..., :-1] for name, array in found.items()}
        for name in found.keys() & self._bound.keys():
            bound, array = self._bound[name], found.pop(name)
            if bound.shape != array.shape:
                raise DeviceError(
                    f"{session.device} gave {name} of graph {session.graph.name} as "
                    f"{list(array.shape)}, expected {list(bound.shape)}."
                )
            np.copyto(bound, array)
        return found


class FakeSession:
    """``calls`` counts the runs of all requests."""

    def __init__(self, graph: Graph, function: Function, owner: FakeDevice) -> None:
        self.graph, self.function, self.owner = graph, function, owner
        self.device, self.faults = owner.name, owner.faults
        self.calls = 0
        self.closed = False
        self.memory, self.wide_masks = None, False

    def request(self) -> FakeRequest:
        return FakeRequest(self)

    def count(self) -> None:
        """One more run. Raises ``DeviceError`` where it is the one that fails."""
        call, faults, owner = self.calls, self.faults, self.owner
        self.calls += 1
        fails = faults.at_call == call
        owner.lost |= fails and faults.lost
        if fails or owner.lost:
            why = LOST if owner.lost else faults.words or f"call {call}"
            raise DeviceError(f"{self.device} failed to run {self.graph.name}: {why}.")

    def placement(self) -> Placement:
        """One function, whatever the graph."""
        return Placement(home=self.device, nodes={(self.device, "function"): 1})

    def close(self) -> None:
        self.closed = True


class FakeDevice:
    """``functions`` by graph name; any file compiles and none is read."""

    name = "fake"

    def __init__(
        self,
        functions: Mapping[str, Function],
        faults: Faults | None = None,
        caches: tuple[str, ...] = ("append", "in_place", "recurrent", "none"),
    ) -> None:
        self.functions = dict(functions)
        self.faults = faults or Faults()
        self.lost = False
        self.limits = Limits(
            formats=("onnx", "openvino"),
            weight_formats=("fp32", "fp16", "bf16", "int8", "int4"),
            caches=caches,
            equal_rows=True,
        )

    def missing(self) -> str | None:
        return self.faults.missing

    def describe(self) -> dict[str, str]:
        return {"hardware": "none: a Python function"}

    def compile(self, file: Path, variant: Variant, options: DeviceOptions) -> FakeSession:
        graph, faults = variant.graph, self.faults
        if self.lost:
            raise DeviceError(f"{self.name} cannot compile {file.name}: {LOST}.")
        refused = faults.compiling and graph.name in (faults.graphs or (graph.name,))
        if refused or graph.name not in self.functions:
            raise DeviceError(f"{self.name} cannot compile {file.name}.")
        return FakeSession(graph, self.functions[graph.name], self)
