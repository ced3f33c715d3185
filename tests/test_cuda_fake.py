"""The CUDA device's code against a GPU that is not there: what it asks for, and how it fails.

Nothing here runs on a GPU; ``test_cuda`` does.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_onnxruntime import Gpu, module
from msgspec.structs import replace as replace_fields
from tiny_families import write_bundle

import edgegen
from edgegen.bundle import Bundle
from edgegen.devices import DeviceOptions, device_named
from edgegen.errors import BundleError, DeviceError
from edgegen.export.options import CacheKind
from edgegen.manifest import Component
from edgegen.runtime.engine import Engine
from edgegen.runtime.speculation import SAFETY, UNSEEN, noise_of

PLAIN = edgegen.GenerationOptions(draft="none", max_new_tokens=10, min_new_tokens=10)
TEXT = "the cat sat"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    made = Gpu()
    monkeypatch.setitem(sys.modules, "onnxruntime", module(made))
    return made


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder for each: in place for the CPU, rows appended for a GPU."""
    folder = tmp_path_factory.mktemp("cuda") / "t5"
    return write_bundle(folder, "t5-tied", caches=("in_place", "append"))


@pytest.fixture(scope="module")
def expected(bundle: Path) -> edgegen.Result:
    with edgegen.load(bundle) as pipeline:
        return pipeline.generate(TEXT, PLAIN)


def test_a_text_is_made_through_the_provider_with_exact_arithmetic(
    gpu: Gpu, bundle: Path, expected: edgegen.Result
) -> None:
    with edgegen.load(bundle, "ort-cuda") as pipeline:
        found = pipeline.generate(TEXT, PLAIN)
    assert found.tokens == expected.tokens
    assert set(found.devices.values()) == {"ort-cuda"}
    assert gpu.runs > 10
    assert gpu.options and all(one == {"use_tf32": "0"} for one in gpu.options)
    # cuDNN's wheels are found, and the library is never left to choose another provider.
    assert gpu.libraries_loaded == gpu.fallbacks_disabled == len(gpu.options)


def test_faster_arithmetic_is_taken_where_it_is_allowed(gpu: Gpu, bundle: Path) -> None:
    edgegen.load(bundle, "ort-cuda", exact=False).close()
    assert all(one == {"use_tf32": "1"} for one in gpu.options)


def test_nodes_left_to_the_cpu_are_named(gpu: Gpu, bundle: Path) -> None:
    gpu.on_cpu = ("Shape", "MatMul")
    with pytest.raises(DeviceError, match=r"ort-cuda leaves nodes of \w+\.onnx .*\d MatMul"):
        edgegen.load(bundle, "ort-cuda")


FAULTS: dict[str, dict[str, object]] = {
    "did not start": {"starts": False},
    "no CUDA-capable device": {"refuses": "CUDA failure 100: no CUDA-capable device\nat x.cc:1"},
    "unspecified launch failure": {"lost_at": 5},
}


@pytest.mark.parametrize("why", FAULTS)
def test_a_gpu_that_fails_is_one_line_and_with_a_fallback_the_text(
    why: str, gpu: Gpu, bundle: Path, expected: edgegen.Result
) -> None:
    for name, value in FAULTS[why].items():
        setattr(gpu, name, value)
    with (
        pytest.raises(DeviceError, match=why) as caught,
        edgegen.load(bundle, "ort-cuda") as pipeline,
    ):
        pipeline.generate(TEXT, PLAIN)
    assert "ort-cuda" in str(caught.value) and "\n" not in str(caught.value)
    gpu.runs = 0
    with edgegen.load(bundle, "ort-cuda", fallback=["ort-cpu"]) as pipeline:
        found = pipeline.generate(TEXT, PLAIN)
    assert found.tokens == expected.tokens
    assert found.devices["decode"] == "ort-cpu"
    assert all(why in one.reason and "\n" not in one.reason for one in found.fallbacks)


def test_the_device_was_run_on_hardware(gpu: Gpu) -> None:
    device = device_named("ort-cuda")
    assert device.missing() is None
    assert device.describe()["onnxruntime"] == "1.32.0+fake"
    assert device.limits.caveat == ""


def test_a_library_without_the_provider_says_what_to_install() -> None:
    why = device_named("ort-cuda").missing()
    assert why is not None and "onnxruntime-gpu" in why


def test_what_is_rewritten_in_place_is_copied_to_the_gpu_again(gpu: Gpu, bundle: Path) -> None:
    opened = Bundle.open(bundle)
    variant = opened.component("encode").variants[0]
    session = device_named("ort-cuda").compile(
        opened.file(variant.file), variant, DeviceOptions(cpu_nodes=True)
    )
    request, ids = session.request(), np.array([[3, 4, 5]])
    feeds = {"input_ids": ids, "source_mask": np.ones((1, 3), np.float32)}
    first = request.run(feeds)["cross_key_0"].copy()
    ids[:] = 7
    rewritten = request.run(feeds)["cross_key_0"].copy()
    assert not np.array_equal(rewritten, first)
    assert np.array_equal(rewritten, session.request().run(feeds)["cross_key_0"])
    assert gpu.runs == 3


