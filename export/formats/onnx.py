"""ONNX graphs with one shared weight file, for ONNX Runtime (``fused``)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx

from edgegen.errors import ExportError
from edgegen.graph import Graph, Port
from edgegen.manifest import Precision, Variant

from ..families.base import Family
from ..ops.fused_ops import FusedOps
from ..ops.memory_ops import MemoryOps, check_memory
from ..ops.onnx_ops import OnnxOps, value_info
from ..ops.row_ops import RowMemoryOps, RowProducts
from ..options import ExportOptions
from ..quantisers import QUANTISERS
from ..quantisers.base import Quantiser
from . import onnx_static
from .caching import cache_kinds, cache_of, caches_of
from .weight_file import WeightFile

# MatMulNBits gives a row the same bits alone and among others up to this block.
EQUAL_BLOCK = 32
# Ids a row of ``topk`` has.
TOP = 8


def record(family: Family, name: str, ops: OnnxOps) -> tuple[onnx.ModelProto, Graph]:
    """Write one of the family's graphs over ``ops``."""
    getattr(family, name)(ops)
    return ops.finish()


def write(family: Family, folder: Path, options: ExportOptions) -> dict[str, Variant]:
    """Write every graph of the family into ``folder``; variants by component, ``decode+topk``
    being a further variant of ``decode``."""
    if options.memory == "int8":
        check_memory(family)
    if "encode" in options.integer and "encode" not in family.graph_names():
        raise ExportError(
            f"integer encode: a {family.checkpoint.model_type} model has no encoder; leave it out."
        )
    folder.mkdir(parents=True, exist_ok=True)
    weights = family.weights()
    quantiser: Quantiser | None = None
    if options.weight_format in QUANTISERS:
        make: Any = QUANTISERS[options.weight_format]
        quantiser = make(block=options.group_size, symmetric=options.sym)
    kinds = cache_kinds(family, options, "onnx")
    written: dict[str, tuple[Graph, str, str]] = {}
    # Appended rows are for GPUs where there is a cache in place too. Those have no products of
    # integers, and a row depends on its neighbours by rounding there, as it does in wide blocks.
    on_cpu = {kind: kind != "append" or len(kinds) == 1 for kind in kinds}
    narrow = quantiser is None or options.group_size <= EQUAL_BLOCK or "decode" in options.integer
    equal_rows = {kind: narrow and here for kind, here in on_cpu.items()}
    with closing(WeightFile(folder / "weights.data")) as file:
        for name in family.graph_names():
            dense = name == "features"
            for key, kind in caches_of(name, kinds):
                lowering = kind_of_ops(options, name in options.integer and on_cpu.get(kind, True))
                ops = lowering(
                    family.graph(name, kind, options.memory),
                    weights,
                    file,
                    half=options.weight_format == "fp16" and not dense,
                    quantiser=None if dense else quantiser,
                    equal_rows=equal_rows.get(kind, False),
                    appends=kind == "append",
                )
                model, graph = record(family, name, ops)
                onnx.save(model, folder / file_of(key))
                written[key] = graph, kind, lowering.lowering
        fixed = onnx_static.write(family, folder, options, weights, file)
    precision = precision_of(options, quantiser)
    channels = msgspec.structs.replace(
        precision, weight_format="int8", group_size=0, symmetric=True
    )
    variants = {
        key: Variant(
            format="onnx",
            precision=channels if lowering == RowProducts.lowering else precision,
            graph=graph,
            file=f"graphs/{folder.name}/{file_of(key)}",
            weights=(f"graphs/{folder.name}/weights.data",),
            cache=cache_of(family, graph.name, kind, int(equal_rows.get(kind, False))),
            lowering=lowering,
        )
        for key, (graph, kind, lowering) in written.items()
    }
    return variants | tapped(folder, variants, options, family.shape.width) | fixed


def kind_of_ops(options: ExportOptions, integer: bool) -> type[FusedOps]:
    """The lowering of a graph, which may have products of integers."""
    if options.memory == "int8":
        return RowMemoryOps if integer else MemoryOps
    return RowProducts if integer else FusedOps


def file_of(key: str) -> str:
    return f"{key.replace('+', '-')}.onnx"


def tapped(
    folder: Path, variants: Mapping[str, Variant], options: ExportOptions, width: int
) -> dict[str, Variant]:
    """Each ``decode`` once more with each tap asked for, over the same weight file."""
    decoders = {name: one for name, one in variants.items() if one.graph.name == "decode"}
    if options.taps and not decoders:
        raise ExportError("taps are outputs of a decoder, and this model has none; leave them out.")
    found: dict[str, Variant] = {}
    for (name, decode), tap in product(decoders.items(), options.taps):
        model = onnx.load(folder / file_of(name), load_external_data=False)
        port = tap_port(decode.graph, tap, width)
        if tap == "topk":
            top = onnx.numpy_helper.from_array(np.array([TOP], np.int64), "top")
            model.graph.initializer.append(top)
            outputs = ["top_values", port.name]
            model.graph.node.append(
                onnx.helper.make_node("TopK", ["logits", "top"], outputs, axis=-1)
            )
        model.graph.output.append(value_info(port))
        key = f"{name}+{tap}"
        onnx.save(model, folder / file_of(key))
        graph = msgspec.structs.replace(decode.graph, outputs=(*decode.graph.outputs, port))
        file = f"graphs/{folder.name}/{file_of(key)}"
        found[key] = msgspec.structs.replace(decode, graph=graph, file=file)
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
