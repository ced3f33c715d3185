"""What a device is: limits it declares, graphs it compiles, requests that run them.

``Session`` is a compiled graph, shared by threads. ``Request`` is one thread's bindings to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgegen.graph import Graph
from edgegen.manifest import Variant

Tensor = NDArray[Any]
Feeds = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a device takes. ``formats`` and ``caches`` in order of preference.

    ``memories`` are the forms of keys and values, of a source and of the text itself.

    ``cpu_ops`` are operators it may leave to the CPU without being asked; where it leaves others,
    compiling fails. One that ``compiles_slowly`` is worth a cache of what it compiled.
    ``lacks`` are lowerings whose operators it has no kernels for.
    ``equal_rows``: rows that the parity gate saw bit-equal alone and among others are so here; the
    gate runs on the format's CPU device.
    ``tokens_together`` are those of sources that a call of an encoder does well to stay within, 0
    for any: beyond, what lies between its products leaves the cache of a core.
    ``exercised`` is what its code was run on: the hardware it is for, the vendor's
    simulator, other hardware in its place (``emulated``), or nothing.
    """

    formats: tuple[str, ...]
    weight_formats: tuple[str, ...]
    caches: tuple[str, ...]
    memories: tuple[str, ...] = ("fp32",)
    static_shapes: bool = False
    cpu_ops: tuple[str, ...] = ()
    compiles_slowly: bool = False
    lacks: tuple[str, ...] = ()
    equal_rows: bool = False
    tokens_together: int = 0
    exercised: Literal["hardware", "simulator", "emulated", "nothing"] = "nothing"

    def takes(self, variant: Variant) -> bool:
        """Whether graphs of this kind run there."""
        return (
            variant.format in self.formats
            and variant.precision.weight_format in self.weight_formats
            and variant.cache.kind in self.caches
            and {variant.precision.memory, variant.cache.held} <= {*self.memories}
            and variant.lowering not in self.lacks
            and (variant.static or not self.static_shapes)
        )

    @property
    def caveat(self) -> str:
        """What is to be known before a result is believed; empty where it ran on hardware."""
        return {
            "hardware": "",
            "simulator": "not run on hardware: simulator only",
            "emulated": "not run on hardware: emulated only",
            "nothing": "not run on hardware",
        }[self.exercised]


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """Said once when a bundle is loaded. ``exact`` asks for float32 arithmetic on float graphs;
    False lets the device use what it declares faster (bfloat16, dynamic quantisation).

    ``cpu_nodes`` lets the CPU compute what the device leaves. ``cache_dir`` keeps compiled graphs:
    of every device that can give them out, or of those alone that compile slowly.
    """

    threads: int = 1
    exact: bool = True
    cpu_nodes: bool = False
    cache_dir: Path | None = None
    cache: Literal["every", "slow"] = "every"

    def cache_of(self, limits: Limits) -> Path | None:
        """Where a device of these limits keeps what it compiled, if anywhere."""
        return self.cache_dir if self.cache == "every" or limits.compiles_slowly else None


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where the nodes of a compiled graph run, as the backend itself tells.

    ``home`` is the backend's name of the device that was asked for; ``nodes`` counts them by place
    and operator.
    """

    home: str
    nodes: Mapping[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])

    @property
    def places(self) -> dict[str, int]:
        """Nodes by place."""
        found: dict[str, int] = {}
        for (place, _), count in self.nodes.items():
            found[place] = found.get(place, 0) + count
        return found

    @property
    def left(self) -> dict[str, int]:
        """Operators that run elsewhere, and how many nodes of each."""
        return {op: count for (place, op), count in self.nodes.items() if place != self.home}

    def __add__(self, other: Placement) -> Placement:
        nodes = dict(self.nodes)
        for key, count in other.nodes.items():
            nodes[key] = nodes.get(key, 0) + count
        return Placement(home=self.home, nodes=nodes)


@dataclass(frozen=True, eq=False, slots=True)
class DeviceArray:
    """Numbers in a device's own memory, rows in order. ``owner`` is what keeps the memory alive."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    address: int
    owner: Any

    def part(self, start: int, shape: tuple[int, ...]) -> DeviceArray:
        """An array of ``shape`` in the same memory, from number ``start`` on."""
        at = self.address + start * self.dtype.itemsize
        return DeviceArray(shape, self.dtype, at, self.owner)


class DeviceMemory(Protocol):
    """What a device has of memory of its own, that the host does not see."""

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceArray: ...
    def put(self, array: Tensor) -> DeviceArray:
        """A copy of the host's array."""
        ...

    def write(self, array: DeviceArray, values: Tensor) -> None:
        """Copy the host's ``values`` over all of what ``empty`` or ``put`` gave."""
        ...

    def get(self, array: DeviceArray) -> Tensor:
        """A copy, in the host's memory, of what ``empty`` or ``put`` gave, not of a part."""
        ...


class Request(Protocol):
    """One caller's use of a session; not for two threads at once.

    Of a session with a memory of its own it takes ``DeviceArray``s for arrays too, inputs that are
    not copied and outputs that are not copied back; an output among ``feeds`` is where that output
    of this call goes.
    """

    def bind(self, name: str, array: Tensor) -> None:
        """Keep ``array`` as this port's memory until bound anew: the caller writes (or reads) it in
        place. An input and an output may be bound to the same memory."""
        ...

    def run(self, feeds: Feeds) -> dict[str, Tensor]:
        """Run with the bound ports and ``feeds`` for the others; the unbound outputs by name.

        Output arrays may be reused by the next run: copy what must outlive it. Raises
        ``DeviceError``.
        """
        ...


class Session(Protocol):
    """A compiled graph."""

    @property
    def graph(self) -> Graph: ...
    @property
    def device(self) -> str: ...
    @property
    def memory(self) -> DeviceMemory | None:
        """The device's own, where what lies there need not be copied in each call."""
        ...

    @property
    def wide_masks(self) -> bool:
        """Whether a mask over a cache in place may have columns behind the text's rows: they are
        hidden, and rows are written where their own count says."""
        ...

    def request(self) -> Request: ...
    def placement(self) -> Placement: ...
    def close(self) -> None: ...


class Device(Protocol):
    """A place graphs run on."""

    @property
    def name(self) -> str: ...
    @property
    def limits(self) -> Limits: ...
    def missing(self) -> str | None:
        """Why the device cannot be used here, with the way out; None when it can."""
        ...

    def describe(self) -> dict[str, str]:
        """Hardware, driver and library versions for people and reports."""
        ...

    def compile(self, file: Path, variant: Variant, options: DeviceOptions) -> Session:
        """Raises ``DeviceMissing`` or ``DeviceError``."""
        ...
