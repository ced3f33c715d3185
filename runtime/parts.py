"""The parts of a bundle, each compiled on its device when first needed; shared by threads.

A part is a component (``features``, ``encode``, ``decode``...); the decoder's further graphs and
what was trained for it lie with it. Where a device fails and another is named to take over, the
failure says so (``PartFailed``) and ``give_way`` moves the part; the work is the caller's to begin
again.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from time import perf_counter
from typing import Any

import numpy as np

from edgegen.bundle import Bundle
from edgegen.devices import Device, DeviceOptions, Placement, Request, Session
from edgegen.devices.device import DeviceArray, DeviceMemory, Feeds, Tensor
from edgegen.errors import BundleError, DeviceError, InputError, UnknownName
from edgegen.graph import Graph
from edgegen.manifest import Variant
from edgegen.registry import unknown

from .static import StaticSession
from .variants import choose_variant, sizes_of, tapped_variants

# What a mapping of parts names the rest by.
DEFAULT = "default"


@dataclass(frozen=True, kw_only=True)
class Fallback:
    """A part that changed its device, and why in a line. ``draft`` stands for a draft model's."""

    part: str
    device: str
    to: str
    reason: str


class PartFailed(DeviceError):
    """A device failed and another may take over: ``parts.give_way(failure)``, then begin again."""

    def __init__(self, parts: Parts, part: str, device: Device, reason: str) -> None:
        super().__init__(reason)
        self.parts, self.part, self.device = parts, part, device


