"""The contract between an exporter and a runtime: named ports with types and shapes.

Knows nothing of any backend. A free dimension is a name (``"n"``, ``"past"``); the same name in
two ports of one call must have the same size. ``"past+n"`` is a sum of named dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from edgegen.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Dim = int | str
# Additive mask value of what nobody may see: finite, safe in float16 when added to a score, and
# exp() of it is exactly 0.
HIDDEN = -3.0e4


class Port(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input or output: ``dtype`` is a numpy name (``int64``, ``float32``)."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}[{','.join(map(str, self.shape))}]"


class Graph(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A graph's ports in order. ``name`` is the component: ``encode``, ``decode``, ``features``."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def input_names(self) -> frozenset[str]:
        return frozenset(port.name for port in self.inputs)

    def check(self, feeds: Mapping[str, NDArray[np.generic]]) -> dict[str, int]:
        """Check names, types and shapes; return the sizes of the free dimensions.

        Raises ``InputError`` with every fault in one line.
        """
        sizes: dict[str, int] = {}
        faults = [f"unknown input {name}" for name in feeds if name not in self.input_names()]
        for port in self.inputs:
            if port.name not in feeds:
                faults.append(f"missing {port}")
                continue
            faults += _port_faults(port, feeds[port.name], sizes)
        if faults:
            raise InputError(f"graph {self.name}: {'; '.join(faults)}.")
        return sizes


def resolve(shape: tuple[Dim, ...], sizes: Mapping[str, int]) -> tuple[int, ...] | None:
    """A shape as integers, or None when a named dimension has no size yet."""
    found: list[int] = []
    for dim in shape:
        if isinstance(dim, int):
            found.append(dim)
            continue
        terms = dim.split("+")
        if any(term not in sizes for term in terms):
            return None
        found.append(sum(sizes[term] for term in terms))
    return tuple(found)


def free_dims(ports: Iterable[Port]) -> frozenset[str]:
    """Names of dimensions that stand in the ports' shapes, alone or in sums."""
    return frozenset(
        term
        for port in ports
        for dim in port.shape
        if isinstance(dim, str)
        for term in dim.split("+")
    )


def pinned(graph: Graph, sizes: Mapping[str, int]) -> Graph:
    """The graph with the dimensions that ``sizes`` tells as numbers; others stay free."""

    def pin(port: Port) -> Port:
        shape = tuple((resolve((dim,), sizes) or (dim,))[0] for dim in port.shape)
        return msgspec.structs.replace(port, shape=shape)

    return Graph(
        name=graph.name,
        inputs=tuple(map(pin, graph.inputs)),
        outputs=tuple(map(pin, graph.outputs)),
    )


def _port_faults(port: Port, array: Any, sizes: dict[str, int]) -> list[str]:
    if str(array.dtype) != port.dtype or len(array.shape) != len(port.shape):
        return [f"{port} got {array.dtype}[{','.join(map(str, array.shape))}]"]
    faults: list[str] = []
    for dim, size in zip(port.shape, array.shape, strict=True):
        if isinstance(dim, str) and "+" in dim:
            continue
        expected = dim if isinstance(dim, int) else sizes.setdefault(dim, size)
        if expected != size:
            faults.append(f"{port} got size {size} where {dim}={expected}")
    return faults
