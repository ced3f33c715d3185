"""The ``plain`` lowering: a family's graph recorded as standard ONNX operators (opset 21).

Every backend that reads ONNX runs it; OpenVINO's IR is converted from it. Weights are dense.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from edgegen.graph import Graph, Port

from ..checkpoint import Weight
from ..formats.narrowing import NARROWED_BYTES, narrowed
from ..formats.weight_file import WeightFile
from .base import Ops
from .specs import Norm

OPSET, IR_VERSION = 21, 10
UNARY = {
    name: name.capitalize()
    for name in (
        "neg", "abs", "relu", "sigmoid", "tanh", "erf", "sqrt", "log", "cos", "sin",
    )
}  # fmt: skip
BINARY = {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min",
          "greater": "Greater", "less_equal": "LessOrEqual"}  # fmt: skip


class OnnxOps(Ops[str]):
    """Values are names. ``finish`` gives the model and the graph with the inputs it really has."""

    lowering = "plain"
    domains: tuple[tuple[str, int], ...] = (("", OPSET),)

    def __init__(
        self, graph: Graph, weights: Mapping[str, Weight], file: WeightFile, *, half: bool = False
    ) -> None:
        super().__init__()
        self.graph, self.weights, self.file, self.half = graph, weights, file, half
        self.nodes: list[NodeProto] = []
        self.initialisers: dict[str, TensorProto] = {}
        self._used: set[str] = set()
        self._count = 0
        self.hidden: str | None = None

    # ------------------------------------------------------------- recording

    def node(self, kind: str, inputs: Sequence[str], domain: str = "", **attributes: Any) -> str:
        return self.nodes_of(kind, inputs, 1, domain, **attributes)[0]

    def nodes_of(
        self, kind: str, inputs: Sequence[str], outputs: int, domain: str = "", **attributes: Any
    ) -> list[str]:
        self._count += 1
        names = [f"{kind}_{self._count}" + (f"_{i}" if outputs > 1 else "") for i in range(outputs)]
        self.nodes.append(
            helper.make_node(
                kind, list(inputs), names, name=f"{kind}_{self._count}", domain=domain, **attributes
            )
        )
        return names

    def initialiser(self, name: str, array: NDArray[Any]) -> str:
        if name not in self.initialisers:
            self.initialisers[name] = self.file.tensor(name, array)
        return name

    def dense(self, name: str, array: NDArray[np.float32]) -> str:
        """A dense float parameter; stored in float16 and widened on load when ``half``.

        Raises ``ExportError`` for values float16 cannot hold."""
        if not self.half or array.nbytes <= NARROWED_BYTES:
            return self.initialiser(name, array)
        narrow = self.initialiser(f"{name}.half", narrowed(array, "fp16", self.graph.name, name))
        key = f"{name}.wide"
        return self.once(key, lambda: self.node("Cast", [narrow], to=TensorProto.FLOAT))

    def finish(self) -> tuple[ModelProto, Graph]:
        """Rename results to their ports and keep the inputs that were asked for."""
        inputs = tuple(port for port in self.graph.inputs if port.name in self._used)
        outputs = tuple(port for port in self.graph.outputs if port.name in self.results)
        names = {self.results[port.name]: port.name for port in outputs}
        if self.hidden is not None:  # what the logits are made of, for those who tap it
            names[self.hidden] = "hidden"
        self._rename(names)
        graph = helper.make_graph(
            self.nodes,
            self.graph.name,
            [value_info(port) for port in inputs],
            [value_info(port) for port in outputs],
            list(self.initialisers.values()),
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid(name, version) for name, version in self.domains],
            ir_version=IR_VERSION,
            producer_name="edgegen",
        )
        return model, Graph(name=self.graph.name, inputs=inputs, outputs=outputs)

    def _rename(self, names: Mapping[str, str]) -> None:
        for node in self.nodes:
            for field in (node.input, node.output):
                for i, name in enumerate(field):
                    field[i] = names.get(name, name)

    # ------------------------------------------------------------ primitives

    def input(self, name: str) -> str:
        self._used.add(name)
        return name

    def constant(self, value: Any, dtype: str = "float32") -> str:
        array = np.asarray(value, dtype=dtype)
        # Not ``hash``, which differs between runs: the same export is the same graph.
        mark = sha256(array.tobytes()).hexdigest()[:12]
        key = f"const_{dtype}_{array.shape}_{mark}"
        return self.initialiser(key, array)

    def parameter(self, name: str) -> str:
        return self.dense(name, self.weights[name].read())

    def linear(self, x: str, weight: str, bias: str | None = None) -> str:
        return self.linear_packed(x, (weight,), (bias,))[0]

    def projections(
        self, x: str, weights: Sequence[str], biases: Sequence[str | None]
    ) -> list[str]:
        packed, sizes = self.linear_packed(x, weights, biases)
        return self.split(packed, sizes)

    def linear_packed(
        self, x: str, weights: Sequence[str], biases: Sequence[str | None]
    ) -> tuple[str, list[int]]:
        """Several projections of one input as one product, and the width of each."""
        sizes = [self.weights[name].shape[0] for name in weights]
        name = "+".join(weights)
        matrix = np.concatenate([self.weights[w].read() for w in weights]).T
        product = self.node("MatMul", [x, self.dense(f"{name}.T", matrix)])
        offset = self.packed_bias(weights, biases)
        return (product if offset is None else self.node("Add", [product, offset])), sizes

    def packed_bias(self, weights: Sequence[str], biases: Sequence[str | None]) -> str | None:
        """The projections' biases as one vector, zeros where one has none."""
        if all(bias is None for bias in biases):
            return None
        parts = [
            np.zeros(self.weights[w].shape[0], np.float32) if b is None else self.weights[b].read()
            for w, b in zip(weights, biases, strict=True)
        ]
        name = "+".join(b or f"{w}.zeros" for w, b in zip(weights, biases, strict=True))
        return self.initialiser(name, np.concatenate(parts))

    def head(self, x: str, table: str, bias: str | None = None, softcap: float = 0.0) -> None:
        self.hidden = x if self.graph.name == "decode" else None
        super().head(x, table, bias, softcap)

    def head_of_words(self, x: str) -> None:
        self.hidden = x
        super().head_of_words(x)

    def by_table(self, x: str, table: str, bias: str | None) -> str:
        """The table keeps its ``[V, width]`` layout."""
        turned = self.node("Transpose", [self.parameter(table)], perm=[1, 0])
        logits = self.node("MatMul", [x, turned])
        return logits if bias is None else self.add(logits, self.parameter(bias))

    def gather_rows(self, table: str, ids: str) -> str:
        return self.node("Gather", [self.parameter(table), ids], axis=0)

    def unary(self, kind: str, x: str) -> str:
        return self.node(UNARY[kind], [x])

    def binary(self, kind: str, x: str, y: str) -> str:
        return self.node(BINARY[kind], [x, y])

    def matmul(self, x: str, y: str) -> str:
        return self.node("MatMul", [x, y])

    def softmax(self, x: str) -> str:
        return self.node("Softmax", [x], axis=-1)

    def transpose(self, x: str, order: Sequence[int]) -> str:
        return self.node("Transpose", [x], perm=list(order))

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        return self.node("Reshape", [x, self.constant(list(shape), "int64")])

    def unsqueeze(self, x: str, axis: int) -> str:
        return self.node("Unsqueeze", [x, self.constant([axis], "int64")])

    def split(self, x: str, sizes: Sequence[int]) -> list[str]:
        return self.nodes_of("Split", [x, self.constant(list(sizes), "int64")], len(sizes), axis=-1)

    def concat(self, values: Sequence[str], axis: int) -> str:
        return self.node("Concat", list(values), axis=axis)

    def gather(self, x: str, indices: str, axis: int) -> str:
        return self.node("Gather", [x, indices], axis=axis)

    def where(self, condition: str, x: str, y: str) -> str:
        return self.node("Where", [condition, x, y])

    def cast(self, x: str, dtype: str) -> str:
        return self.node("Cast", [x], to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def mean(self, x: str, axis: int) -> str:
        return self.node("ReduceMean", [x, self.constant([axis], "int64")], keepdims=1)

    def maximum(self, x: str, axes: Sequence[int]) -> str:
        return self.node("ReduceMax", [x, self.constant(list(axes), "int64")], keepdims=1)

    def conv1d(self, x: str, weight: str, bias: str | None, stride: int, padding: int) -> str:
        inputs = [x, self.parameter(weight)] + ([] if bias is None else [self.parameter(bias)])
        return self.node("Conv", inputs, strides=[stride], pads=[padding, padding])

    def pad_reflect(self, x: str, left: int, right: int) -> str:
        return self.node("Pad", [x, self.constant([0, left, 0, right], "int64")], mode="reflect")

    def size(self, x: str, axis: int) -> str:
        shape = self.node("Shape", [x], start=axis, end=axis + 1)
        return self.node("Squeeze", [shape])

    def latest(self, x: str, rows: str, axis: int) -> str:
        start = self.reshape(self.unary("neg", rows), (1,))
        bounds = [self.constant([edge], "int64") for edge in (np.iinfo(np.int64).max, axis)]
        return self.node("Slice", [x, start, *bounds])

    def arange(self, like: str, axis: int) -> str:
        return self.node(
            "Range", [self.constant(0, "int64"), self.size(like, axis), self.constant(1, "int64")]
        )

    def norm(self, x: str, spec: Norm) -> str:
        weight = self.parameter(spec.weight)
        if spec.kind == "layer":
            inputs = [x, weight] + ([] if spec.bias is None else [self.parameter(spec.bias)])
            return self.node("LayerNormalization", inputs, axis=-1, epsilon=spec.eps)
        square = self.mean(self.mul(x, x), -1)
        size = self.unary("sqrt", self.add(square, self.constant(spec.eps)))
        return self.mul(self.binary("div", x, size), weight)

    def follow_parents(
        self, keep: str, gain: str, states: str, parents: str, positions: str
    ) -> str:
        """An ONNX Loop over depth: a turn computes every row from what its parent is so far, so
        rows are right after as many turns as the longest path of new rows has."""
        keeps = self.node("Flatten", [keep], axis=2)
        gains = self.node("Flatten", [gain], axis=2)
        standing = self.node("Shape", [states], start=0, end=1)
        places = self.add(self.reshape(parents, (-1,)), standing)
        first = self.gather(positions, self.constant([0], "int64"), 1)
        deepest = self.node("ReduceMax", [self.binary("sub", positions, first)], keepdims=0)
        turns = self.add(deepest, self.constant(1, "int64"))
        rows = self.node(
            "Loop", [turns, "", gains], body=_follow_body(keeps, gains, states, places)
        )
        return self.node("Reshape", [rows, self.node("Shape", [keep])])


def value_info(port: Port) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(
        port.name, helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype)), list(port.shape)
    )


def _follow_body(keeps: str, gains: str, states: str, places: str) -> onnx.GraphProto:
    """rows' = keeps * (states ++ rows)[places] + gains."""
    nodes = [
        helper.make_node("Concat", [states, "rows"], ["all"], axis=0),
        helper.make_node("Gather", ["all", places], ["before"], axis=0),
        helper.make_node("Mul", [keeps, "before"], ["kept"]),
        helper.make_node("Add", ["kept", gains], ["rows_out"]),
        helper.make_node("Identity", ["go"], ["go_out"]),
    ]
    info = helper.make_tensor_value_info
    return helper.make_graph(
        nodes,
        "follow",
        [
            info("i", TensorProto.INT64, []),
            info("go", TensorProto.BOOL, []),
            info("rows", TensorProto.FLOAT, None),
        ],
        [info("go_out", TensorProto.BOOL, []), info("rows_out", TensorProto.FLOAT, None)],
    )
