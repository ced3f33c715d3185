"""ONNX Runtime says what torch says, the listing tells reasons, the fake fails on demand."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from time import process_time, sleep
from typing import Any

import numpy as np
import pytest
from onnx import load as load_model
from stepping import Steps, TorchSession, encode, error
from tiny import tiny_t5
from tiny_families import write_bundle

import edgegen.devices.onnxruntime as ort_sessions
from edgegen.bundle import Bundle
from edgegen.devices import DEVICES, device_named
from edgegen.devices.device import DeviceOptions, Feeds, Tensor
from edgegen.devices.fake import FakeDevice, Faults
from edgegen.devices.listing import list_devices
from edgegen.devices.onnxruntime import OrtSession
from edgegen.devices.ort_cpu import OrtCpu
from edgegen.errors import DeviceError, InputError
from edgegen.export.families.t5 import T5
from edgegen.export.formats import onnx
from edgegen.export.formats.caching import cache_of
from edgegen.export.options import ExportOptions, WeightFormat
from edgegen.graph import Graph, Port
from edgegen.manifest import Precision, Variant

SOURCE = [7, 301, 44, 9, 120, 1]
TARGET = [0, 5, 77, 250, 33, 18]
SHAPES: dict[str, dict[str, Any]] = {
    "tied": {"tie_word_embeddings": True},
    "untied-gated": {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"},
}


class Written:
    """An exported T5 with its ONNX Runtime sessions."""

    def __init__(self, folder: Path, weight_format: WeightFormat, **shape: Any) -> None:
        self.family = T5(tiny_t5(**shape))
        self.folder = folder
        self.variants = onnx.write(
            self.family,
            folder,
            ExportOptions(model="tiny", output=folder, weight_format=weight_format),
        )

    def session(self, name: str) -> OrtSession:
        found = OrtCpu().compile(self.folder / f"{name}.onnx", self.variants[name], DeviceOptions())
        assert isinstance(found, OrtSession)
        return found

    def steps(self, padding: int = 0) -> Steps:
        memory = encode(self.session("encode"), SOURCE, padding)
        return Steps(self.session("decode"), memory, self.variants["decode"].cache)

    def truth(self) -> Steps:
        memory = encode(TorchSession(self.family, "encode"), SOURCE)
        record = cache_of(self.family, "decode", "append")
        return Steps(TorchSession(self.family, "decode"), memory, record)


@pytest.fixture(scope="module", params=SHAPES)
def fused(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    return Written(tmp_path_factory.mktemp("fused"), "fp32", **SHAPES[request.param])


def test_every_step_says_what_torch_says(fused: Written) -> None:
    found, truth = fused.steps(), fused.truth()
    for calls in ([TARGET[0]], [TARGET[1]], TARGET[2:5], [TARGET[5]]):
        assert error(found.feed(calls), truth.feed(calls)) <= 1e-4


def test_a_rewound_cache_forgets_the_rejected_rows(fused: Written) -> None:
    found, truth = fused.steps(), fused.truth()
    found.feed([0, 499, 498, 497])
    found.length = 1
    truth.feed([0])
    assert error(found.feed(TARGET[1:3]), truth.feed(TARGET[1:3])) <= 1e-4
    found.length = truth.length = 2
    assert error(found.feed(TARGET[3:]), truth.feed(TARGET[3:])) <= 1e-4


def test_right_padding_of_the_source_changes_nothing(fused: Written) -> None:
    assert error(fused.steps(padding=5).feed(TARGET), fused.steps().feed(TARGET)) <= 1e-5


def test_a_tree_s_rows_are_its_paths_fed_plainly(fused: Written) -> None:
    found = fused.steps()
    found.feed([0])
    rows = found.feed([5, 77, 250, 33, 18], [-1, 0, 0, 1, -1])
    for path in ([0, 1, 3], [0, 2], [4]):
        plainly = fused.steps()
        plainly.feed([0])
        assert error(rows[path], plainly.feed([[5, 77, 250, 33, 18][i] for i in path])) <= 1e-5


BOUNDS: dict[WeightFormat, float] = {"fp16": 2e-3, "int8": 3e-2, "int4": 0.4}


@pytest.mark.parametrize("weight_format", BOUNDS)
def test_narrow_weights_stay_near(
    weight_format: WeightFormat, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    narrow = Written(tmp_path, weight_format)
    found, truth = narrow.steps().feed(TARGET), narrow.truth().feed(TARGET)
    record_property("agreement", float((found.argmax(-1) == truth.argmax(-1)).mean()))
    record_property("error", error(found, truth))
    assert error(found, truth) <= BOUNDS[weight_format]


def test_a_damaged_graph_is_one_line(fused: Written, tmp_path: Path) -> None:
    (tmp_path / "encode.onnx").write_bytes(b"\xff" * 16)
    with pytest.raises(DeviceError, match=r"cannot compile encode\.onnx") as caught:
        OrtCpu().compile(tmp_path / "encode.onnx", fused.variants["encode"], DeviceOptions())
    assert "\n" not in str(caught.value)


# ----------------------------------------------------------------------------- the table


@pytest.mark.parametrize("name", list(DEVICES))
def test_every_device_keeps_its_name_and_says_what_it_is(name: str) -> None:
    device = device_named(name)
    assert device.name == name
    assert device.limits.formats and device.limits.caches
    why = device.missing()
    if name in ("ort-cpu", "ov-cpu"):
        assert why is None
    if why is None:
        assert device.describe()["hardware"]
    else:
        assert len(why) > 20 and "\n" not in why
        with pytest.raises(DeviceError):
            device.compile(Path("none.onnx"), VARIANT, DeviceOptions())


def test_the_listing_has_every_device_and_a_reason_for_every_absence() -> None:
    entries = list_devices()
    assert [entry.name for entry in entries if entry.usable] == list(DEVICES)
    assert all(entry.available != bool(entry.why) for entry in entries)
    assert all("\n" not in entry.why for entry in entries)
    names = {entry.name for entry in entries}
    assert {"onnxruntime:CPUExecutionProvider", "openvino:CPU", "openvino:NPU"} <= names


@pytest.mark.parametrize("library", ["onnxruntime", "openvino"])
def test_the_listing_tells_what_to_install(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    entries = {entry.name: entry for entry in list_devices()}
    assert "pip install" in entries[library].why


# ------------------------------------------------------------------------------ the fake

GRAPH = Graph(
    name="decode",
    inputs=(Port(name="x", dtype="float32", shape=("n",)),),
    outputs=(Port(name="y", dtype="float32", shape=("n",)),),
)
VARIANT = Variant(
    format="onnx", precision=Precision(weight_format="fp32"), graph=GRAPH, file="decode.onnx"
)


def double(feeds: Feeds) -> Mapping[str, Tensor]:
    return {"y": feeds["x"] * 2}


def fake(**faults: Any) -> FakeDevice:
    return FakeDevice({"decode": double}, Faults(**faults))


def test_the_fake_runs_its_function_and_honours_bindings() -> None:
    session = fake().compile(Path("decode.onnx"), VARIANT, DeviceOptions())
    request = session.request()
    x, y = np.ones(3, np.float32), np.zeros(3, np.float32)
    request.bind("x", x)
    np.testing.assert_array_equal(request.run({})["y"], [2, 2, 2])
    request.bind("y", y)
    x[:] = 4
    assert request.run({}) == {}
    np.testing.assert_array_equal(y, [8, 8, 8])
    with pytest.raises(InputError, match="missing x"):
        session.request().run({})


def test_the_fake_fails_where_it_is_told() -> None:
    with pytest.raises(DeviceError, match="cannot compile"):
        fake(compiling=True).compile(Path("decode.onnx"), VARIANT, DeviceOptions())
    session = fake(at_call=1).compile(Path("decode.onnx"), VARIANT, DeviceOptions())
    request = session.request()
    feeds = {"x": np.ones(3, np.float32)}
    request.run(feeds)
    with pytest.raises(DeviceError, match="call 1"):
        request.run(feeds)
    assert request.run(feeds)["y"].shape == (3,)
    short = fake(wrong_shape=True).compile(Path("decode.onnx"), VARIANT, DeviceOptions())
    assert short.request().run(feeds)["y"].shape == (2,)


@pytest.mark.parametrize("port", ["key_cache_0", "key_cache_out_0"])
def test_memory_with_gaps_is_refused_before_it_is_written_beside(port: str, fused: Written) -> None:
    """A library that is given such an array as an output writes into a copy of its own."""
    held = fused.variants["decode"].cache
    whole = np.zeros((1, held.heads, 64, 2 * held.head_dim), np.float32)
    with pytest.raises(DeviceError, match=f"port {port} must be contiguous; got strides"):
        fused.session("decode").request().bind(port, whole[..., : held.head_dim])


def test_calls_of_changing_sizes_say_what_calls_of_one_size_do(
    fused: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bindings are kept by size; what is bound later, or forgotten, reaches all of them."""
    monkeypatch.setattr("edgegen.devices.onnxruntime.FRAMES", 2)
    found = fused.steps()
    texts = ([0], [5, 77], [250, 33, 18], [5], [9, 9, 9], [4, 7], [1, 2, 3, 4], [6])
    for length in (0, 0, 3):  # again, and from a longer past
        for text in texts:
            alone = fused.steps()
            for one in (found, alone):
                one.length = 0
                one.feed([0, 8, 9][:length] or [0])
                one.length = length
            np.testing.assert_array_equal(found.feed(text), alone.feed(text))


