"""A decode call beside nothing but the matrix products of its weights, and where its time goes.

    python bench/calls.py DIR DIR...                  one thread, 1, 2, 4 and 8 rows
    python bench/calls.py DIR --device ov-cpu --threads 2 --source 32 --past 8
    python bench/calls.py DIR --operators             the engine's own times by operator

The products are the graph's own nodes with constant weights, in a model of their own on the same
engine with the same settings, fed with noise. Both take turns; medians of a call in milliseconds,
and the median ratio of neighbouring turns. What a call costs more is attention, norms, the cache,
dispatch and what the runtime does on the host.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from edgegen.bundle import Bundle
from edgegen.devices import DeviceOptions, device_named
from edgegen.devices.onnxruntime import CPU, session_options
from edgegen.devices.openvino import load_openvino
from edgegen.devices.ov_cpu import OvCpu
from edgegen.manifest import Variant, held_as
from edgegen.runtime.decoder import Decoder
from edgegen.runtime.engine import Engine

Call = Callable[[], object]
Products = Callable[[int], Call]  # by the rows of a call
INTEGER = "MatMulIntegerToFloat"  # of rows that were rounded to bytes
PRODUCTS = frozenset(("MatMulNBits", "MatMul", "Gemm", "FusedMatMul", INTEGER))
TURNS, CALLS = 12, 20


def noise(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


# ------------------------------------------------------------ the products alone


def onnx_products(file: Path, options: DeviceOptions) -> Products:
    """Of an ONNX graph, in a file beside it that is gone once it was read."""
    graph = onnx.load(file, load_external_data=False).graph
    held = {tensor.name: tensor for tensor in graph.initializer}
    nodes = [
        node
        for node in graph.node
        if node.op_type in PRODUCTS and held.keys() & set(node.input[1:])
    ]
    feeds: dict[str, tuple[int, bool]] = {}  # the width of each, and whether it is of bytes
    used: set[str] = set()
    outputs: list[Any] = []
    for number, node in enumerate(nodes):
        width, integer = columns(node, held), node.op_type == INTEGER
        node.input[0] = f"{'u' if integer else 'x'}{width}"
        node.output[0] = f"y{number}"
        feeds[node.input[0]] = width, integer
        used |= set(node.input)
        outputs.append(
            onnx.helper.make_tensor_value_info(f"y{number}", onnx.TensorProto.FLOAT, None)
        )
    inputs = [
        onnx.helper.make_tensor_value_info(
            name, onnx.TensorProto.UINT8 if integer else onnx.TensorProto.FLOAT, (1, "n", width)
        )
        for name, (width, integer) in sorted(feeds.items())
    ]
    weights = [tensor for name, tensor in held.items() if name in used]
    whole = onnx.helper.make_graph(nodes, "products", inputs, outputs, weights)
    domains = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("com.microsoft", 1)]
    path = file.with_name(f"{file.stem}.products.onnx")
    onnx.save(onnx.helper.make_model(whole, opset_imports=domains, ir_version=10), path)
    try:
        session = onnxruntime.InferenceSession(
            str(path), session_options(onnxruntime, options, CPU), providers=[CPU.name]
        )
    finally:
        path.unlink()

    def of(rows: int) -> Call:
        binding = session.io_binding()
        for name, (width, integer) in feeds.items():
            given = noise(1, rows, width)
            binding.bind_cpu_input(name, (128 + 40 * given).astype(np.uint8) if integer else given)
        for one in outputs:
            binding.bind_output(one.name)
        return lambda: session.run_with_iobinding(binding)

    return of


def columns(node: Any, held: Mapping[str, Any]) -> int:
    """How wide a product's input is."""
    said = {attribute.name: attribute for attribute in node.attribute}
    if "K" in said:
        return int(said["K"].i)
    across = "transB" in said and said["transB"].i
    return int(held[node.input[1]].dims[1 if across else 0])


