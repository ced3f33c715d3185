"""``edgegen inspect``: what is in a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from .console import print_json, stdout

HELP = """Show what is in a bundle, and check that every file is whole.

The model, its graphs with precision and size, how far they are from the checkpoint (parity),
the special ids and where it came from. Sizes are powers of 1000 bytes.

  edgegen inspect bundles/en-pt
  edgegen inspect bundles/en-pt --json | jq .parity
"""

BundleDir = Annotated[Path, Argument(metavar="DIR", help="Bundle folder.", show_default=False)]
Json = Annotated[bool, Option("--json", metavar="", help="Print JSON, sizes in bytes.")]
NoVerify = Annotated[
    bool,
    Option("--no-verify", metavar="", help="Check names and sizes of files, not their hashes."),
]


def inspect(bundle: BundleDir, no_verify: NoVerify = False, as_json: Json = False) -> None:
    from edgegen.bundle import Bundle
    from edgegen.inspection import describe, show

    found = Bundle.open(bundle, verify=not no_verify)
    if as_json:
        print_json(describe(found))
    else:
        show(found, stdout())
