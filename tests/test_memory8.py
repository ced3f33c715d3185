"""A source's keys and values in 8 bits: close to those of the checkpoint, and exact in all that is
promised of rows and drafts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from test_rows import MOST, Model, drawn, same_bits
from tiny_families import CASES, write_bundle
from tiny_words import Case

from edgegen.bundle import Bundle
from edgegen.devices import DEVICES, DeviceOptions, device_named
from edgegen.devices.device import Feeds, Tensor
from edgegen.errors import BundleError, ExportError, ParityError
from edgegen.export.families import family_of
from edgegen.export.options import ExportOptions, StaticSizes
from edgegen.export.parity import Gate, judge
from edgegen.runtime.engine import Engine, Memory
from edgegen.runtime.opening import load
from edgegen.runtime.options import GenerationOptions
from edgegen.runtime.variants import choose_variant

Samples = NDArray[np.float32]
WIDE: dict[str, Any] = {"decoder_ffn_dim": 96}  # every matrix in blocks of 32
# Random weights repeat themselves, which a pipeline warns of.
REPEATS = pytest.mark.filterwarnings("ignore:the text from:edgegen.runtime.task.EdgegenWarning")
FORMATS = ("fp32", "int8", "int4")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Whisper by weight format and memory."""
    root = tmp_path_factory.mktemp("memories")
    made: dict[tuple[str, str], Path] = {}
    for weights, memory in [*((one, "int8") for one in FORMATS), ("fp32", "fp32")]:
        kinds: dict[str, Any] = {"weight_format": weights, "memory": memory}
        made[weights, memory] = write_bundle(
            root / f"{weights}-{memory}", "whisper", **kinds, **WIDE
        )
    return made


Folders = dict[tuple[str, str], Path]


def has_encoder(case: Case) -> bool:
    return family_of(case.make())[1].shape.encoder


def tones(seed: int) -> Samples:
    random = np.random.default_rng(seed)
    times = np.arange(16000 * 3)[:, None] * random.uniform(0.01, 0.5, 4)
    return np.asarray(np.sin(times).mean(1), np.float32)


def test_codes_and_scales_are_the_memory_to_half_a_code(folders: Folders) -> None:
    """One memory a layer: whole numbers to 127, each number of a row with a scale of its own."""
    found: dict[str, Any] = {}
    for memory in ("fp32", "int8"):
        engine = Engine(
            Bundle.open(folders["fp32", memory]), device_named("ort-cpu"), DeviceOptions()
        )
        found[memory] = engine.remember_samples(np.resize(tones(0), 480000)).feeds
    assert len(found["int8"]) == 2 * len(found["fp32"])
    for name, true in found["fp32"].items():
        codes, scale = found["int8"][name], found["int8"][name.replace("_", "_scale_", 1)]
        each = scale.reshape(1, true.shape[1], 1, true.shape[3])
        assert codes.dtype == np.int8 and np.abs(codes.astype(int)).max(2).min() == 127
        assert np.all(np.abs(codes * each - true) <= each * 0.501)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("weight_format", FORMATS)
def test_rows_are_the_same_bits_alone_and_among_others(
    weight_format: str, threads: int, folders: Folders
) -> None:
    model = Model(Bundle.open(folders[weight_format, "int8"]), "ort-cpu", threads)
    assert model.memory is not None
    before = {name: array.copy() for name, array in model.memory.feeds.items()}
    same_bits(model)
    for name, array in model.memory.feeds.items():  # it is given back unchanged
        np.testing.assert_array_equal(array, before[name], err_msg=name)


@REPEATS
@pytest.mark.parametrize("draft", ["lookup", "aggressive", "recycling"])
def test_drafts_never_change_the_text(draft: str, folders: Folders) -> None:
    with load(folders["int8", "int8"]) as pipeline:
        for seed in range(3):
            plain = pipeline.generate(tones(seed), GenerationOptions(draft="none"))
            asked = GenerationOptions(draft=draft, num_assistant_tokens=6)
            found = pipeline.generate(tones(seed), asked)
            assert found.tokens == plain.tokens and len(found.tokens) > 3
            assert any(step.drafted for step in found.timings.steps)


def dequantised(feeds: Feeds) -> dict[str, Tensor]:
    """The numbers that codes and scales stand for."""
    found: dict[str, Tensor] = {}
    for name in (name for name in feeds if "scale" not in name):
        codes, scale = feeds[name], feeds[name.replace("_", "_scale_", 1)]
        heads, dim = codes.shape[1], codes.shape[3]
        found[name] = codes * scale.reshape(1, 1, heads, dim).transpose(0, 2, 1, 3)
    return found


