"""``edgegen devices --check``: where the nodes of a bundle's graphs really run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from typer import Exit

from .console import print_json, stdout, table
from .lists import words

if TYPE_CHECKING:
    from rich.table import Table

    from edgegen.devices.check import DeviceCheck, GraphCheck


def checking(folder: Path, names: str | None, threads: int, as_json: bool) -> None:
    """Check, print, and leave with status 1 where something is not as asked.

    Of devices that were named, that is one that is not here or takes nothing; of all, one that is
    here and fails.
    """
    from edgegen.bundle import Bundle
    from edgegen.devices import DEVICES, DeviceOptions, device_named
    from edgegen.devices.check import check_device

    from .stages import Stages

    asked = [device_named(name) for name in words(names or "") or DEVICES]
    bundle = Bundle.open(folder)
    with Stages() as stages:
        options = DeviceOptions(threads=threads)
        found = [check_device(bundle, device, options, stages) for device in asked]
    if as_json:
        print_json([{**asdict(one), "sound": one.sound} for one in found])
    else:
        show(found)
    if any(not one.sound and (names or one.graphs) for one in found):
        raise Exit(1)


def show(found: Sequence[DeviceCheck]) -> None:
    """Devices with graphs first, each with a table; the others in a line each."""
    console = stdout()
    for one in found:
        if one.graphs:
            for line in heading(one):
                console.print(line)
            console.print(graphs(one.graphs))
            for error in dict.fromkeys(graph.error for graph in one.graphs if graph.error):
                console.print(f"  {error}")
            console.print()
    for one in found:
        if not one.graphs:
            kind = "takes no graph of this bundle" if one.here else "is not here"
            console.print(f"{one.device} {kind}: {one.why}.")


def heading(one: DeviceCheck) -> list[str]:
    details = ", ".join(f"{name} {value}" for name, value in one.details.items())
    return [f"{one.device}: {details}", *([f"  {one.caveat}"] if one.caveat else [])]


def graphs(found: Sequence[GraphCheck]) -> Table:
    from rich.text import Text

    from .devices import short

    rows = table("graph", "weights", "nodes run on", "left to others", "compiled")
    for graph in found:
        sizes = [f"{dim}={size}" for dim, size in graph.sizes.items()]
        sizes += [graph.cache] if graph.cache != "none" else []
        rows.add_row(
            Text(" ".join((graph.component, *sizes))),
            graph.weight_format,
            Text(", ".join(f"{count} {short(place)}" for place, count in graph.places.items())),
            Text(", ".join(f"{count} {op}" for op, count in graph.left.items()) or "-"),
            Text("refused", style="bold red") if graph.error else f"{graph.seconds:.2f} s",
        )
    return rows
