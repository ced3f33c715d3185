"""OpenVINO IR graphs with one shared weight file, converted from the ``plain`` lowering.

Weights are narrowed by NNCF (int8, int4) or here (fp16, bf16); audio features stay float32.
"""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

from edgegen.devices.openvino import load_openvino
from edgegen.errors import ExportError
from edgegen.graph import Graph, pinned
from edgegen.manifest import Cache, MemoryFormat, Precision, Variant
from edgegen.unreported import unreported

from ..checkpoint import DENSE_ORIGINS, Weight
from ..families.base import Family
from ..ops.grained_ops import GrainedOps
from ..ops.memory_ops import GrainedMemoryOps, check_memory
from ..options import ExportOptions
from ..static import Sizes, grid, key_of, static_cache, static_graph
from . import ir_file, ir_state
from .caching import cache_kinds, cache_of, caches_of
from .narrowing import FEATURES, NARROWED_BYTES, narrowed
from .onnx import record
from .onnx_static import Recorder
from .weight_file import WeightFile

ov = load_openvino()
opset13 = ov.opset13
# Narrower tables (a bias by distance) lose more than they save.
NARROWEST_ROW = 32
# Activations of a token are quantised to int8 this many at a time, so rows of a call stay
# independent. The processor's kernels for 8- and 4-bit weights are built around it.
ACTIVATION_GROUP = 32


def write(family: Family, folder: Path, options: ExportOptions) -> dict[str, Variant]:
    """Write every graph of the family into ``folder``; variants by component, ``decode+KIND``
    being ``decode`` with a further kind of cache.

    Raises ``ExportError`` when OpenVINO cannot convert a graph or changes its ports.
    """
    kinds = cache_kinds(family, options, "openvino")
    if options.memory == "int8":
        check_memory(family)
    folder.mkdir(parents=True, exist_ok=True)
    weights = family.weights()
    written: dict[str, tuple[Graph, Cache]] = {}
    sized: dict[str, Sizes] = {}
    used: set[str] = set()
    with closing(WeightFile(folder / "weights.bin")) as file:
        for name in family.graph_names():
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                at = Path(temporary)
                recorded, graph, parts = record_plain(family, name, weights, at, options.memory)
                # The model maps the temporary weights: it goes before they do.
                model = narrow(convert(recorded), name, options)
                for key, kind in caches_of(name, kinds):
                    inside = kind == "stateful"
                    made = ir_state.keep_inside(model, graph) if inside else (model, graph)
                    ir_file.save(made[0], folder / file_of(key), file)
                    written[key] = made[1], cache_of(family, name, kind)
                    del made
                for key, sizes, fixed, ports in sized_models(
                    family, name, model, graph, options, at
                ):
                    ir_file.save(fixed, folder / file_of(key), file)
                    written[key], sized[key] = (ports, static_cache(family, name)), sizes
                    del fixed
                del model
            used |= parts if name != "features" else set()
    for key, (graph, _) in written.items():
        ir_file.check(folder / file_of(key), file.path, pinned(graph, sized.get(key, {})))
    precision = precision_of(options, requantised(weights, used))
    return {
        key: Variant(
            format="openvino",
            precision=FEATURES if graph.name == "features" else precision,
            graph=graph,
            file=f"graphs/{folder.name}/{file_of(key)}",
            weights=(f"graphs/{folder.name}/{file.path.name}",),
            cache=cache,
            lowering=GrainedOps.lowering,
            settings=settings_of("fp32" if graph.name == "features" else options.weight_format),
            buckets=sized.get(key, {}),
        )
        for key, (graph, cache) in written.items()
    }


def sized_models(
    family: Family, name: str, model: Any, graph: Graph, options: ExportOptions, folder: Path
) -> Iterator[tuple[str, Sizes, Any, Graph]]:
    """Static copies of a graph with their keys, sizes and free ports; constants are shared.

    A graph whose ports or loop depend on sizes is recorded and narrowed once more in ``folder``.
    """
    if options.static is None:
        return
    shape = family.shape
    static_graph(family, name)  # says so when there cannot be one
    again = name == "decode" and bool(shape.window_layers or shape.recurrent_width)
    models: dict[int, Any] = {} if again else {0: model}
    with closing(WeightFile(folder / "static.data")) as dense:
        recorder = Recorder(family, name, family.weights(), dense)
        ports = recorder.ports(options.static.tokens[0]) if again else graph
        for sizes in grid(family, ports, options.static):
            rows = sizes["n"] if again and shape.recurrent_width else 0
            if rows not in models:
                path = folder / f"{name}-{rows}.onnx"
                onnx.save(recorder.recorded(rows)[0], path)
                dense.flush()
                models[rows] = narrow(convert(path), name, options)
            fixed = models[rows].clone()
            inputs = pinned(ports, sizes).inputs
            fixed.reshape({port.name: ov.PartialShape(list(port.shape)) for port in inputs})
            yield key_of(name, sizes), sizes, fixed, ports


def file_of(key: str) -> str:
    return f"{key.replace('+', '-')}.xml"


def record_plain(
    family: Family, name: str, weights: dict[str, Weight], folder: Path, memory: MemoryFormat
) -> tuple[Path, Graph, set[str]]:
    """One graph as an ONNX file in float32, its ports, and the weights it holds."""
    kind = "recurrent" if family.shape.recurrent_width else GrainedOps.cache_kind
    with closing(WeightFile(folder / "weights.data")) as dense:
        kind_of_ops = GrainedMemoryOps if memory == "int8" else GrainedOps
        ops = kind_of_ops(family.graph(name, kind, memory), weights, dense)
        recorded, graph = record(family, name, ops)
    path = folder / f"{name}.onnx"
    onnx.save(recorded, path)
    parts = {part for key in ops.initialisers for part in key.removesuffix(".T").split("+")}
    return path, graph, parts & weights.keys()


