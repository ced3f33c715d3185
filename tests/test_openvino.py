"""OpenVINO says what the torch body says: plainly, padded, over trees, narrowed and reopened."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
import pytest
from stepping import Steps, TorchSession, encode, error
from tiny import tiny_t5

from edgegen.devices.device import DeviceOptions
from edgegen.devices.openvino import OvSession
from edgegen.devices.ov_cpu import OvCpu
from edgegen.errors import DeviceError, DeviceMissing, ExportError
from edgegen.export.checkpoint import Checkpoint, Weight
from edgegen.export.families.t5 import T5
from edgegen.export.formats import ir_file, openvino
from edgegen.export.formats.weight_file import WeightFile
from edgegen.export.ops.onnx_ops import OnnxOps
from edgegen.export.options import ExportOptions, WeightFormat
from edgegen.graph import Graph, Port
from edgegen.manifest import Variant

SOURCE = [7, 301, 44, 9, 120, 1]
TARGET = [0, 5, 77, 250, 33, 18]
TABLE_ROWS = 12000
SHAPES: dict[str, dict[str, Any]] = {
    "tied": {"tie_word_embeddings": True},
    "untied-gated": {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"},
}


class Written:
    """An exported T5 with its sessions."""

    def __init__(
        self, folder: Path, checkpoint: Checkpoint, weight_format: WeightFormat, **options: Any
    ) -> None:
        self.family = T5(checkpoint)
        self.folder = folder
        self.variants = openvino.write(
            self.family,
            folder,
            ExportOptions(
                model="tiny",
                output=folder,
                formats=("openvino",),
                weight_format=weight_format,
                **options,
            ),
        )

    def session(self, name: str, **options: Any) -> OvSession:
        found = OvCpu().compile(
            self.folder / f"{name}.xml", self.variants[name], DeviceOptions(**options)
        )
        assert isinstance(found, OvSession)
        return found

    def steps(self, padding: int = 0, **options: Any) -> Steps:
        memory = encode(self.session("encode", **options), SOURCE, padding)
        return Steps(self.session("decode", **options), memory, self.variants["decode"].cache)

    def truth(self) -> Steps:
        memory = encode(TorchSession(self.family, "encode"), SOURCE)
        return Steps(TorchSession(self.family, "decode"), memory, self.variants["decode"].cache)


@pytest.fixture(scope="module", params=SHAPES)
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    return Written(tmp_path_factory.mktemp("plain"), tiny_t5(**SHAPES[request.param]), "fp32")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[WeightFormat], Written]:
    """A tied T5 with a table that outweighs the rest, each format written once."""

    @cache
    def write(weight_format: WeightFormat) -> Written:
        folder = tmp_path_factory.mktemp(weight_format)
        return Written(folder, tiny_t5(vocab_size=TABLE_ROWS), weight_format, group_size=64)

    return write


@pytest.fixture(scope="module")
def tied(written: Callable[[WeightFormat], Written]) -> Written:
    return written("fp32")


@pytest.fixture(scope="module")
def eight(written: Callable[[WeightFormat], Written]) -> Written:
    return written("int8")


def test_every_step_says_what_torch_says(plain: Written) -> None:
    found, truth = plain.steps(), plain.truth()
    for calls in ([TARGET[0]], [TARGET[1]], TARGET[2:5], [TARGET[5]]):
        assert error(found.feed(calls), truth.feed(calls)) <= 1e-3


def test_a_rewound_cache_forgets_the_rejected_rows(tied: Written) -> None:
    found, plainly = tied.steps(), tied.steps()
    found.feed([0, 499, 498, 497])
    found.length = 1
    plainly.feed([0])
    assert error(found.feed(TARGET[1:]), plainly.feed(TARGET[1:])) <= 1e-5


def test_right_padding_of_the_source_changes_nothing(plain: Written) -> None:
    assert error(plain.steps(padding=5).feed(TARGET), plain.steps().feed(TARGET)) <= 1e-5


def test_a_tree_s_rows_are_its_paths_fed_plainly(plain: Written) -> None:
    found = plain.steps()
    found.feed([0])
    rows = found.feed([5, 77, 250, 33, 18], [-1, 0, 0, 1, -1])
    for path in ([0, 1, 3], [0, 2], [4]):
        tokens = [[5, 77, 250, 33, 18][i] for i in path]
        plainly = plain.steps()
        plainly.feed([0])
        assert error(rows[path], plainly.feed(tokens)) <= 1e-5


BOUNDS: dict[WeightFormat, float] = {"fp16": 2e-3, "bf16": 4e-2, "int8": 3e-2, "int4": 0.3}


@pytest.mark.parametrize("weight_format", BOUNDS)
def test_narrow_weights_stay_near_and_say_how_they_were_checked(
    weight_format: WeightFormat,
    written: Callable[[WeightFormat], Written],
    record_property: Callable[[str, object], None],
) -> None:
    narrow = written(weight_format)
    found, truth = narrow.steps().feed(TARGET), narrow.truth().feed(TARGET)
    record_property("agreement", float((found.argmax(-1) == truth.argmax(-1)).mean()))
    record_property("error", error(found, truth))
    assert error(found, truth) <= BOUNDS[weight_format]
    assert narrow.variants["decode"].precision.weight_format == weight_format
    properties = narrow.session("decode").properties()
    for name, value in narrow.variants["decode"].settings.items():
        assert properties[name] == value


@pytest.mark.parametrize(("weight_format", "bits"), [("bf16", 16), ("int8", 8), ("int4", 4)])
def test_a_tied_table_stays_tied_when_narrowed(
    weight_format: WeightFormat, bits: int, written: Callable[[WeightFormat], Written]
) -> None:
    table = TABLE_ROWS * 64 * bits // 8
    size = (written(weight_format).folder / "weights.bin").stat().st_size
    assert table < size < 1.8 * table


def test_eight_bit_rows_do_not_depend_on_their_neighbours(eight: Written) -> None:
    alone, together = eight.steps(), eight.steps()
    rows = together.feed(TARGET)
    assert error(np.stack([alone.feed([token])[0] for token in TARGET]), rows) <= 1e-5


def unique_bytes(family: T5) -> int:
    """Bytes of the graphs' weights by content, each matrix once however it is laid out."""
    tables = [weight.read() for weight in family.weights().values()]
    return sum(
        {tuple(np.sort(t.reshape(-1))[:64].tolist()) + t.shape: t.nbytes for t in tables}.values()
    )


