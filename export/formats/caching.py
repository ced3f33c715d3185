"""How the decoders of a format hold keys and values: the kinds written, and their names."""

from __future__ import annotations

from typing import Any

from edgegen.errors import ExportError
from edgegen.manifest import Cache, MemoryFormat

from ..families.base import Family
from ..options import ExportOptions, Format


def cache_kinds(family: Family, options: ExportOptions, form: Format) -> tuple[str, ...]:
    """The kinds of ``decode`` to write in a format. Raises ``ExportError``."""
    shape, name = family.shape, family.checkpoint.model_type
    if shape.recurrent_width:
        if options.caches:
            raise ExportError(
                f"cache {', '.join(options.caches)}: a {name} decoder has a state per layer and "
                "no keys and values; leave --cache out."
            )
        return ("recurrent",)
    if form == "onnx" and shape.bidirectional_prompt:
        if "in_place" in options.caches:
            raise ExportError(
                f"cache in_place: rows of a {name} prompt see later ones, which its kernel never "
                "lets them; leave --cache out."
            )
        return ("append",)
    return options.caches_of(form)


def caches_of(name: str, kinds: tuple[str, ...]) -> list[tuple[str, str]]:
    """Variants of a graph and their kinds: the first goes by the graph's own name."""
    if name != "decode":
        return [(name, "none")]
    return [(name, kinds[0]), *((f"{name}+{kind}", kind) for kind in kinds[1:])]


def cache_of(
    family: Family,
    name: str,
    kind: str,
    spare: int = 0,
    held: MemoryFormat = "fp32",
    in_one_go: tuple[int, ...] = (),
) -> Cache:
    """The manifest's cache record: only ``decode`` has one. ``in_one_go`` as ``keys_in_one_go``."""
    shape = family.shape
    if name != "decode":
        return Cache(kind="none")
    if shape.recurrent_width:
        return Cache(kind="recurrent", layers=shape.layers, heads=1, head_dim=shape.recurrent_width)
    found: Any = kind
    short = kind != "stateful"
    spare = spare if kind == "in_place" and held == "fp32" else 0
    # A memory that every call brings anew is counted among its keys, and the runtime cannot tell.
    counted = held == "fp32" and (kind == "in_place" or not shape.merged)
    return Cache(
        kind=found,
        layers=shape.layers,
        heads=shape.cache_heads,
        head_dim=shape.head_dim,
        spare=spare,
        memory_first=shape.merged and kind == "in_place",
        window=shape.window if short else 0,
        window_layers=shape.window_layers if short else (),
        held=held,
        edges=tuple(keys - spare for keys in in_one_go) if counted else (),
    )