class Parts:
    """``device`` and ``precision`` are for all parts or by part, the rest under ``default``.

    ``role`` names the whole in the record of fallbacks, where its parts are not a user's to name.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: Device | Mapping[str, Device],
        options: DeviceOptions,
        precision: str | Mapping[str, str] | None = None,
        fallback: Sequence[Device] = (),
        *,
        static: bool = False,
        role: str = "",
    ) -> None:
        self.bundle, self.options, self.role, self.static = bundle, options, role, static
        # Each is of one decoder, and used with that one only.
        self._trained = sorted({one.component for one in bundle.manifest.conditions})
        names = [name for name in bundle.manifest.components if name not in self._trained]
        self.names = tuple(names)
        given = device if isinstance(device, Mapping) else {DEFAULT: device}
        formats = precision if isinstance(precision, Mapping) else {DEFAULT: precision}
        for named in (given, formats):
            check_parts(named, names)
        self._precisions = {name: formats.get(name, formats.get(DEFAULT)) for name in names}
        self.devices: dict[str, Device] = {}
        self.variants: dict[str, Variant] = {}
        self.compile_seconds: dict[str, float] = {}
        self.fallbacks: tuple[Fallback, ...] = ()
        self._sessions: dict[str, tuple[Session, Variant]] = {}
        self._retired: list[Session] = []
        self._lock = Lock()
        self._making: dict[str, Lock] = {}  # a component is compiled once, whoever asks
        self._closed = False
        self._left: dict[str, list[Device]] = {}
        for name in names:
            first = device_of(name, given)
            self._left[name] = [one for one in fallback if one.name != first.name]
            self._put(name, first)

    def session(self, name: str) -> Session:
        """The compiled component, compiled now if it was not needed before."""
        return self.opened(name)[0]

    def opened(self, name: str) -> tuple[Session, Variant]:
        """The same with the variant it was compiled from."""
        found = self._sessions.get(name)
        if found is not None:
            return found
        with self._making.setdefault(name, Lock()):
            while (found := self._sessions.get(name)) is None:
                self._make(name)
            return found

    def open(self, names: Sequence[str]) -> None:
        """Compile these now, as ``opening`` does."""
        with self.opening(names):
            pass

    @contextmanager
    def opening(self, names: Sequence[str]) -> Generator[None]:
        """Compile these side by side, each on the first device that can: the last one by the
        caller, behind the block, the others meanwhile. Of several that cannot be the first is
        told."""
        with ThreadPoolExecutor(max(1, len(names) - 1), "edgegen-compile") as pool:
            beside = [pool.submit(self._settle, name) for name in names[:-1]]
            yield
            failed: Exception | None = None
            try:
                for name in names[-1:]:
                    self._settle(name)
            except Exception as error:
                failed = error
            for one in beside:
                one.result()
            if failed is not None:
                raise failed

    def give_way(self, failure: PartFailed) -> None:
        """Put the part on the next device. Raises what the last one said where none is left."""
        with self._lock:
            if self.devices[failure.part] is not failure.device:
                return  # another thread was first
            # Others may still be running there, so its memory is freed with everything else.
            for name in [one for one in self._sessions if self.part_of(one) == failure.part]:
                self._retired.append(self._sessions.pop(name)[0])
            self._put(failure.part, self._next(failure.part, failure.device, failure))

    def fail(self, part: str, device: Device, error: DeviceError) -> None:
        """Raise ``PartFailed`` where another device may take over; else nothing is done."""
        with self._lock:  # else what takes over may be on its way, and neither left nor there
            taken_over = self._left[part] or self.devices[part] is not device
        if taken_over:
            raise PartFailed(self, part, device, str(error)) from error

    def close(self) -> None:
        """Free the compiled graphs."""
        with self._lock:
            self._closed = True
            for session, _ in self._sessions.values():
                session.close()
            for session in self._retired:
                session.close()
            self._sessions.clear()
            self._retired.clear()

    def part_of(self, component: str) -> str:
        """The part a component lies with."""
        return "decode" if component in self._trained else component.partition("+")[0]

    # ------------------------------------------------------------ a device

    def _settle(self, name: str) -> None:
        while name not in self._sessions:
            try:
                self.session(name)
            except PartFailed as failure:
                self.give_way(failure)

    def _make(self, name: str) -> None:
        """Compile a component where its part is now; nothing is kept if it left there meanwhile."""
        with self._lock:
            if self._closed:
                raise InputError("the pipeline is closed; load the bundle again.")
            variant, device = self.variants[name], self.devices[self.part_of(name)]
        start = perf_counter()
        session = self._open(name, variant, device)
        with self._lock:
            if not self._closed and self.devices[self.part_of(name)] is device:
                self._sessions[name] = session, variant
                self.compile_seconds[name] = perf_counter() - start
                return
        session.close()

    def _put(self, part: str, device: Device) -> None:
        """Choose a device for the part, ``device`` if it takes it, and its variants there."""
        while True:
            try:
                chosen = self._chosen(part, device)
                break
            except (DeviceError, BundleError) as error:
                device = self._next(part, device, error)
        others = {name: v for name, v in self.variants.items() if self.part_of(name) != part}
        # Replaced whole: other threads may be reading.
        self.variants = {**others, **chosen}
        self.devices = {**self.devices, part: device}

    def _chosen(self, part: str, device: Device) -> dict[str, Variant]:
        why = device.missing()
        if why is not None:
            raise DeviceError(f"device {device.name} cannot be used here: {why}.")
        precision = self._precisions[part]
        plain = choose_variant(self.bundle, part, device, precision, static=self.static)
        if part != "decode":
            return {part: plain}
        trained = {name: self.bundle.component(name).variants[0] for name in self._trained}
        return {part: plain, **tapped_variants(self.bundle, plain), **trained}

    def _next(self, part: str, device: Device, error: Exception) -> Device:
        """The next device of the part, noted down. Raises ``error`` where there is none."""
        if not self._left[part]:
            raise error
        following = self._left[part].pop(0)
        note = Fallback(
            part=self.role or part, device=device.name, to=following.name, reason=str(error)
        )
        self.fallbacks = (*self.fallbacks, note)
        return following

    def _open(self, name: str, variant: Variant, device: Device) -> Session:
        part = self.part_of(name)

        def compiled(variant: Variant) -> Session:
            file = self.bundle.file(variant.file)
            try:
                session = device.compile(file, variant, self.options)
            except DeviceError as error:
                self.fail(part, device, error)
                raise
            return PartSession(session, self, part, device)

        if not variant.static:
            return compiled(variant)
        return StaticSession(sizes_of(self.bundle, name, variant), compiled)


class PartSession:
    """A device's session whose failures name the part, and whose outputs are what was declared."""

    def __init__(self, session: Session, parts: Parts, part: str, device: Device) -> None:
        self.inner, self._parts, self._part, self._device = session, parts, part, device
        self.shapes = {port.name: port.shape for port in session.graph.outputs}
        # Shapes seen and found right: looked at once.
        self.known: set[tuple[str, tuple[int, ...]]] = set()

    @property
    def graph(self) -> Graph:
        return self.inner.graph

    @property
    def device(self) -> str:
        return self.inner.device

    @property
    def memory(self) -> DeviceMemory | None:
        return None if self.inner.memory is None else PartMemory(self.inner.memory, self)

    @property
    def wide_masks(self) -> bool:
        return self.inner.wide_masks

    def request(self) -> Request:
        return PartRequest(self.inner.request(), self)

    def placement(self) -> Placement:
        return self.inner.placement()

    def close(self) -> None:
        self.inner.close()

    def fail(self, error: DeviceError) -> None:
        self._parts.fail(self._part, self._device, error)

    def check(self, name: str, shape: tuple[int, ...]) -> None:
        """Raises ``DeviceError`` unless an output has the sizes its port fixes."""
        port = self.shapes[name]
        if len(port) != len(shape) or any(
            isinstance(dim, int) and dim != size for dim, size in zip(port, shape, strict=True)
        ):
            raise DeviceError(
                f"{self.device} gave {name} of graph {self.graph.name} as {list(shape)}, expected "
                f"[{', '.join(map(str, port))}]; use another device, or --fallback."
            )
        self.known.add((name, shape))