@pytest.mark.parametrize("tie", [True, False])
def test_a_table_is_on_disk_once(tie: bool, tmp_path: Path) -> None:
    shape = {"vocab_size": 3000, "d_model": 128, "d_ff": 512, "tie_word_embeddings": tie}
    written = Written(tmp_path, tiny_t5(**shape), "fp32")
    size = (tmp_path / "weights.bin").stat().st_size
    assert abs(size / unique_bytes(written.family) - 1) <= 0.05
    assert sorted(p.name for p in tmp_path.iterdir()) == ["decode.xml", "encode.xml", "weights.bin"]
    assert {v.weights for v in written.variants.values()} == {
        (f"graphs/{tmp_path.name}/weights.bin",)
    }


def test_sources_that_were_quantised_are_counted_as_rounded_anew() -> None:
    matrix, vector = np.zeros((4, 4), np.float32), np.zeros(4, np.float32)
    weights = {
        "a": Weight.of(matrix, origin="Q8_0"),
        "norm": Weight.of(vector, origin="Q8_0"),
        "dense": Weight.of(matrix),
        "unused": Weight.of(matrix, origin="Q8_0"),
    }
    weights["tied to a"] = weights["a"]
    assert openvino.requantised(weights, {"a", "tied to a", "norm", "dense"}) == 1


def test_values_float16_cannot_hold_are_refused(tmp_path: Path) -> None:
    checkpoint = tiny_t5()
    table = checkpoint.weights["shared.weight"].read().copy()
    table[3, 3] = 1e6
    weights = {**checkpoint.weights, "shared.weight": Weight.of(table)}
    with pytest.raises(ExportError, match="cannot hold"):
        Written(tmp_path, replace(checkpoint, weights=weights), "fp16")


def test_changed_ports_are_refused(tied: Written) -> None:
    graph = tied.variants["encode"].graph
    turned = Graph(name="encode", inputs=graph.inputs[::-1], outputs=graph.outputs)
    with pytest.raises(ExportError, match="changed the ports"):
        ir_file.check(tied.folder / "encode.xml", tied.folder / "weights.bin", turned)


