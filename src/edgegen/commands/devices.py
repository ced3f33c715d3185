"""``edgegen devices``: what there is to run on, and why what is missing is missing."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from edgegen.errors import InputError

from .check import checking
from .console import print_json, stdout, table

if TYPE_CHECKING:
    from rich.table import Table

    from edgegen.devices.listing import DeviceEntry

HELP = """List what there is to run on, and why what is missing is missing.

The first table is what --device takes. The second is what the installed engines say of this
machine: hardware and drivers they could use, whether or not edgegen has a device for them.

With --check each graph of a bundle is compiled on each device that takes it, and where the nodes
really run is told by the engine: a node that is left to the CPU is never silent. Status 1 where a
device that was named is not here or does not run all of its graphs. docs/devices.md says more.

  edgegen devices
  edgegen devices --check bundles/en-pt
  edgegen devices --check bundles/en-pt --device ort-cpu,ort-qnn --json
"""
Json = Annotated[bool, Option("--json", metavar="", help="Print JSON.")]
Check = Annotated[
    Path | None,
    Option("--check", metavar="DIR", help="Bundle to compile on the devices.", show_default=False),
]
Names = Annotated[
    str | None,
    Option(
        "--device", "--devices", "-d", metavar="LIST", show_default=False,
        help="Devices to check, with commas between; ort:PACKAGE or ort:FILE for a provider "
        "library of ONNX Runtime. Default: all.",
    ),
]  # fmt: skip
Threads = Annotated[int, Option("--threads", "-t", metavar="N", help="Processor threads.", min=1)]


def devices(
    check: Check = None, names: Names = None, threads: Threads = 1, as_json: Json = False
) -> None:
    from edgegen.devices.listing import list_devices

    if check is not None:
        checking(check, names, threads, as_json)
        return
    if names is not None:
        raise InputError("--device chooses among what is checked; give --check DIR too.")
    found = list_devices()
    if as_json:
        print_json([asdict(entry) for entry in found])
        return
    stdout().print(listing("device", [entry for entry in found if entry.usable]))
    stdout().print()
    stdout().print(listing("engine", [entry for entry in found if not entry.usable]))


def listing(kind: str, entries: list[DeviceEntry]) -> Table:
    """What is available first; what is missing for one and the same reason in one row."""
    from rich.text import Text

    rows = table(kind, "here", "what, or why not")
    for entry in entries:
        if entry.available:
            details = ", ".join(f"{name} {value}" for name, value in entry.details.items())
            rows.add_row(Text(short(entry.name)), "yes", Text(joined(details, entry.caveat)))
    missing: dict[str, list[str]] = {}
    for entry in entries:
        if not entry.available:
            missing.setdefault(joined(entry.why, entry.caveat), []).append(entry.name)
    for why, names in missing.items():
        rows.add_row(Text("\n".join(map(short, names))), "no", Text(why))
    return rows


def joined(told: str, caveat: str) -> str:
    return f"{told}. Its code was {caveat}." if caveat else told


def short(name: str) -> str:
    """An engine's name for people: every provider of ONNX Runtime is an execution provider."""
    return name.removesuffix("ExecutionProvider")
