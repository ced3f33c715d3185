"""``edgegen devices``: what there is to run on, and why what is missing is missing."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from typer import Option

from .console import print_json, stdout, table

if TYPE_CHECKING:
    from rich.table import Table

    from edgegen.devices.listing import DeviceEntry

HELP = """List what there is to run on, and why what is missing is missing.

The first table is what --device takes. The second is what the installed engines say of this
machine: hardware and drivers they could use, whether or not edgegen has a device for them.

  edgegen devices
  edgegen devices --json
"""
Json = Annotated[bool, Option("--json", metavar="", help="Print JSON.")]


def devices(as_json: Json = False) -> None:
    from edgegen.devices.listing import list_devices

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
            rows.add_row(Text(short(entry.name)), "yes", Text(details))
    missing: dict[str, list[str]] = {}
    for entry in entries:
        if not entry.available:
            missing.setdefault(entry.why, []).append(entry.name)
    for why, names in missing.items():
        rows.add_row(Text("\n".join(map(short, names))), "no", Text(why))
    return rows


def short(name: str) -> str:
    """An engine's name for people: every provider of ONNX Runtime is an execution provider."""
    return name.removesuffix("ExecutionProvider")
