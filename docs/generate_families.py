"""Writes docs/families.md: what can be exported, and what then runs it, from the tables themselves.

python docs/generate_families.py          write the page
python docs/generate_families.py --check  exit 1 if the page is out of date
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path

from edgegen.devices import DEVICES, device_named
from edgegen.export.families import FAMILIES
from edgegen.export.families.base import Family
from edgegen.export.families.encoder import EncoderFamily
from edgegen.export.options import WEIGHT_FORMATS
from edgegen.export.quantisers import QUANTISERS
from edgegen.export.sources import SOURCES, list_packages
from edgegen.runtime.drafters import DRAFTERS

PAGE = Path(__file__).with_name("families.md")
HEAD = """# Families

Written by `make docs` from the tables in the code; edit those, not this page.

A family is an architecture. The name that counts is `model_type` in a checkpoint's config.json. One
that is not here can be added: [extending](extend.md#a-family).
"""
RUNS = """## What runs them

Every family is exported to every format and precision, and runs on every device that takes them.
Matrices are held as the precision says, all else in float.
How often 8 bits choose the token that float chooses: [agreement](agreement.md).
"""
DRAFTS = """## Speculation

Every family that writes text takes every drafter; what each promises is in
[speculation](speculation.md). Beams and texts in batches take none: see [beams](beams.md).
"""
CARRIED = """## Models inside Python packages

Read as the source says that the files are of; `-m` takes the name.
"""


def page() -> str:
    parts = [HEAD, families(), RUNS, devices(), DRAFTS, drafters(), CARRIED, packages()]
    return "\n".join(parts)


def families() -> str:
    names = ("family", "architecture", "model types", "tasks", "from", "beams", "batches", "drafts")
    rows = [(f"`{name}`", *facts(FAMILIES[name])) for name in FAMILIES]
    return table((*names, "limits"), rows)


def facts(family: type[Family]) -> Sequence[str]:
    """A family's cells after its name."""
    about = (import_module(family.__module__).__doc__ or "").partition("\n")[0].rstrip(".")
    tasks = family.every_task or (family.task,)
    writes = not issubclass(family, EncoderFamily)
    return (
        about.partition(":")[0],
        quoted(family.model_types),
        ", ".join(tasks),
        ", ".join(sources(family)),
        "yes" if writes else "–",
        "together" if family.batched else "one by one",
        "yes" if writes else "–",
        family.limits,
    )


def sources(family: type[Family]) -> list[str]:
    """Those that read the family, with its model types where they do not read all of them."""
    types, found = set(family.model_types), dict[str, set[str]]()
    for name in SOURCES:
        gives = SOURCES[name].gives
        found[name] = types if gives is None else types & set(gives)
    if not family.in_transformers and any(SOURCES[name].gives and found[name] for name in found):
        # A toolkit's own kind, which folders in transformers' form do not hold.
        found = {name: found[name] for name in found if SOURCES[name].gives}
    return [
        f"{name} ({quoted(sorted(shared))})" if shared < types else name
        for name, shared in found.items()
        if shared
    ]


def devices() -> str:
    rows: list[Sequence[str]] = []
    for name in DEVICES:
        limits = device_named(name).limits
        held = [one for one in WEIGHT_FORMATS if one in limits.weight_formats]
        dense = [one for one in held if one not in QUANTISERS]
        blocks = [one for one in held if one in QUANTISERS]
        caches = [kind for kind in limits.caches if kind != "none"]
        rows.append((f"`{name}`", *map(", ".join, (limits.formats, dense, blocks)), quoted(caches)))
    return table(("device", "formats", "float", "integers in blocks", "caches, best first"), rows)


def drafters() -> str:
    rows = [(f"`{name}`", DRAFTERS[name].lossless) for name in DRAFTERS if name != "none"]
    return table(("drafter", "the text is"), rows)


def packages() -> str:
    rows = [(f"`{one.name}`", one.model) for one in list_packages()]
    return table(("name", "model"), rows)


def quoted(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def main(arguments: list[str]) -> int:
    """Write or check the page; the exit status."""
    text = page()
    if "--check" not in arguments:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    print(f"{PAGE.name} is out of date: run `make docs`.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
