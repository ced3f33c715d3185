"""An NVIDIA GPU: the CPU's tokens from every kind of decoder, its memory used as it is meant to be.

`make cuda` runs this where there is one. Of the nodes, ONNX Runtime may compute only sizes and
positions on the CPU (``Limits.cpu_ops``); a graph of which it leaves more does not compile.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_families import CASES, write_bundle

import edgegen
from edgegen.bundle import Bundle
from edgegen.devices import DeviceOptions, device_named
from edgegen.devices.device import DeviceArray
from edgegen.runtime.engine import Engine, Memory

DEVICE = device_named("ort-cuda")
MISSING = DEVICE.missing()
REQUIRED = os.environ.get("EDGEGEN_CUDA") == "required"
pytestmark = pytest.mark.skipif(MISSING is not None and not REQUIRED, reason=f"GPU: {MISSING}")

WEIGHTS = ("fp32", "fp16", "int8", "int4")
# Largest difference of logits, as a share of the largest one. The CPU rounds activations to 8 bits
# where weights are of 8 or 4; the GPU does not.
CLOSE = {"fp32": 1e-4, "fp16": 1e-4, "int8": 5e-2, "int4": 5e-2}
# A state a layer; a prompt whose rows see each other.
ONE_KIND = ("marian-ssru", "codegen-prefix-lm")
TOKENS = [5, 9, 77, 12, 30, 8, 61, 44, 3, 19, 7]
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"draft": "none"},
    "seeded": {"draft": "none", "do_sample": True, "temperature": 0.9, "seed": 7},
    "lookup": {"draft": "lookup"},
    "tree": {"draft": "recycling"},
    "beams": {"draft": "none", "num_beams": 3},
}
Bundles = Callable[[str, str], Bundle]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    @cache
    def bundle(name: str, weights: str) -> Bundle:
        folder = tmp_path_factory.mktemp("cuda") / name
        kinds: Any = () if name in ONE_KIND else ("in_place", "append")
        return Bundle.open(write_bundle(folder, name, weight_format=weights, caches=kinds))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    return bundle


@pytest.fixture
def pair(request: pytest.FixtureRequest, bundles: Bundles) -> Iterator[tuple[Engine, Engine]]:
    name, weights = request.param
    bundle = bundles(name, weights)
    found = [Engine(bundle, device_named(d), DeviceOptions()) for d in ("ort-cpu", "ort-cuda")]
    yield found[0], found[1]
    for engine in found:
        engine.close()


def remembered(engine: Engine) -> Memory | None:
    manifest = engine.manifest
    if manifest.speech is not None:
        samples = np.sin(np.arange(manifest.speech.window_samples) * 0.01)
        return engine.remember_samples(samples.astype(np.float32))
    if (image := manifest.image) is not None:
        pixels = np.random.default_rng(3).normal(size=(3, image.height, image.width))
        return engine.remember_pixels(pixels.astype(np.float32))
    return engine.remember_ids([5, 9, 77, 120, 1]) if "encode" in engine.variants else None


def rows(engine: Engine) -> np.ndarray[Any, Any]:
    """A prompt, single steps, a call of several rows, and one after some were taken back."""
    decoder = engine.decoder(remembered(engine))
    found = [decoder.forward(TOKENS[:4]).logits.copy()]
    decoder.keep(4)
    for at in (4, 5):
        found.append(decoder.forward(TOKENS[at : at + 1]).logits.copy())
        decoder.keep(at + 1)
    found.append(decoder.forward(TOKENS[6:10]).logits.copy())
    decoder.keep(8)
    found.append(decoder.forward(TOKENS[8:11]).logits.copy())
    return np.concatenate(found)


CHECKED = [
    *((name, "fp32") for name in CASES),
    *((name, kind) for name in ("t5-tied", "whisper") for kind in WEIGHTS[1:]),
]


@pytest.mark.parametrize("pair", CHECKED, ids="-".join, indirect=True)
def test_logits_are_the_cpu_s_and_stay_after_rows_were_taken_back(
    pair: tuple[Engine, Engine],
) -> None:
    cpu, gpu = map(rows, pair)
    assert pair[1].devices["decode"] == "ort-cuda"
    weights = pair[1].variants["decode"].precision.weight_format
    assert np.abs(cpu - gpu).max() <= CLOSE[weights] * np.abs(cpu).max()


@pytest.mark.parametrize("way", WAYS)
def test_texts_are_the_cpu_s_token_for_token(way: str, bundles: Bundles) -> None:
    path = bundles("t5-tied", "fp32").path
    options = edgegen.GenerationOptions(max_new_tokens=90, min_new_tokens=90, **WAYS[way])
    found: list[list[int]] = []
    for device in ("ort-cpu", "ort-cuda"):
        with edgegen.load(path, device) as pipeline:
            found.append(list(pipeline.generate("the cat sat on the mat", options).tokens))
    assert found[0] == found[1]


def test_batches_are_the_cpu_s(bundles: Bundles) -> None:
    path = bundles("t5-tied", "fp32").path
    options = edgegen.GenerationOptions(max_new_tokens=12, min_new_tokens=12, draft="none")
    texts, found = ["the cat", "a dog sat on the mat", "ban din fon"], list[list[Any]]()
    for device in ("ort-cpu", "ort-cuda"):
        with edgegen.load(path, device) as pipeline:
            results = pipeline.generate(texts, options, batch_size=3)
            found.append([list(one.tokens) for one in results])
    assert found[0] == found[1]


def test_the_text_s_rows_stay_in_the_gpu_s_memory(bundles: Bundles) -> None:
    engine = Engine(bundles("t5-tied", "fp32"), DEVICE, DeviceOptions())
    decoder = engine.decoder(remembered(engine))
    decoder.forward([0])
    decoder.keep(1)
    bound: Any = decoder._request  # pyright: ignore[reportPrivateUsage]
    frame = next(iter(bound._request._frames.values()))
    places = [value.device_name() for value in frame.binding.get_outputs()]
    record = engine.variants["decode"].cache
    # New rows lie there; logits alone come back.
    assert places.count("cuda") == 2 * record.layers
    assert places.count("cpu") == 1
    assert isinstance(frame.held["cross_key_0"], DeviceArray)
    # What was fed is another part of the memory next time, and is not kept from being freed.
    assert not {"past_key_0", "new_value_0"} & set(frame.held)
    engine.close()


def test_a_gpu_without_memory_for_a_text_is_one_line(bundles: Bundles, tmp_path: Path) -> None:
    """More rows than any GPU holds."""
    engine = Engine(bundles("t5-tied", "fp32"), DEVICE, DeviceOptions())
    session = engine.session("decode")
    assert session.memory is not None
    with pytest.raises(edgegen.EdgegenError, match="ort-cuda"):
        session.memory.empty((1 << 20, 1 << 22), np.dtype(np.float32))
    engine.close()