@REPEATS
@pytest.mark.parametrize("beams", [1, 4])
def test_it_is_the_attention_over_the_numbers_the_codes_stand_for(
    beams: int, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Graphs with a memory in float32 write the same when they are given those numbers."""
    asked = GenerationOptions(draft="none", num_beams=beams, max_new_tokens=24)
    with load(folders["fp32", "int8"]) as narrow, load(folders["fp32", "fp32"]) as wide:

        def remembered(samples: Samples, *, draft: bool = False) -> Memory:
            return Memory(dequantised(narrow.engine.remember_samples(samples).feeds))

        sound = np.resize(tones(0), 480000)
        few = narrow.engine.decoder(narrow.engine.remember_samples(sound)).forward([3, 5, 9])
        many = wide.engine.decoder(remembered(sound)).forward([3, 5, 9])
        np.testing.assert_allclose(few.logits, many.logits, rtol=0, atol=1e-4)
        monkeypatch.setattr(wide.engine, "remember_samples", remembered)
        for seed in range(3):
            found = narrow.generate(tones(seed), asked)
            assert found.tokens == wide.generate(tones(seed), asked).tokens


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if has_encoder(case)])
def test_every_family_has_it_or_is_told_why_not(name: str, tmp_path: Path) -> None:
    """A source shorter than a call must have a mask to be filled up."""
    _, family = family_of(CASES[name].make())
    shape = family.shape
    tall = 0 < family.generation().max_positions <= shape.source_length
    if shape.cross_layers and not shape.merged and (shape.source_masked or tall):
        bundle = Bundle.open(write_bundle(tmp_path / "b", name, memory="int8"))
        assert bundle.component("decode").variants[0].precision.memory == "int8"
        return
    with pytest.raises(ExportError, match=r"memory int8: .* has none\. Leave --memory out\."):
        write_bundle(tmp_path / "b", name, memory="int8")


@pytest.mark.parametrize(
    "said",
    [
        {"static": StaticSizes()},
        {"memory": "int4"},
    ],
)
def test_options_it_does_not_go_with_are_refused(said: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"model": "m", "output": Path("o"), "memory": "int8", **said}
    with pytest.raises(ExportError, match="memory"):
        ExportOptions(**asked)


def test_no_other_device_takes_it_and_the_error_names_it(folders: Folders) -> None:
    bundle = Bundle.open(folders["int8", "int8"])
    for component in ("encode", "decode"):
        (variant,) = bundle.component(component).variants
        takers = [name for name in DEVICES if device_named(name).limits.takes(variant)]
        assert takers == ["ort-cpu"]
    with pytest.raises(BundleError, match="onnx int8, memory int8"):
        choose_variant(bundle, "decode", device_named("ort-cuda"))


def test_the_gate_measures_it_and_says_so(folders: Folders) -> None:
    """Float32 weights are then held to tokens: logits cannot be the checkpoint's."""
    bundle = Bundle.open(folders["fp32", "int8"])
    _, family = family_of(CASES["whisper"].make(**WIDE))
    options = ExportOptions(model="m", output=Path("o"), memory="int8")
    variants = {
        name: bundle.component(name).variants[0] for name in ("features", "encode", "decode")
    }
    found = Gate(family, options).check(bundle.path, variants)
    assert found.memory == "int8" and found.rows_error == 0
    assert 1e-4 < found.max_error < 0.05 and found.agreement >= 0.9
    worse = msgspec.structs.replace(found, agreement=0.5)
    with pytest.raises(ParityError, match="onnx fp32, memory int8: chooses its token"):
        judge(worse, options)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Both engines' graphs."""
    folder = tmp_path_factory.mktemp("both") / "bundle"
    kinds: dict[str, Any] = {"formats": ("onnx", "openvino"), "memory": "int8", **WIDE}
    return Bundle.open(write_bundle(folder, "whisper", **kinds))


def test_one_engine_encodes_for_the_other(both: Bundle) -> None:
    """Codes differ by one where a number falls between two; decoded they are as good."""
    places = {"features": "ort-cpu", "encode": "ov-cpu", "decode": "ort-cpu"}
    engines = [
        Engine(both, {part: device_named(name) for part, name in found.items()}, DeviceOptions())
        for found in (places, dict.fromkeys(places, "ort-cpu"), dict.fromkeys(places, "ov-cpu"))
    ]
    sound = np.resize(tones(0), 480000)
    memories = [engine.remember_samples(sound) for engine in engines]
    for name, codes in memories[0].feeds.items():
        far = np.abs(codes.astype(np.float32) - memories[1].feeds[name].astype(np.float32))
        assert far.max() <= (1e-4 if "scale" in name else 1), name
    rows = [
        engine.decoder(memory).forward([3, 5, 9]).logits
        for engine, memory in zip(engines, memories, strict=True)
    ]
    for other in rows[1:]:
        np.testing.assert_allclose(rows[0], other, rtol=0, atol=2e-3)


def test_openvino_s_rows_are_the_same_bits_too(both: Bundle) -> None:
    model = Model(both, "ov-cpu", 1)
    spine = drawn(MOST, seed=2)
    alone, decoder = model.alone(spine), model.decoder()
    for n in (2, 5, 13, MOST):
        together = decoder.forward(spine[:n]).logits
        np.testing.assert_array_equal(together, alone[:n], err_msg=f"chain of {n}")
