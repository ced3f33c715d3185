"""ONNX graphs of fixed sizes beside the dynamic ones, over the same weight file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import onnx

from edgegen.errors import ExportError
from edgegen.graph import Graph, pinned
from edgegen.manifest import Precision, Variant

from ..checkpoint import Weight
from ..families.base import Family
from ..ops.onnx_ops import value_info
from ..ops.static_ops import StaticOps
from ..options import ExportOptions
from ..static import Sizes, grid, key_of, static_cache, static_graph
from .narrowing import FEATURES
from .weight_file import WeightFile

FORMATS = ("fp32", "fp16", "qdq")


def write(
    family: Family,
    folder: Path,
    options: ExportOptions,
    weights: Mapping[str, Weight],
    file: WeightFile,
) -> dict[str, Variant]:
    """Variants by ``component+sizes``; none where none are asked for. Raises ``ExportError``."""
    if options.static is None:
        return {}
    if options.weight_format not in FORMATS:
        raise ExportError(
            f"static sizes: ONNX graphs of fixed sizes are {' or '.join(FORMATS)}, not "
            f"{options.weight_format}; use one of those, or --format openvino."
        )
    from .onnx_qdq import quantised  # written over this file's recorder, and slow to import

    qdq, half = options.weight_format == "qdq", options.weight_format == "fp16"
    ready = quantised(family, folder, file, weights, options) if qdq else {}
    precision = Precision(weight_format=options.weight_format, rows="rounding")
    found: dict[str, Variant] = {}
    for name in family.graph_names():
        recorder = Recorder(family, name, weights, file, half=half and name != "features")
        if name in ready:
            recorder.put(*ready[name])
        graph = recorder.ports(options.static.tokens[0])
        for sizes in grid(family, graph, options.static):
            key = key_of(name, sizes)
            path = folder / f"{key.replace('+', '-')}.onnx"
            onnx.save(recorder.model(graph, sizes), path)
            found[key] = Variant(
                format="onnx",
                precision=FEATURES if name == "features" else precision,
                graph=graph,
                file=f"graphs/{folder.name}/{path.name}",
                weights=(f"graphs/{folder.name}/{file.path.name}",),
                cache=static_cache(family, name),
                lowering="qdq" if name in ready else StaticOps.lowering,
                buckets=sizes,
            )
    return found


class Recorder:
    """One of a family's graphs, recorded once: sizes are only said of its ports. A recurrent
    decoder's is recorded for each number of rows, which its loop is written out for."""

    def __init__(
        self,
        family: Family,
        name: str,
        weights: Mapping[str, Weight],
        file: WeightFile,
        ops: Callable[..., StaticOps] = StaticOps,
        *,
        half: bool = False,
    ) -> None:
        self.family, self.name, self.half, self._ops = family, name, half, ops
        self.weights, self.file = weights, file
        self._said = static_graph(family, name)
        self._recorded: dict[int, tuple[onnx.ModelProto, Graph]] = {}

    def recorded(self, rows: int) -> tuple[onnx.ModelProto, Graph]:
        rows = rows if self.family.shape.recurrent_width and self.name == "decode" else 0
        if rows not in self._recorded:
            said = pinned(self._said, {"n": rows} if rows else {})
            ops = self._ops(said, self.weights, self.file, half=self.half)
            getattr(self.family, self.name)(ops)
            self._recorded[rows] = ops.finish()
        return self._recorded[rows]

    def put(self, model: onnx.ModelProto, graph: Graph) -> None:
        """A model made elsewhere in place of one that is recorded."""
        self._recorded[0] = model, graph

    def ports(self, rows: int) -> Graph:
        """The ports the graph really has, their dimensions free."""
        used = self.recorded(rows)[1]
        names = {port.name for port in (*used.inputs, *used.outputs)}
        return Graph(
            name=self.name,
            inputs=tuple(port for port in self._said.inputs if port.name in names),
            outputs=tuple(port for port in self._said.outputs if port.name in names),
        )

    def model(self, graph: Graph, sizes: Sizes) -> onnx.ModelProto:
        """The graph with its ports' sizes said."""
        model = onnx.ModelProto()
        model.CopyFrom(self.recorded(sizes.get("n", 0))[0])
        fixed = pinned(graph, sizes)
        for listed, ports in (
            (model.graph.input, fixed.inputs),
            (model.graph.output, fixed.outputs),
        ):
            del listed[:]
            listed.extend(map(value_info, ports))
        return model
