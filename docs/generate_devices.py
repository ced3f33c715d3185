"""Writes the table of docs/devices.md from the table of devices.

python docs/generate_devices.py          write it
python docs/generate_devices.py --check  exit 1 if it is out of date
"""

from __future__ import annotations

import sys
from pathlib import Path

from generate_families import quoted, table

from edgegen.devices import DEVICES, device_named
from edgegen.devices.device import Limits

PAGE = Path(__file__).with_name("devices.md")
BEGIN, END = "<!-- devices: written by make docs -->\n", "<!-- devices: end -->"


def rows() -> str:
    names = ("device", "formats", "weights", "source in", "sizes", "caches, best first", "run on")
    return table(names, [(f"`{name}`", *cells(device_named(name).limits)) for name in DEVICES])


def cells(limits: Limits) -> tuple[str, ...]:
    ran = limits.caveat.removeprefix("not run on hardware: ").replace(" only", "")
    return (
        ", ".join(limits.formats),
        ", ".join(limits.weight_formats),
        ", ".join(limits.memories),
        "fixed" if limits.static_shapes else "any",
        quoted(kind for kind in limits.caches if kind != "none"),
        {"": "hardware", "not run on hardware": "none yet"}.get(ran, ran),
    )


def page() -> str:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{rows()}\n{END}{after}"


def main(arguments: list[str]) -> int:
    """Write or check the page; the exit status."""
    text = page()
    if "--check" not in arguments:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") == text:
        return 0
    print(f"{PAGE.name} is out of date: run `make docs`.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
