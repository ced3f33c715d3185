"""ONNX graphs with one shared weight file, for ONNX Runtime (``fused``)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx

from edgegen.errors import ExportError
from edgegen.graph import Graph, Port
from edgegen.manifest import Cache, Precision, Variant

from ..families.base import Family, Shape
from ..ops.fused_ops import FusedOps
from ..ops.memory_ops import MemoryOps, check_memory
from ..ops.onnx_ops import OnnxOps, value_info
from ..options import ExportOptions
from ..quantisers import QUANTISERS
from ..quantisers.base import Quantiser
from . import onnx_static
from .weight_file import WeightFile

# MatMulNBits gives a row the same bits alone and among others up to this block.
EQUAL_BLOCK = 32
# Ids a row of ``topk`` has.
TOP = 8


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
    short = kind != "stateful"
    return Cache(
        kind=found,
        layers=shape.layers,
        heads=shape.cache_heads,
        head_dim=shape.head_dim,
        spare=spare if kind == "in_place" else 0,
        memory_first=shape.merged and kind == "in_place",
        window=shape.window if short else 0,
        window_layers=shape.window_layers if short else (),
    )


def cache_kind(shape: Shape) -> str:
    """What the fused attention keeps: GroupQueryAttention's buffer wherever it can be used."""
    if shape.recurrent_width:
        return "recurrent"
    return OnnxOps.cache_kind if shape.bidirectional_prompt else FusedOps.cache_kind


def write(family: Family, folder: Path, options: ExportOptions) -> dict[str, Variant]:
    """Write every graph of the family into ``folder``; variants by component, ``decode+topk``
    being a further variant of ``decode``."""
    kind_of_ops: type[FusedOps] = FusedOps
    if options.memory == "int8":
        check_memory(family)
        kind_of_ops = MemoryOps
    folder.mkdir(parents=True, exist_ok=True)
    weights = family.weights()
    quantiser: Quantiser | None = None
    if options.weight_format in QUANTISERS:
        make: Any = QUANTISERS[options.weight_format]
        quantiser = make(block=options.group_size, symmetric=options.sym)
    graphs: dict[str, Graph] = {}
    kind, later_rows = cache_kind(family.shape), family.shape.bidirectional_prompt
    # Wide blocks already make a row depend on its neighbours by rounding.
    equal_rows = quantiser is None or options.group_size <= EQUAL_BLOCK
    with closing(WeightFile(folder / "weights.data")) as file:
        for name in family.graph_names():
            dense = name == "features"
            ops = kind_of_ops(
                family.graph(name, kind, options.memory),
                weights,
                file,
                half=options.weight_format == "fp16" and not dense,
                quantiser=None if dense else quantiser,
                equal_rows=name == "decode" and equal_rows,
                later_rows=later_rows,
            )
            model, graphs[name] = record(family, name, ops)
            onnx.save(model, folder / f"{name}.onnx")
        fixed = onnx_static.write(family, folder, options, weights, file)
    precision = precision_of(options, quantiser)
    variants = {
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
    return variants | tapped(folder, variants, options, family.shape.width) | fixed


def tapped(
    folder: Path, variants: Mapping[str, Variant], options: ExportOptions, width: int
) -> dict[str, Variant]:
    """``decode`` once more with each tap asked for, over the same weight file."""
    if options.taps and "decode" not in variants:
        raise ExportError("taps are outputs of a decoder, and this model has none; leave them out.")
    found: dict[str, Variant] = {}
    for tap in options.taps:
        decode = variants["decode"]
        model = onnx.load(folder / "decode.onnx", load_external_data=False)
        port = tap_port(decode.graph, tap, width)
        if tap == "topk":
            top = onnx.numpy_helper.from_array(np.array([TOP], np.int64), "top")
            model.graph.initializer.append(top)
            outputs = ["top_values", port.name]
            model.graph.node.append(
                onnx.helper.make_node("TopK", ["logits", "top"], outputs, axis=-1)
            )
        model.graph.output.append(value_info(port))
        onnx.save(model, folder / f"decode-{tap}.onnx")
        graph = msgspec.structs.replace(decode.graph, outputs=(*decode.graph.outputs, port))
        file = f"graphs/{folder.name}/decode-{tap}.onnx"
        found[f"decode+{tap}"] = msgspec.structs.replace(decode, graph=graph, file=file)
    return found


def tap_port(graph: Graph, tap: str, width: int) -> Port:
    """As ``logits``: ``topk`` with ids for values, ``hidden`` (a value of every decode graph) with
    ``width`` numbers."""
    logits = next(port for port in graph.outputs if port.name == "logits")
    dtype, size = ("int64", TOP) if tap == "topk" else ("float32", width)
    return Port(name=tap, dtype=dtype, shape=(*logits.shape[:-1], size))


def precision_of(options: ExportOptions, quantiser: Quantiser | None) -> Precision:
    """Rows count as independent up to rounding until the parity gate has seen them bit-equal."""
    if quantiser is None:
        wide = options.weight_format == "qdq"  # of static graphs only
        return Precision(
            weight_format="fp32" if wide else options.weight_format,
            rows="rounding",
            memory=options.memory,
        )
    return Precision(
        weight_format=options.weight_format,
        group_size=options.group_size,
        symmetric=options.sym,
        rows="rounding",
        memory=options.memory,
        imported=len(quantiser.tally.imported),
        requantised=len(quantiser.tally.requantised),
    )