WAYS: dict[str, dict[str, object]] = {
    "lookup": {"draft": "lookup"},
    "tree": {"draft": "recycling"},
    "beams": {"draft": "none", "num_beams": 3},
    "long": {"draft": "none"},
}


@pytest.mark.parametrize("way", WAYS)
def test_rows_in_the_gpu_s_memory_are_the_cpu_s(way: str, gpu: Gpu, bundle: Path) -> None:
    """Through drafts taken back, side branches kept, and memory that grows."""
    said = edgegen.GenerationOptions(max_new_tokens=150, min_new_tokens=150, **WAYS[way])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    found: list[list[int]] = []
    for device in ("ort-cpu", "ort-cuda"):
        with edgegen.load(bundle, device) as pipeline:
            found.append(list(pipeline.generate(TEXT, said).tokens))
    assert found[0] == found[1]
    assert gpu.most_held > 0


def test_a_text_holds_its_rows_once_whatever_was_drafted(gpu: Gpu, bundle: Path) -> None:
    """Calls of many sizes, side branches kept, memory that grew: nothing of before is held."""
    said = edgegen.GenerationOptions(max_new_tokens=150, min_new_tokens=150, draft="recycling")
    with edgegen.load(bundle, "ort-cuda") as pipeline:
        pipeline.generate(TEXT, said)
        record = pipeline.engine.variants["decode"].cache
    row = 2 * record.layers * record.heads * record.head_dim * 4
    source = 2 * record.layers * record.heads * record.head_dim * 4 * 16
    # 256 rows, while they grow from 128 one port after another, and the source's few.
    assert gpu.most_held <= row * (256 + 128) + source


def test_texts_in_seats_start_from_rows_the_gpu_held(gpu: Gpu, bundle: Path) -> None:
    texts, found = [TEXT, "a dog sat on the mat"], list[list[list[int]]]()
    for device in ("ort-cpu", "ort-cuda"):
        with edgegen.load(bundle, device) as pipeline:
            results = pipeline.generate(texts, PLAIN, batch_size=2)
            found.append([list(one.tokens) for one in results])
    assert found[0] == found[1]


def test_a_full_gpu_is_one_line(gpu: Gpu, bundle: Path) -> None:
    gpu.room = 1 << 12
    with (
        edgegen.load(bundle, "ort-cuda") as pipeline,
        pytest.raises(DeviceError, match=r"ort-cuda has no memory for [\d.]+ MB: CUDA") as caught,
    ):
        pipeline.generate(TEXT, PLAIN)
    assert "\n" not in str(caught.value)
    with edgegen.load(bundle, "ort-cuda", fallback=["ort-cpu"]) as pipeline:
        found = pipeline.generate(TEXT, PLAIN)
    assert found.devices["decode"] == "ort-cpu"


def test_a_bundle_for_the_cpu_alone_says_how_to_export_it_for_a_gpu(
    gpu: Gpu, tiny_t5_bundle: Path
) -> None:
    with pytest.raises(BundleError, match="--cache in_place,append"):
        edgegen.load(tiny_t5_bundle, "ort-cuda")


def test_rows_seen_equal_on_a_cpu_are_not_taken_for_equal_on_a_gpu(gpu: Gpu, bundle: Path) -> None:
    for device, noise in (("ort-cpu", 0.0), ("ort-cuda", SAFETY * UNSEEN)):
        engine = Engine(marked_equal(Bundle.open(bundle)), device_named(device), DeviceOptions())
        assert noise_of(engine, PLAIN) == noise
        engine.close()


def marked_equal(bundle: Bundle) -> Bundle:
    """The bundle as if the gate had seen its rows equal."""
    decode = bundle.manifest.components["decode"]
    variants = tuple(
        replace_fields(one, precision=replace_fields(one.precision, rows="bit"))
        for one in decode.variants
    )
    components = {**bundle.manifest.components, "decode": Component(variants=variants)}
    return replace(bundle, manifest=replace_fields(bundle.manifest, components=components))


def test_an_encoder_of_integers_is_not_for_the_gpu_and_its_decoder_is(
    gpu: Gpu, tmp_path: Path
) -> None:
    caches: tuple[CacheKind, ...] = ("in_place", "append")
    path = write_bundle(
        tmp_path / "b", "t5-tied", weight_format="int4", caches=caches, integer=("encode",)
    )
    with pytest.raises(BundleError, match="ort-cuda runs none of the variants of encode"):
        edgegen.load(path, "ort-cuda")
    places = {"encode": "ort-cpu", "decode": "ort-cuda"}
    with edgegen.load(path, places, precision="int4") as pipeline:
        found = pipeline.generate(TEXT, PLAIN)
    assert found.devices["decode"] == "ort-cuda"
    assert len(found.tokens) == 10


@pytest.mark.parametrize("caches", [("in_place", "append"), ("append", "in_place")])
def test_the_cpu_s_decoder_keeps_its_companion_row_in_either_order(
    caches: tuple[CacheKind, ...], tmp_path: Path
) -> None:
    decode = Bundle.open(write_bundle(tmp_path / "b", "t5-tied", caches=caches)).component("decode")
    spare = {one.cache.kind: one.cache.spare for one in decode.variants}
    assert spare == {"in_place": 1, "append": 0}
