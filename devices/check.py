"""What a device makes of a bundle: each graph that it takes compiled, and where the nodes run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

from edgegen.bundle import Bundle
from edgegen.errors import DeviceError
from edgegen.manifest import Variant

from .device import Device, DeviceOptions, Limits, Placement


@dataclass(frozen=True, kw_only=True)
class GraphCheck:
    """One graph. ``places`` counts nodes by the backend's names of where they run; ``left`` are
    operators that run elsewhere than on the device. ``error`` says why it is not used so."""

    component: str
    file: str
    weight_format: str
    cache: str
    sizes: dict[str, int]
    seconds: float = 0.0
    places: dict[str, int] = field(default_factory=dict[str, int])
    left: dict[str, int] = field(default_factory=dict[str, int])
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class DeviceCheck:
    """``why`` there are no graphs: the device is not here, or takes none of the bundle's.
    ``caveat``: what its results were never held against."""

    device: str
    here: bool
    why: str = ""
    caveat: str = ""
    details: dict[str, str] = field(default_factory=dict[str, str])
    graphs: tuple[GraphCheck, ...] = ()

    @property
    def sound(self) -> bool:
        """The device is here, takes graphs of the bundle, and runs all of those."""
        return bool(self.graphs) and not any(graph.error for graph in self.graphs)


def check_device(
    bundle: Bundle, device: Device, options: DeviceOptions, stage: Callable[[str], None]
) -> DeviceCheck:
    """Compile each graph of the bundle that the device takes, as ``load`` would. What fails is
    told, not raised; ``stage`` is told what is being compiled."""
    caveat, missing = device.limits.caveat, device.missing()
    if missing is not None:
        return DeviceCheck(device=device.name, here=False, why=missing, caveat=caveat)
    found = [
        (name, variant)
        for name, component in bundle.manifest.components.items()
        for variant in component.variants
    ]
    taken = [(name, variant) for name, variant in found if device.limits.takes(variant)]
    graphs: list[GraphCheck] = []
    for name, variant in taken:
        stage(f"{device.name}: {variant.file}")
        graphs.append(check_graph(bundle.file(variant.file), name, variant, device, options))
    return DeviceCheck(
        device=device.name,
        here=True,
        why="" if taken else mismatch(device.limits, [variant for _, variant in found]),
        caveat=caveat,
        details=device.describe(),
        graphs=tuple(graphs),
    )


def check_graph(
    file: Path, component: str, variant: Variant, device: Device, options: DeviceOptions
) -> GraphCheck:
    """What became of one graph. One that is refused is compiled again with the CPU's help, to tell
    which operators were in the way."""
    record = GraphCheck(
        component=component,
        file=variant.file,
        weight_format=variant.precision.weight_format,
        cache=variant.cache.kind,
        sizes=dict(variant.buckets),
    )
    start = perf_counter()
    try:
        placement = placed(file, variant, device, options)
    except DeviceError as error:
        record = replace(record, error=str(error))
        try:
            placement = placed(file, variant, device, replace(options, cpu_nodes=True))
        except DeviceError:  # it was not the CPU's help that it lacked: the first error stands
            return record
    else:
        record = replace(record, seconds=perf_counter() - start)
    return replace(record, places=placement.places, left=placement.left)


def placed(file: Path, variant: Variant, device: Device, options: DeviceOptions) -> Placement:
    session = device.compile(file, variant.fixed(), options)
    try:
        return session.placement()
    finally:
        session.close()


def mismatch(limits: Limits, variants: Sequence[Variant]) -> str:
    """Why none of these is taken, and how to come by one that is."""
    static = " static" * limits.static_shapes
    has = dict.fromkeys(
        f"{one.format} {one.precision.weight_format}" + " static" * one.static for one in variants
    )
    formats = " or ".join(limits.formats)
    return (
        f"it takes{static} {formats} in {', '.join(limits.weight_formats)}; the bundle has "
        f"{', '.join(has)}. Export with --format {limits.formats[0]}" + " --static" * bool(static)
    )