class PartMemory:
    """Its device's memory; one that is full, or lost, has failed."""

    def __init__(self, memory: DeviceMemory, session: PartSession) -> None:
        self._memory, self._session = memory, session

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceArray:
        with self._failing():
            return self._memory.empty(shape, dtype)

    def put(self, array: Tensor) -> DeviceArray:
        with self._failing():
            return self._memory.put(array)

    def write(self, array: DeviceArray, values: Tensor) -> None:
        with self._failing():
            self._memory.write(array, values)

    def get(self, array: DeviceArray) -> Tensor:
        with self._failing():
            return self._memory.get(array)

    @contextmanager
    def _failing(self) -> Generator[None]:
        try:
            yield
        except DeviceError as error:
            self._session.fail(error)
            raise


class PartRequest:
    """One caller's use of it."""

    def __init__(self, request: Request, session: PartSession) -> None:
        self._request, self._session = request, session
        self.bind = request.bind
        self._checked: dict[str, Tensor] | None = None

    def run(self, feeds: Feeds) -> dict[str, Tensor]:
        try:
            outputs = self._request.run(feeds)
            if outputs is not self._checked:  # another size of call, or made anew
                self._check(outputs)
        except DeviceError as error:
            self._session.fail(error)
            raise
        return outputs

    def _check(self, outputs: dict[str, Tensor]) -> None:
        session = self._session
        for name, array in outputs.items():
            if (name, array.shape) not in session.known:
                session.check(name, array.shape)
        self._checked = outputs


def device_of(part: str, given: Mapping[str, Device]) -> Device:
    """The device of a part, by its name or ``default``. Raises ``InputError``."""
    found = given.get(part, given.get(DEFAULT))
    if found is None:
        raise InputError(f"no device is given for {part}; name one, or a {DEFAULT!r}.")
    return found


def check_parts(given: Mapping[str, object], names: Sequence[str]) -> None:
    """Raises ``UnknownName`` for a part there is not."""
    for name in given:
        if name not in (*names, DEFAULT):
            raise UnknownName(unknown("part", name, [*names, DEFAULT]))
