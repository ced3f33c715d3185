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
from edgegen.manifest import HeadFormat, MemoryFormat, Precision, Variant

from ..families.base import Family
from ..ops.coded_rows import CodedRows, RowScales
from ..ops.companion_ops import keys_in_one_go
from ..ops.fused_ops import FusedOps
from ..ops.memory_ops import MemoryOps, check_memory
from ..ops.onnx_ops import OnnxOps, value_info
from ..ops.refined_head import RefinedHead, check_head
from ..ops.row_ops import RowProducts
from ..options import ExportOptions
from ..quantisers import QUANTISERS
from ..quantisers.base import Quantiser
from . import onnx_static
from .caching import cache_kinds, cache_of, caches_of
from .narrowing import FEATURES
from .row_scales import check_rows, row_scales
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
    if options.kv_cache == "int8":
        check_rows(family)
    if options.head == "refined":
        check_head(family)
    if "encode" in options.integer and "encode" not in family.graph_names():
        raise ExportError(
            f"integer encode: a {family.checkpoint.model_type} model has no encoder; leave it out."
        )
    folder.mkdir(parents=True, exist_ok=True)
    with closing(WeightFile(folder / "weights.data")) as file:
        graphs = Graphs(family, folder, options, file)
        variants: dict[str, Variant] = {}
        for name in family.graph_names():
            for key, kind in caches_of(name, graphs.kinds):
                coded = kind == "in_place" and options.kv_cache == "int8"
                scales = graphs.row_scales(variants) if coded else None
                variants[key] = graphs.write(name, key, kind, scales)
        fixed = onnx_static.write(family, folder, options, graphs.weights, file)
    # Which codes were taken over is known when all weights were looked at.
    variants = {key: graphs.counted(variant) for key, variant in variants.items()}
    return variants | tapped(folder, variants, options, family.shape.width) | fixed


class Graphs:
    """One family's graphs on their way into ``folder``, over one weight file."""

    def __init__(
        self, family: Family, folder: Path, options: ExportOptions, file: WeightFile
    ) -> None:
        self.family, self.folder, self.options, self.file = family, folder, options, file
        self.weights, self.kinds = family.weights(), cache_kinds(family, options, "onnx")
        self.quantiser: Quantiser | None = None
        if options.weight_format in QUANTISERS:
            make: Any = QUANTISERS[options.weight_format]
            self.quantiser = make(block=options.group_size, symmetric=options.sym)

    def on_cpu(self, kind: str) -> bool:
        """Appended rows are for GPUs where there is a cache in place too. Those have no products of
        integers, and a row depends on its neighbours by rounding there, as it does in wide blocks.
        """
        return kind != "append" or len(self.kinds) == 1

    def equal_rows(self, kind: str) -> bool:
        narrow = self.quantiser is None or self.options.group_size <= EQUAL_BLOCK
        whole = "decode" in self.options.integer
        return kind != "none" and (narrow or whole) and self.on_cpu(kind)

    def write(self, name: str, key: str, kind: str, scales: RowScales | None) -> Variant:
        """One graph as a file named by ``key``; with ``scales`` its cache is in 8 bits."""
        options, dense = self.options, name == "features"
        integer = name in options.integer and self.on_cpu(kind)
        head = options.head if name == "decode" and self.on_cpu(kind) else "full"
        lowering = kind_of_ops(
            options, integer=integer, coded=scales is not None, refined=head == "refined"
        )
        ops = lowering(
            self.family.graph(name, kind, options.memory),
            self.weights,
            self.file,
            half=options.weight_format == "fp16" and not dense,
            quantiser=None if dense else self.quantiser,
            equal_rows=self.equal_rows(kind),
            appends=kind == "append",
            **({} if scales is None else {"row_scales": scales}),
        )
        model, graph = record(self.family, name, ops)
        onnx.save(model, self.folder / file_of(key))
        held: MemoryFormat = "fp32" if scales is None else "int8"
        return Variant(
            format="onnx",
            precision=FEATURES if dense else precision_of(options, self.quantiser, head),
            graph=graph,
            file=f"graphs/{self.folder.name}/{file_of(key)}",
            weights=(f"graphs/{self.folder.name}/weights.data",),
            cache=cache_of(
                self.family,
                name,
                kind,
                spare=int(self.equal_rows(kind)),
                held=held,
                in_one_go=keys_in_one_go(self.family.shape.head_dim),
            ),
            lowering=lowering.lowering,
        )

    def row_scales(self, before: Mapping[str, Variant]) -> RowScales:
        """What a decoder with a cache of floats holds while texts are answered."""
        texts = self.options.calibration or self.family.parity_prompts
        decode = self.write("decode", "decode-calibration", "in_place", None)
        self.file.flush()
        parts = {name: one for name, one in before.items() if "+" not in name}
        try:
            return row_scales(self.family, self.folder, {**parts, "decode": decode}, texts)
        finally:
            (self.folder / file_of("decode-calibration")).unlink()

    def counted(self, variant: Variant) -> Variant:
        if variant.graph.name == "features":
            return variant
        precision = precision_of(self.options, self.quantiser, variant.precision.head)
        if variant.lowering == RowProducts.lowering:
            precision = msgspec.structs.replace(
                precision, weight_format="int8", group_size=0, symmetric=True
            )
        return msgspec.structs.replace(variant, precision=precision)


def kind_of_ops(
    options: ExportOptions, *, integer: bool, coded: bool, refined: bool
) -> type[FusedOps]:
    """The lowering of a graph: products of integers, the text's rows and the source in 8 bits, a
    head in two passes, each where it is asked for."""
    asked: tuple[tuple[type[FusedOps], bool], ...] = (
        (CodedRows, coded), (RowProducts, integer), (MemoryOps, options.memory == "int8"),
        (RefinedHead, refined),
    )  # fmt: skip
    bases: list[type] = [kind for kind, wanted in asked if wanted]
    return type("Lowering", (*bases, FusedOps), {})


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


def precision_of(
    options: ExportOptions, quantiser: Quantiser | None, head: HeadFormat = "full"
) -> Precision:
    """Rows count as independent up to rounding until the parity gate has seen them bit-equal."""
    if quantiser is None:
        wide = options.weight_format == "qdq"  # of static graphs only
        return Precision(
            weight_format="fp32" if wide else options.weight_format,
            rows="rounding",
            memory=options.memory,
            head=head,
        )
    return Precision(
        weight_format=options.weight_format,
        group_size=options.group_size,
        symmetric=options.sym,
        rows="rounding",
        memory=options.memory,
        head=head,
        imported=len(quantiser.tally.imported),
        requantised=len(quantiser.tally.requantised),
    )