def convert(path: Path) -> Any:
    """The ONNX file as an OpenVINO model."""
    try:
        # The clone leaves behind what conversion unhooked; NNCF would trip over it after a loop.
        with plain_path(path) as place:
            return ov.convert_model(place).clone()
    except Exception as error:  # the library's own types are not public
        last = str(error).strip().splitlines()[-1][:300]
        raise ExportError(f"OpenVINO cannot convert graph {path.stem}: {last}") from error


@contextmanager
def plain_path(path: Path) -> Generator[Path]:
    """A path OpenVINO takes for one: it splits what has a comma into several."""
    if "," not in str(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "graphs"
        link.symlink_to(path.parent.resolve(), target_is_directory=True)
        yield link / path.name


def requantised(weights: dict[str, Weight], used: set[str]) -> int:
    """How many matrices in use their source had already quantised."""
    return len(
        {
            id(weights[name])
            for name in used
            if weights[name].origin not in DENSE_ORIGINS and len(weights[name].shape) == 2
        }
    )


def narrow(model: Any, name: str, options: ExportOptions) -> Any:
    """The model with its weights in the format asked for; audio features keep float32."""
    if name == "features":
        return model
    if options.weight_format in ("fp16", "bf16"):
        narrow_floats(model, name, options.weight_format)
        return model
    if options.weight_format in ("int8", "int4"):
        return compress(model, name, options)
    return model


def narrow_floats(model: Any, name: str, weight_format: Literal["fp16", "bf16"]) -> None:
    """Replace large float constants by 16-bit ones and a conversion, in place."""
    kind = ov.Type.f16 if weight_format == "fp16" else ov.Type.bf16
    for node in filter(is_large_float, model.get_ops()):
        values = narrowed(node.data, weight_format, name, node.friendly_name)
        # As bits: OpenVINO's Python side takes bfloat16 arrays for float16 ones.
        held = ov.Tensor(kind, ov.Shape(values.shape))
        held.data.view(np.uint16)[...] = values.view(np.uint16)
        wide = opset13.convert(opset13.constant(held), "f32")
        for target in list(node.output(0).get_target_inputs()):
            target.replace_source_output(wide.output(0))


def is_large_float(node: Any) -> bool:
    return bool(
        node.get_type_name() == "Constant"
        and node.get_element_type() == ov.Type.f32
        and node.get_byte_size() > NARROWED_BYTES
    )


def compress(model: Any, name: str, options: ExportOptions) -> Any:
    """Round matrices and tables to int8 (a scale per row) or int4 (a scale per group) with NNCF.

    No data is used, embeddings and heads are taken along, and so a tied table stays one.
    """
    with unreported():
        import nncf

    nncf.set_log_level(logging.ERROR)
    sign = "SYM" if options.sym else "ASYM"
    mode = getattr(nncf.CompressWeightsMode, f"{options.weight_format.upper()}_{sign}")
    arguments: dict[str, Any] = {}
    if options.weight_format == "int4":
        arguments = {
            "group_size": options.group_size,
            "all_layers": True,
            "advanced_parameters": nncf.AdvancedCompressionParameters(
                group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST,
                min_adjusted_group_size=16,
            ),
        }
    try:
        with redirect_stdout(io.StringIO()):  # it draws progress bars
            return nncf.compress_weights(
                model, mode=mode, ignored_scope=nncf.IgnoredScope(names=kept(model)), **arguments
            )
    except Exception as error:  # the library's own types are many
        first = str(error).strip().splitlines()[0][:300]
        raise ExportError(f"NNCF cannot compress graph {name}: {first}") from error


def kept(model: Any) -> list[str]:
    """Operators whose constant is no matrix of weights, or has rows too short to be worth it."""
    return [
        target.get_node().friendly_name
        for node in model.get_ops()
        if node.get_type_name() == "Constant" and node.shape
        for kind in [node.get_element_type()]
        if kind.is_integral()
        or (kind == ov.Type.f32 and (len(node.shape) < 2 or node.shape[-1] < NARROWEST_ROW))
        for target in node.output(0).get_target_inputs()
        if target.get_node().get_type_name() in ("Gather", "MatMul")
        and not (kind.is_integral() and target.get_index())  # places to gather from weights
    ]


def precision_of(options: ExportOptions, redone: int) -> Precision:
    """NNCF rounds dense values anew: codes a source already had are never taken over."""
    if options.weight_format not in ("int8", "int4"):
        return Precision(
            weight_format=options.weight_format, rows="rounding", memory=options.memory
        )
    return Precision(
        weight_format=options.weight_format,
        memory=options.memory,
        group_size=options.group_size if options.weight_format == "int4" else 0,
        symmetric=options.sym,
        rows="rounding",
        requantised=redone,
    )


def settings_of(weight_format: str) -> dict[str, str]:
    """What the processor must be told to compute as it was checked."""
    integer = weight_format in ("int8", "int4")
    return {
        "INFERENCE_PRECISION_HINT": "bf16" if weight_format == "bf16" else "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(ACTIVATION_GROUP if integer else 0),
    }
