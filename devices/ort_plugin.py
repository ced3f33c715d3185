"""A provider library that others made: ``ort:PACKAGE`` or ``ort:PATH``.

Nothing is known of it but what ONNX Runtime tells, so it is held to the strictest: every node.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgegen.errors import DeviceMissing

from .device import DeviceOptions, Limits
from .onnxruntime import load_onnxruntime
from .provider import OrtProvider, claimed_by, register


class OrtPlugin(OrtProvider):
    """``library`` is a package with ``get_library_path()``, as provider wheels have, or a file."""

    remedy = "name a package with get_library_path(), or a library's path"
    limits = Limits(
        formats=("onnx",),
        weight_formats=("fp32", "fp16", "int8", "int4", "qdq"),
        caches=("append", "in_place", "recurrent", "none"),
    )

    def __init__(self, library: str) -> None:
        self.name = f"ort:{library}"
        self._library = library

    def found(self) -> tuple[Any, ...]:
        ort, path = load_onnxruntime(), library_path(self._library)
        register(ort, path, path)
        names = [place.ep_name for place in ort.get_ep_devices() if brought_by(place, path)]
        if not names:
            raise DeviceMissing(f"{self.name} offers no device here; check its driver")
        self.provider = names[0]
        return claimed_by(ort, self.provider)

    def options(self, places: tuple[Any, ...], options: DeviceOptions) -> Mapping[str, str]:
        return {}


def library_path(library: str) -> str:
    """Where the library lies. Raises ``DeviceMissing``."""
    if Path(library).is_file():
        return str(Path(library).resolve())
    if library.isidentifier() and find_spec(library) is not None:
        found = getattr(import_module(library), "get_library_path", None)
        if found is not None:
            return str(Path(found()).resolve())
    raise DeviceMissing(f"provider library {library}: no such file or package; {OrtPlugin.remedy}")


def brought_by(place: Any, path: str) -> bool:
    told = place.ep_metadata.get("library_path")
    return told is not None and Path(told).resolve() == Path(path)
