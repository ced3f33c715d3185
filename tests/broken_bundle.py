"""Breaks a tiny bundle by hand, and takes the one line it is refused with."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgegen.bundle import Bundle
from edgegen.bundle_rules import MANIFEST_NAME
from edgegen.errors import BundleError

Break = Callable[[dict[str, Any]], None]
WEIGHTS = "graphs/onnx-int8/weights.bin"
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs fifos and links")


def rewrite(bundle: Path, change: Break) -> None:
    place = bundle / MANIFEST_NAME
    said = json.loads(place.read_bytes())
    change(said)
    place.write_text(json.dumps(said), encoding="utf-8")


def refusal(bundle: Path, verify: bool = True) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.open(bundle, verify=verify)
    line = str(caught.value)
    assert line.isprintable(), line
    assert len(line) < 8192
    return line