def test_recurrent_rows_equal_single_steps_bit_for_bit(tmp_path: Path) -> None:
    ports = [
        Port(name="keep", dtype="float32", shape=("B", "n", 8)),
        Port(name="gain", dtype="float32", shape=("B", "n", 8)),
        Port(name="states", dtype="float32", shape=("states", 8)),
        Port(name="parents", dtype="int64", shape=("B", "n")),
        Port(name="positions", dtype="int64", shape=("B", "n")),
    ]
    wanted = Port(name="new_state", dtype="float32", shape=("B", "n", 8))
    file = WeightFile(tmp_path / "weights.data")
    ops = OnnxOps(Graph(name="decode", inputs=tuple(ports), outputs=(wanted,)), {}, file)
    ops.output("new_state", ops.follow_parents(*(ops.input(port.name) for port in ports)))
    model, _ = ops.finish()
    file.close()
    onnx.save(model, tmp_path / "loop.onnx")
    options = ExportOptions(model="tiny", output=tmp_path, weight_format="int8")
    with closing(WeightFile(tmp_path / "weights.bin")) as shared:
        converted = openvino.narrow(openvino.convert(tmp_path / "loop.onnx"), "decode", options)
        ir_file.save(converted, tmp_path / "loop.xml", shared)
    compiled = ov.Core().compile_model(
        ov.Core().read_model(tmp_path / "loop.xml", shared.path), "CPU", {}
    )
    random = np.random.default_rng(0)
    keep, gain, states = (
        random.random(shape, dtype=np.float32) for shape in ((1, 5, 8), (1, 5, 8), (3, 8))
    )
    parents, depths = [-1, 0, 0, 2, -3], [4, 5, 5, 6, 4]
    rows = compiled([keep, gain, states, np.array([parents]), np.array([depths])])[0][0]
    for row, parent in enumerate(parents):
        before = states[[parent]] if parent < 0 else rows[parent : parent + 1]
        alone = compiled([keep[:, [row]], gain[:, [row]], before, [[-1]], [[7]]])[0][0]
        np.testing.assert_array_equal(rows[row], alone[0])


# ------------------------------------------------------------------------------ the device


def test_exact_is_what_was_checked_and_fast_is_chosen_not_inherited(
    tied: Written, eight: Written
) -> None:
    exact = tied.session("decode").properties()
    assert exact["INFERENCE_PRECISION_HINT"] == "f32"
    assert exact["DYNAMIC_QUANTIZATION_GROUP_SIZE"] == "0"
    assert exact["INFERENCE_NUM_THREADS"] == "1"
    device, variant = OvCpu(), eight.variants["encode"]
    fast = DeviceOptions(exact=False)
    assert device.properties(variant, fast, ["BF16"])["INFERENCE_PRECISION_HINT"] == "bf16"
    assert device.properties(variant, fast, [])["INFERENCE_PRECISION_HINT"] == "f32"
    checked = device.properties(variant, DeviceOptions(), ["BF16"])
    assert checked.items() >= variant.settings.items()
    # A decoder's few rows of integer weights are slower in bfloat16, and stay what was checked.
    decode = eight.variants["decode"]
    assert device.properties(decode, fast, ["BF16"]) == device.properties(
        decode, DeviceOptions(), ["BF16"]
    )
    floats = device.properties(tied.variants["decode"], fast, ["BF16"])
    assert floats["INFERENCE_PRECISION_HINT"] == "bf16"


def test_the_fast_way_runs_and_stays_near(
    tied: Written, record_property: Callable[[str, object], None]
) -> None:
    found, truth = tied.steps(exact=False).feed(TARGET), tied.truth().feed(TARGET)
    record_property("error", error(found, truth))
    assert error(found, truth) <= 5e-2


def test_threads_are_as_many_as_asked_for(tied: Written) -> None:
    assert tied.session("encode", threads=2).properties()["INFERENCE_NUM_THREADS"] == "2"


def test_a_bound_array_is_read_and_written_in_place(tied: Written) -> None:
    session = tied.session("encode")
    request = session.request()
    feeds: dict[str, Any] = {
        "input_ids": np.array([SOURCE]),
        "source_mask": np.zeros((1, 6), np.float32),
    }
    request.bind("input_ids", feeds["input_ids"])
    first = request.run({"source_mask": feeds["source_mask"]})["cross_key_0"].copy()
    feeds["input_ids"][0, 0] = 8
    changed = request.run({"source_mask": feeds["source_mask"]})["cross_key_0"].copy()
    assert error(changed, first) > 1e-3
    kept = np.zeros_like(first)
    request.bind("cross_key_0", kept)
    outputs = request.run({})
    assert "cross_key_0" not in outputs
    np.testing.assert_array_equal(kept, changed)