def openvino_products(file: Path, variant: Variant, options: DeviceOptions) -> Products:
    """Of an OpenVINO graph: every MatMul whose second factor is made of constants alone."""
    openvino = load_openvino()
    device: Any = device_named("ov-cpu")
    core = openvino.Core()
    model = core.read_model(file, *[file.parent / Path(name).name for name in variant.weights[:1]])
    fed: dict[int, Any] = {}
    results: list[Any] = []
    for op in model.get_ordered_ops():
        if op.get_type_name() != "MatMul" or not constant(op.input_value(1)):
            continue
        said = op.get_attributes()
        shape = op.input_value(1).get_partial_shape()
        width = shape[1 if said["transpose_b"] else 0].get_length()
        if width not in fed:
            fed[width] = openvino.opset13.parameter([1, -1, width], np.float32, name=f"x{width}")
        results.append(
            openvino.opset13.matmul(
                fed[width], op.input_value(1), said["transpose_a"], said["transpose_b"]
            )
        )
    alone = openvino.Model([*results], [*fed.values()], "products")
    capabilities = list(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    compiled = core.compile_model(alone, "CPU", device.properties(variant, options, capabilities))

    def of(rows: int) -> Call:
        request = compiled.create_infer_request()
        for place, width in enumerate(fed):
            request.set_input_tensor(place, openvino.Tensor(noise(1, rows, width)))

        def call() -> None:
            request.start_async()
            request.wait()

        return call

    return of


def constant(value: Any) -> bool:
    node = value.get_node()
    if node.get_type_name() in ("Constant", "Parameter", "ReadValue"):
        return bool(node.get_type_name() == "Constant")
    return all(constant(one) for one in node.input_values())


# ------------------------------------------------------------ a call of the runtime


def decoder_of(engine: Engine, source: int, past: int) -> Decoder:
    """``past`` tokens into a text of ``source`` tokens, or of a window of noise."""
    rng = np.random.default_rng(0)
    memory = None
    if engine.manifest.speech is not None:
        memory = engine.remember_samples(noise(480_000) * np.float32(0.1))
    elif "encode" in engine.manifest.components:
        memory = engine.remember_ids([int(i) for i in rng.integers(3, 200, source)])
    decoder = engine.decoder(memory)
    for token in rng.integers(3, 200, past):
        decoder.forward([int(token)])
        decoder.keep(decoder.length + 1)
    return decoder


def calling(decoder: Decoder, rows: int) -> Call:
    tokens, stands = list(range(5, 5 + rows)), decoder.length

    def call() -> None:
        decoder.forward(tokens)
        decoder.keep(stands)

    return call


def taken(call: Call) -> float:
    """Milliseconds, after calls that warm up."""
    for _ in range(3):
        call()
    times: list[float] = []
    for _ in range(CALLS):
        start = perf_counter()
        call()
        times.append(1e3 * (perf_counter() - start))
    return median(times)


def compare(folder: Path, asked: argparse.Namespace) -> None:
    bundle = Bundle.open(folder)
    options = DeviceOptions(threads=asked.threads)
    with closing(Engine(bundle, device_named(asked.device), options)) as engine:
        decoder = decoder_of(engine, asked.source, asked.past)
        variant = engine.variants["decode"]
        file = bundle.file(variant.file)
        products = (
            onnx_products(file, options)
            if variant.format == "onnx"
            else openvino_products(file, variant, options)
        )
        for rows in asked.rows:
            whole, bare = calling(decoder, rows), products(rows)
            pairs = [(taken(whole), taken(bare)) for _ in range(TURNS)]
            ratios = [mine / floor for mine, floor in pairs]
            call, floor = (median(found) for found in zip(*pairs, strict=True))
            print(
                f"{named(variant):32} {rows:4} {call:9.3f} {floor:9.3f} {median(ratios):6.2f}"
                f"  ({min(ratios):.2f}-{max(ratios):.2f})",
                flush=True,
            )


def named(variant: Variant) -> str:
    """``onnx int8/32``: format, weights and the block that shares a scale, if any."""
    size = variant.precision.group_size
    return f"{variant.format} {held_as(variant.precision)}{f'/{size}' if size else ''}"


# ------------------------------------------------------------ operators


def operators(folder: Path, asked: argparse.Namespace, rows: int) -> None:
    """The engine's profile of calls of ``rows`` rows: microseconds a call, nodes a call."""
    of = {"ort-cpu": onnx_operators, "ov-cpu": openvino_operators}[asked.device]
    variant, spent, count = of(Bundle.open(folder), asked, rows)
    calls = CALLS * TURNS
    print(f"\n{named(variant)}, {rows} rows: microseconds and nodes of a call")
    for name, total in spent.most_common(12):
        print(f"  {name:32} {total / calls:8.1f} {count[name] / calls:6.1f}")
    print(f"  {'all nodes':32} {sum(spent.values()) / calls:8.1f}")


Operators = tuple[Variant, Counter[str], Counter[str]]  # microseconds and nodes of all calls


def openvino_operators(bundle: Bundle, asked: argparse.Namespace, rows: int) -> Operators:
    """OpenVINO counts whole microseconds: what takes less than one is not seen."""
    openvino = load_openvino()
    make, requests = openvino.CompiledModel.create_infer_request, list[Any]()

    class Counting(OvCpu):
        def properties(
            self, variant: Variant, options: DeviceOptions, capabilities: list[str]
        ) -> dict[str, Any]:
            return {**super().properties(variant, options, capabilities), "PERF_COUNT": True}

    def kept(compiled: Any) -> Any:
        requests.append(make(compiled))
        return requests[-1]

    spent, count = Counter[str](), Counter[str]()
    openvino.CompiledModel.create_infer_request = kept
    try:
        with closing(Engine(bundle, Counting(), DeviceOptions(threads=asked.threads))) as engine:
            call = calling(decoder_of(engine, asked.source, asked.past), rows)
            for _ in range(CALLS * TURNS):
                call()
                for one in requests[-1].get_profiling_info():
                    spent[one.node_type] += one.real_time / timedelta(microseconds=1)
                    count[one.node_type] += bool(one.real_time)
            return engine.variants["decode"], spent, count
    finally:
        openvino.CompiledModel.create_infer_request = make


def onnx_operators(bundle: Bundle, asked: argparse.Namespace, rows: int) -> Operators:
    """ONNX Runtime writes its profile to a file, which is read and forgotten."""
    with TemporaryDirectory() as scratch, profiled(Path(scratch) / "calls") as sessions:
        engine = Engine(bundle, device_named("ort-cpu"), DeviceOptions(threads=asked.threads))
        with closing(engine):
            call = calling(decoder_of(engine, asked.source, asked.past), rows)
            for _ in range(CALLS * TURNS):
                call()
            variant = engine.variants["decode"]
            file = bundle.file(variant.file)
            events = json.loads(Path(sessions[str(file)].end_profiling()).read_text())
    starts = sorted(one["ts"] for one in events if one["name"] == "model_run")[-CALLS * TURNS :]
    spent, count = Counter[str](), Counter[str]()
    for one in events:
        if one["name"].endswith("_kernel_time") and one["ts"] >= starts[0]:
            spent[one["args"]["op_name"]] += one["dur"]
            count[one["args"]["op_name"]] += 1
    return variant, spent, count


class profiled:
    """Sessions opened meanwhile write profiles; by the file they were read from."""

    def __init__(self, prefix: Path) -> None:
        self.prefix, self.made = prefix, dict[str, Any]()

    def __enter__(self) -> dict[str, Any]:
        self.plain = onnxruntime.InferenceSession
        outer = self

        class Profiled(self.plain):  # type: ignore[misc, name-defined]
            def __init__(self, path: str, settings: Any, *further: Any, **named: Any) -> None:
                settings.enable_profiling = True
                settings.profile_file_prefix = str(outer.prefix)
                super().__init__(path, settings, *further, **named)
                outer.made[path] = self

        onnxruntime.InferenceSession = Profiled
        return self.made

    def __exit__(self, *_: object) -> None:
        onnxruntime.InferenceSession = self.plain


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--device", default="ort-cpu", choices=("ort-cpu", "ov-cpu"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--source", type=int, default=256, help="tokens of the source")
    parser.add_argument("--past", type=int, default=64, help="tokens in the cache")
    parser.add_argument("--operators", action="store_true", help="where the time goes instead")
    asked = parser.parse_args(arguments)
    if asked.operators:
        for folder in asked.bundles:
            for rows in asked.rows:
                operators(folder, asked, rows)
        return
    print(f"{'graphs':32} rows   call ms  bare ms  ratio")
    for folder in asked.bundles:
        compare(folder, asked)


if __name__ == "__main__":
    main()
