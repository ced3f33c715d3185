"""The CUDA device's code against a GPU that is not there: what it asks for, and how it fails.

Nothing here ran on a GPU; ``edgegen devices`` says so.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from fake_onnxruntime import Gpu, module

import edgegen
from edgegen.bundle import Bundle
from edgegen.devices import DeviceOptions, device_named
from edgegen.errors import DeviceError

PLAIN = edgegen.GenerationOptions(draft="none", max_new_tokens=10, min_new_tokens=10)
TEXT = "the cat sat"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    made = Gpu()
    monkeypatch.setitem(sys.modules, "onnxruntime", module(made))
    return made


@pytest.fixture(scope="module")
def expected(tiny_t5_bundle: Path) -> edgegen.Result:
    with edgegen.load(tiny_t5_bundle) as pipeline:
        return pipeline.generate(TEXT, PLAIN)


def test_a_text_is_made_through_the_provider_with_exact_arithmetic(
    gpu: Gpu, tiny_t5_bundle: Path, expected: edgegen.Result
) -> None:
    with edgegen.load(tiny_t5_bundle, "ort-cuda") as pipeline:
        found = pipeline.generate(TEXT, PLAIN)
    assert found.tokens == expected.tokens
    assert set(found.devices.values()) == {"ort-cuda"}
    assert gpu.runs > 10
    assert gpu.options and all(one == {"use_tf32": "0"} for one in gpu.options)
    # cuDNN's wheels are found, and the library is never left to choose another provider.
    assert gpu.libraries_loaded == gpu.fallbacks_disabled == len(gpu.options)


def test_faster_arithmetic_is_taken_where_it_is_allowed(gpu: Gpu, tiny_t5_bundle: Path) -> None:
    edgegen.load(tiny_t5_bundle, "ort-cuda", exact=False).close()
    assert all(one == {"use_tf32": "1"} for one in gpu.options)


def test_nodes_left_to_the_cpu_are_named(gpu: Gpu, tiny_t5_bundle: Path) -> None:
    gpu.on_cpu = ("Shape", "MatMul")
    with pytest.raises(DeviceError, match=r"ort-cuda leaves nodes of \w+\.onnx .*\d MatMul"):
        edgegen.load(tiny_t5_bundle, "ort-cuda")


FAULTS: dict[str, dict[str, object]] = {
    "did not start": {"starts": False},
    "no CUDA-capable device": {"refuses": "CUDA failure 100: no CUDA-capable device\nat x.cc:1"},
    "unspecified launch failure": {"lost_at": 5},
}


@pytest.mark.parametrize("why", FAULTS)
def test_a_gpu_that_fails_is_one_line_and_with_a_fallback_the_text(
    why: str, gpu: Gpu, tiny_t5_bundle: Path, expected: edgegen.Result
) -> None:
    for name, value in FAULTS[why].items():
        setattr(gpu, name, value)
    with (
        pytest.raises(DeviceError, match=why) as caught,
        edgegen.load(tiny_t5_bundle, "ort-cuda") as pipeline,
    ):
        pipeline.generate(TEXT, PLAIN)
    assert "ort-cuda" in str(caught.value) and "\n" not in str(caught.value)
    gpu.runs = 0
    with edgegen.load(tiny_t5_bundle, "ort-cuda", fallback=["ort-cpu"]) as pipeline:
        found = pipeline.generate(TEXT, PLAIN)
    assert found.tokens == expected.tokens
    assert found.devices["decode"] == "ort-cpu"
    assert all(why in one.reason and "\n" not in one.reason for one in found.fallbacks)


def test_the_device_says_that_it_was_not_run_on_hardware(gpu: Gpu) -> None:
    device = device_named("ort-cuda")
    assert device.missing() is None
    assert device.describe()["onnxruntime"] == "1.32.0+fake"
    assert device.limits.caveat == "not run on hardware"


def test_a_library_without_the_provider_says_what_to_install() -> None:
    why = device_named("ort-cuda").missing()
    assert why is not None and "onnxruntime-gpu" in why


def test_what_is_rewritten_in_place_is_copied_to_the_gpu_again(
    gpu: Gpu, tiny_t5_bundle: Path
) -> None:
    bundle = Bundle.open(tiny_t5_bundle)
    variant = bundle.component("encode").variants[0]
    session = device_named("ort-cuda").compile(
        bundle.file(variant.file), variant, DeviceOptions(cpu_nodes=True)
    )
    request, ids = session.request(), np.array([[3, 4, 5]])
    feeds = {"input_ids": ids, "source_mask": np.ones((1, 3), np.float32)}
    first = request.run(feeds)["cross_key_0"].copy()
    ids[:] = 7
    rewritten = request.run(feeds)["cross_key_0"].copy()
    assert not np.array_equal(rewritten, first)
    assert np.array_equal(rewritten, session.request().run(feeds)["cross_key_0"])
    assert gpu.runs == 3