def test_a_request_forgets_the_sizes_it_has_no_room_for(
    fused: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = fused.session("encode")
    sizes = range(1, 9)

    def answers(request: Any) -> list[Tensor]:
        return [
            request.run(
                {
                    "input_ids": np.full((1, n), 5, np.int64),
                    "source_mask": np.zeros((1, n), np.float32),
                }
            )["cross_key_0"]
            for n in sizes
        ]

    whole: Any = session.request()
    expected = answers(whole)
    assert len(whole._frames) == len(sizes)
    monkeypatch.setattr("edgegen.devices.onnxruntime.FRAME_BYTES", 1)
    small: Any = session.request()
    for found, wanted in zip(answers(small), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert len(small._frames) == 1


@pytest.mark.parametrize(("spin_us", "busy"), [(None, False), (60_000_000, True)])
def test_idle_workers_spin_no_longer_than_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spin_us: int | None, busy: bool
) -> None:
    """A library that no longer knows the option would spin by its own rule, in silence."""
    if spin_us is not None:
        monkeypatch.setattr(ort_sessions, "SPIN_US", spin_us)
    written = Written(tmp_path, "fp32", **SHAPES["tied"])
    variant = written.variants["encode"]
    session = OrtCpu().compile(tmp_path / "encode.onnx", variant, DeviceOptions(threads=2))
    before = process_time()
    sleep(0.2)
    spun = process_time() - before
    session.close()
    assert (spun > 0.05) is busy


@pytest.mark.parametrize("name", ["bart", "whisper", "moonshine"])
def test_on_the_cpu_sums_are_normed_by_another_operator_and_gelu_is_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime would make one operator of sum and norm, which is slower there."""
    kept = tmp_path / "compiled.onnx"
    usual = ort_sessions.session_options

    def keeping(*given: Any) -> Any:
        settings = usual(*given)
        settings.optimized_model_filepath = str(kept)
        return settings

    monkeypatch.setattr(ort_sessions, "session_options", keeping)
    bundle = Bundle.open(write_bundle(tmp_path / name, name))
    for part in ("encode", "decode"):
        [variant] = bundle.manifest.components[part].variants
        OrtCpu().compile(bundle.path / variant.file, variant, DeviceOptions()).close()
        ran = Counter(
            node.op_type for node in load_model(kept, load_external_data=False).graph.node
        )
        assert ran["LayerNormalization"] > 2
        assert not [kind for kind in ran if kind.startswith("Skip") or kind == "Erf"]
        gelus = ran["Gelu"] + ran["BiasGelu"]
        assert gelus > 0 or name == "moonshine"  # whose decoder has another function
