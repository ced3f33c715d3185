"""Static variants: which sizes a family's graphs are pinned to. Knows no format.

A static graph is the plain lowering of the same family with its free dimensions as numbers. Its
ports stay those of the dynamic graph; the manifest's ``buckets`` say the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product

from edgegen.errors import ExportError
from edgegen.graph import Graph, free_dims
from edgegen.manifest import Cache

from .families.base import Family, decode_graph
from .options import StaticSizes

Sizes = dict[str, int]
# Dimensions that have the size of another, the first there is: every row may have logits, and as
# many states are offered.
SAME: Mapping[str, tuple[str, ...]] = {"m": ("n", "S"), "states": ("n",)}


def static_graph(family: Family, name: str) -> Graph:
    """Ports of a static graph, their dimensions still free. Layers with a window hold every row:
    what is out of sight is hidden."""
    shape = family.shape
    if family.encoding() is not None:
        raise ExportError(
            "static sizes: a model without a decoder has no graphs of fixed sizes; "
            "leave --static out."
        )
    if name != "decode":
        return family.graph(name, "none")
    if shape.bidirectional_prompt:
        raise ExportError(
            f"static sizes: the prompt of a {family.checkpoint.model_type} decoder is one call of "
            "any length, which no fixed size takes; leave --static out."
        )
    if not shape.window_layers:
        return family.graph(name, "recurrent" if shape.recurrent_width else "append")
    return decode_graph(replace(shape, window_layers=()), "append")


def static_cache(family: Family, name: str) -> Cache:
    shape = family.shape
    if name != "decode":
        return Cache(kind="none")
    if shape.recurrent_width:
        return Cache(kind="recurrent", layers=shape.layers, heads=1, head_dim=shape.recurrent_width)
    return Cache(
        kind="append", layers=shape.layers, heads=shape.cache_heads, head_dim=shape.head_dim
    )


def grid(family: Family, graph: Graph, asked: StaticSizes) -> list[Sizes]:
    """Every combination of sizes for the inputs a graph really has, the smallest first."""
    dims = free_dims((*graph.inputs, *graph.outputs))
    axes = {"S": asked.source, "past": asked.cache, "n": asked.tokens, "B": (1,)}
    unknown = dims - axes.keys() - SAME.keys()
    if unknown:
        raise ExportError(
            f"static sizes: graph {graph.name} of a {family.checkpoint.model_type} model has sizes "
            f"that cannot be filled up ({', '.join(sorted(unknown))}); leave --static out."
        )
    most = family.generation().max_source
    if "S" in dims and most and asked.source[-1] > most:
        raise ExportError(
            f"static sizes: source={asked.source[-1]}, and the model takes {most} source tokens; "
            f"use at most {most}."
        )
    names = [dim for dim in axes if dim in dims]
    found: list[Sizes] = []
    for numbers in product(*(axes[dim] for dim in names)):
        sizes = dict(zip(names, numbers, strict=True))
        for dim in SAME.keys() & dims:
            sizes[dim] = next(sizes[same] for same in SAME[dim] if same in sizes)
        found.append(sizes)
    return found


def key_of(name: str, sizes: Sizes) -> str:
    """What a variant goes by during an export: ``decode+S64-past128-n8``."""
    said = [f"{dim}{size}" for dim, size in sizes.items() if dim not in SAME and dim != "B"]
    return f"{name}+{'-'.join(said) or 'static'}"