def test_a_view_with_gaps_gives_the_same_as_its_copy(tied: Written) -> None:
    ids = np.array([[7, 0, 301, 0, 44, 0]])[:, ::2]
    mask = np.zeros((1, 3), np.float32)
    request = tied.session("encode").request()
    gaps = request.run({"input_ids": ids, "source_mask": mask})["cross_key_0"].copy()
    dense = request.run({"input_ids": ids.copy(), "source_mask": mask})["cross_key_0"]
    np.testing.assert_array_equal(gaps, dense)


def test_requests_of_one_session_do_not_share_bindings(tied: Written) -> None:
    session = tied.session("encode")
    one, other = session.request(), session.request()
    mask = np.zeros((1, 2), np.float32)
    first = one.run({"input_ids": np.array([[3, 4]]), "source_mask": mask})["cross_key_0"]
    before = first.copy()
    other.run({"input_ids": np.array([[9, 10]]), "source_mask": mask})
    np.testing.assert_array_equal(first, before)


@pytest.mark.parametrize(
    ("feeds", "said"),
    [
        ({"input_ids": np.zeros((1, 2), np.float32)}, "input_ids int64"),
        ({"input_ids": np.zeros((2,), np.int64)}, "input_ids int64"),
        ({"ids": np.zeros((1, 2), np.int64)}, "no input ids"),
        ({"input_ids": np.zeros((1, 2), np.int64)}, "not given: source_mask"),
    ],
)
def test_a_wrong_feed_is_one_line(tied: Written, feeds: dict[str, Any], said: str) -> None:
    with pytest.raises(DeviceError, match=said) as caught:
        tied.session("encode").request().run(feeds)
    assert "\n" not in str(caught.value)


def test_sizes_that_contradict_each_other_are_one_line(tied: Written) -> None:
    feeds: dict[str, Any] = {
        "input_ids": np.zeros((1, 4), np.int64),
        "source_mask": np.zeros((1, 3), np.float32),
    }
    with pytest.raises(DeviceError, match=r"got size 3 where S=4"):
        tied.session("encode").request().run(feeds)


def test_a_mask_of_another_length_than_the_cache_is_one_line(tied: Written) -> None:
    steps = tied.steps()
    steps.feed(TARGET[:2])
    steps.length = 1
    call = steps.call([5], [-1])
    call["visible"] = np.zeros((1, 1, 3), np.float32)
    call["key_positions"] = np.zeros((1, 3), np.int64)
    with pytest.raises(DeviceError, match=r"past\+n=3 where past=1, n=1"):
        steps.run(call)


def test_a_damaged_graph_is_one_line(tied: Written, tmp_path: Path) -> None:
    (tmp_path / "encode.xml").write_text("<net>")
    (tmp_path / "weights.bin").write_bytes(b"\0" * 64)
    with pytest.raises(DeviceError, match=r"cannot compile encode\.xml") as caught:
        OvCpu().compile(tmp_path / "encode.xml", tied.variants["encode"], DeviceOptions())
    assert "\n" not in str(caught.value)


def test_a_compiled_graph_is_kept_where_the_caller_says(tied: Written, tmp_path: Path) -> None:
    cold = tied.steps(cache_dir=tmp_path).feed(TARGET)
    blobs = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.blob")}
    assert blobs
    np.testing.assert_array_equal(tied.steps(cache_dir=tmp_path).feed(TARGET), cold)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.blob")} == blobs


def test_a_machine_without_openvino_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    graph = Graph(name="encode", inputs=(), outputs=())
    variant = Variant(
        format="openvino",
        precision=openvino.precision_of(ExportOptions(model="tiny", output=tmp_path), 0),
        graph=graph,
        file="graphs/x/encode.xml",
    )
    with pytest.raises(DeviceMissing, match=r"pip install 'edgegen\[openvino\]' \("):
        OvCpu().compile(tmp_path / "encode.xml", variant, DeviceOptions())
