"""ONNX graphs with one shared weight file, for ONNX Runtime (``fused``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from edgegen.graph import Graph
from edgegen.manifest import Cache, Precision, Variant

from ..families.base import Family
from ..ops.fused_ops import FusedOps
from ..ops.onnx_ops import OnnxOps
from ..options import ExportOptions
from ..quantisers import QUANTISERS
from ..quantisers.base import Quantiser
from .weight_file import WeightFile

# MatMulNBits gives a row the same bits alone and among others up to this block.
EQUAL_BLOCK = 32


def record(family: Family, name: str, ops: OnnxOps) -> tuple[onnx.ModelProto, Graph]:
    """Write one of the family's graphs over ``ops``."""
    getattr(family, name)(ops)
    return ops.finish()


def cache_of(family: Family, name: str, kind: str, spare: int = 0) -> Cache:
    """The manifest's cache record: only ``decode`` has one."""
    shape = family.shape
    if name != "decode":
        return Cache(kind="none")
    if shape.recurrent_width:
        return Cache(kind="recurrent", layers=shape.layers, heads=1, head_dim=shape.recurrent_width)
    found: Any = kind
    return Cache(
        kind=found,
        layers=shape.layers,
        heads=shape.cache_heads,
        head_dim=shape.head_dim,
        spare=spare if kind == "in_place" else 0,
    )


def write(family: Family, folder: Path, options: ExportOptions) -> dict[str, Variant]:
    """Write every graph of the family into ``folder``; variants by component."""
    folder.mkdir(parents=True, exist_ok=True)
    file = WeightFile(folder / "weights.data")
    weights = family.weights()
    quantiser: Quantiser | None = None
    if options.weight_format in QUANTISERS:
        make: Any = QUANTISERS[options.weight_format]
        quantiser = make(block=options.group_size, symmetric=options.sym)
    graphs: dict[str, Graph] = {}
    kind = "recurrent" if family.shape.recurrent_width else FusedOps.cache_kind
    # Wide blocks already make a row depend on its neighbours by rounding.
    equal_rows = quantiser is None or options.group_size <= EQUAL_BLOCK
    for name in family.graph_names():
        dense = name == "features"
        ops = FusedOps(
            family.graph(name, kind),
            weights,
            file,
            half=options.weight_format == "fp16" and not dense,
            quantiser=None if dense else quantiser,
            equal_rows=name == "decode" and equal_rows,
        )
        model, graphs[name] = record(family, name, ops)
        onnx.save(model, folder / f"{name}.onnx")
    file.close()
    precision = precision_of(options, quantiser)
    return {
        name: Variant(
            format="onnx",
            precision=precision,
            graph=graph,
            file=f"graphs/{folder.name}/{name}.onnx",
            weights=(f"graphs/{folder.name}/weights.data",),
            cache=cache_of(family, name, kind, int(equal_rows)),
            lowering=FusedOps.lowering,
        )
        for name, graph in graphs.items()
    }


def precision_of(options: ExportOptions, quantiser: Quantiser | None) -> Precision:
    """Rows count as independent up to rounding until the parity gate has seen them bit-equal."""
    if quantiser is None:
        return Precision(weight_format=options.weight_format, rows="rounding")
    return Precision(
        weight_format=options.weight_format,
        group_size=options.group_size,
        symmetric=options.sym,
        rows="rounding",
        imported=len(quantiser.tally.imported),
        requantised=len(quantiser.tally.requantised),
    )
