"""Writes docs/bundle.schema.json from the types of the manifest: python docs/generate_schema.py"""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgegen.manifest import json_schema


def main() -> None:
    text = msgspec.json.format(msgspec.json.encode(json_schema()), indent=1)
    Path(__file__).with_name("bundle.schema.json").write_bytes(text + b"\n")


if __name__ == "__main__":
    main()
