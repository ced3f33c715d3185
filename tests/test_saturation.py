"""Products of bytes are exact on every processor: where sums are cut off, others are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tiny_families import write_bundle

from edgegen.bundle import Bundle
from edgegen.devices import DeviceOptions, device_named, onnxruntime, saturation
from edgegen.runtime.engine import Engine

IDS = [5, 9, 77, 120, 1]


def test_the_product_that_is_asked_is_the_one_that_is_said() -> None:
    graph = onnx.load_from_string(saturation.PRODUCT).graph
    onnx.checker.check_model(onnx.load_from_string(saturation.PRODUCT))
    assert [(n.op_type, *n.input, *n.output) for n in graph.node] == [
        ("MatMulInteger", "a", "b", "y")
    ]
    sizes = {
        port.name: (
            port.type.tensor_type.elem_type,
            tuple(dim.dim_value for dim in port.type.tensor_type.shape.dim),
        )
        for port in (*graph.input, *graph.output)
    }
    rows, inputs, outputs = saturation.ROWS, saturation.INPUTS, saturation.OUTPUTS
    assert sizes == {
        "a": (TensorProto.UINT8, (rows, inputs)),
        "b": (TensorProto.INT8, (inputs, outputs)),
        "y": (TensorProto.INT32, (rows, outputs)),
    }


def test_the_largest_bytes_overflow_sixteen_bits_and_no_less() -> None:
    """What is asked would show on a kernel that adds two products in 16 bits."""
    assert 2 * 255 * 127 > 2**15 - 1
    assert saturation.INPUTS % 4 == 0


@pytest.mark.parametrize("cut", [False, True])
def test_sums_that_are_cut_off_are_found(cut: bool, monkeypatch: Any) -> None:
    """By a session whose sums are those of processors without VNNI."""

    class Session:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def run(self, _: None, feeds: dict[str, Any]) -> list[Any]:
            pairs = np.einsum("rpk,pkc->rpc", *(whole(feeds[name], name) for name in "ab"))
            return [(np.clip(pairs, -(2**15), 2**15 - 1) if cut else pairs).sum(1)]

    def whole(array: Any, name: str) -> Any:
        wide = array.astype(np.int64)
        rows, columns = wide.shape
        return wide.reshape(rows, -1, 2) if name == "a" else wide.reshape(-1, 2, columns)

    monkeypatch.setattr("onnxruntime.InferenceSession", Session)
    assert saturation.saturates.__wrapped__() == cut


@pytest.mark.parametrize(("lowering", "asked"), [("rows", True), ("fused", False)])
def test_exact_kernels_are_asked_for_where_they_are_needed_and_give_the_same(
    lowering: str, asked: bool, tmp_path: Path, monkeypatch: Any
) -> None:
    integer = ("encode", "decode") if lowering == "rows" else ()
    bundle = Bundle.open(
        write_bundle(tmp_path / "b", "t5-tied", weight_format="int8", integer=integer)
    )

    def memory() -> dict[str, Any]:
        engine = Engine(bundle, device_named("ort-cpu"), DeviceOptions())
        return dict(engine.remember_ids(IDS).feeds)

    plain, said = memory(), list[tuple[str, str]]()
    exact = onnxruntime.exact_bytes
    monkeypatch.setattr(onnxruntime, "saturates", lambda: True)

    def noted(*given: Any) -> list[tuple[str, str]]:
        said.extend(found := exact(*given))
        return found

    monkeypatch.setattr(onnxruntime, "exact_bytes", noted)
    for name, array in memory().items():
        np.testing.assert_array_equal(array, plain[name])
    assert (saturation.EXACT in said) == asked


def test_a_model_of_the_same_product_is_exact_here_when_told_so() -> None:
    """ONNX Runtime knows the option: with it no sum is cut off on any processor."""
    import onnxruntime as runtime

    weights = np.full((64, 16), 127, np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["y"])],
        "g",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, (4, 64))],
        [helper.make_tensor_value_info("y", TensorProto.INT32, (4, 16))],
        [onnx.numpy_helper.from_array(weights, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    settings = runtime.SessionOptions()
    settings.add_session_config_entry(*saturation.EXACT)
    session = runtime.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    found = session.run(None, {"a": np.full((4, 64), 255, np.uint8)})[0]
    np.testing.assert_array_equal(np.asarray(found), 64 * 255 * 127)
