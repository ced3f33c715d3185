"""A device for tests: a Python function per graph, and faults on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgegen.errors import DeviceError
from edgegen.graph import Graph
from edgegen.manifest import Variant

from .device import DeviceOptions, Feeds, Limits, Tensor

Function = Callable[[Feeds], Mapping[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What goes wrong: compiling, the call of that index (from 0), or the outputs' shapes."""

    compiling: bool = False
    at_call: int | None = None
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
        call = session.calls
        session.calls += 1
        if session.faults.at_call == call:
            raise DeviceError(f"{session.device} failed to run {session.graph.name}: call {call}.")
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

    def __init__(self, graph: Graph, function: Function, device: str, faults: Faults) -> None:
        self.graph, self.function = graph, function
        self.device, self.faults = device, faults
        self.calls = 0
        self.closed = False

    def request(self) -> FakeRequest:
        return FakeRequest(self)

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
        self._functions = dict(functions)
        self._faults = faults or Faults()
        self.limits = Limits(
            formats=("onnx", "openvino"),
            weight_formats=("fp32", "fp16", "bf16", "int8", "int4"),
            caches=caches,
        )

    def missing(self) -> str | None:
        return None

    def describe(self) -> dict[str, str]:
        return {"hardware": "none: a Python function"}

    def compile(self, file: Path, variant: Variant, options: DeviceOptions) -> FakeSession:
        graph = variant.graph
        if self._faults.compiling or graph.name not in self._functions:
            raise DeviceError(f"{self.name} cannot compile {file.name}.")
        return FakeSession(graph, self._functions[graph.name], self.name, self._faults)
