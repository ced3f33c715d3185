"""Where parts run: a device a part, another when one fails, and sources that come again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import numpy as np
import pytest
from tiny_families import write_bundle

import edgegen
from edgegen.bundle import Bundle
from edgegen.devices import DeviceOptions
from edgegen.devices.device import Feeds, Tensor
from edgegen.devices.fake import FakeDevice, FakeSession, Faults
from edgegen.devices.ort_cpu import OrtCpu
from edgegen.devices.ov_cpu import OvCpu
from edgegen.errors import DeviceError, InputError, UnknownName
from edgegen.manifest import Variant
from edgegen.runtime.engine import Engine
from edgegen.runtime.options import GenerationOptions
from edgegen.runtime.pipeline import Pipeline
from edgegen.runtime.placement import by_part
from edgegen.runtime.sources import SourceCache, key_of
from edgegen.runtime.text import TextTask
from edgegen.runtime.tokenizer import load_tokenizer
from edgegen.runtime.variants import choose_variant

TEXT = "the cat sat"
PLAIN = GenerationOptions(draft="none", max_new_tokens=12, min_new_tokens=12)
MIXED = {"encode": "ov-cpu", "decode": "ort-cpu"}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5 in both formats."""
    folder = tmp_path_factory.mktemp("both") / "t5"
    return write_bundle(folder, "t5-tied", formats=("onnx", "openvino"))


@pytest.fixture(scope="module")
def expected(both: Path) -> edgegen.Result:
    with edgegen.load(both) as pipeline:
        return pipeline.generate(TEXT, PLAIN)


# ------------------------------------------------------------ a device a part


@pytest.mark.parametrize("devices", [MIXED, {"encode": "ort-cpu", "decode": "ov-cpu"}, "ov-cpu"])
def test_the_text_does_not_depend_on_where_parts_run(
    devices: Any, both: Path, expected: edgegen.Result
) -> None:
    with edgegen.load(both, devices) as pipeline:
        found = pipeline.generate(TEXT, PLAIN)
        assert found.tokens == expected.tokens
        assert found.text == expected.text
        assert found.devices == {
            part: name for part, name in by_part(devices).items() if part != "default"
        } or found.devices == {"encode": devices, "decode": devices}
        assert set(pipeline.engine.compile_seconds) == set(found.devices)


def test_a_speech_model_hears_on_one_backend_and_writes_on_another(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "asr", "whisper", formats=("onnx", "openvino"))
    samples = np.random.default_rng(1).normal(size=16000, scale=0.1).astype(np.float32)
    with edgegen.load(bundle) as one, edgegen.load(bundle, MIXED) as two:
        heard, found = (pipeline.generate(samples, PLAIN) for pipeline in (one, two))
    assert found.tokens == heard.tokens
    assert found.devices == {"features": "ort-cpu", **MIXED}


def test_words_name_devices_by_part() -> None:
    assert by_part(None) == {"default": "ort-cpu"}
    assert by_part("ov-cpu") == {"default": "ov-cpu"}
    assert by_part("encode=ov-cpu, decode=ort-cpu") == {"default": "ort-cpu", **MIXED}
    assert by_part("ov-cpu+decode=ort-cpu") == {"default": "ov-cpu", "decode": "ort-cpu"}
    assert by_part("encode=fp32,decode=int8", "") == {"encode": "fp32", "decode": "int8"}


@pytest.mark.parametrize("words", ["encode=", "=ov-cpu", "a=b,a=c", "ov-cpu,ort-cpu", "a=b,,"])
def test_words_that_name_no_device_of_a_part_are_refused(words: str) -> None:
    with pytest.raises(InputError, match="expected a name, or PART=NAME"):
        by_part(words)


def test_a_part_there_is_not_is_told(both: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'encode'"):
        edgegen.load(both, {"encoder": "ov-cpu"})
    with pytest.raises(InputError, match="no draft model"):
        edgegen.load(both, {"draft": "ov-cpu"})
    with pytest.raises(edgegen.BundleError, match="decode in int8"):
        edgegen.load(both, precision="encode=fp32,decode=int8")


# ------------------------------------------------------------------ fallback


def real(bundle: Bundle) -> Mapping[str, Callable[[Feeds], Mapping[str, Tensor]]]:
    """The bundle's own graphs, as functions for a fake device."""

    def function(name: str) -> Callable[[Feeds], Mapping[str, Tensor]]:
        variant = choose_variant(bundle, name, OrtCpu())
        session = OrtCpu().compile(bundle.file(variant.file), variant, DeviceOptions())

        def run(feeds: Feeds) -> Mapping[str, Tensor]:
            given = {key: np.ascontiguousarray(array) for key, array in feeds.items()}
            return {key: array.copy() for key, array in session.request().run(given).items()}

        return run

    return {name: function(name) for name in bundle.manifest.components}


def frail(bundle: Bundle, **faults: Any) -> FakeDevice:
    device = FakeDevice(real(bundle), Faults(**faults))
    device.limits = replace(device.limits, formats=("onnx",))
    return device


def opened(folder: Path, device: Any, *fallback: Any) -> Pipeline:
    bundle = Bundle.open(folder)
    engine = Engine(bundle, device, DeviceOptions(), fallback=fallback)
    engine.parts.open(engine.opened_first)
    tokenizers = {
        role: load_tokenizer(folder, record) for role, record in bundle.manifest.tokenizers.items()
    }
    return Pipeline(engine, TextTask(engine, tokenizers), 0.0)


FAULTS: dict[str, dict[str, Any]] = {
    "compiling": {"compiling": True},
    "first call": {"at_call": 0},
    "fifth call": {"at_call": 4},
    "wrong shape": {"wrong_shape": True},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_text_is_right_after_a_fallback(
    fault: str, both: Path, expected: edgegen.Result
) -> None:
    device = frail(Bundle.open(both), **FAULTS[fault])
    with opened(both, device, OvCpu()) as pipeline, pipeline.stream(TEXT, PLAIN) as stream:
        pieces = list(stream)
        found = stream.result
    assert "".join(pieces) == found.text == expected.text
    assert found.tokens == expected.tokens
    assert found.devices["decode"] == "ov-cpu"
    assert {(one.device, one.to) for one in found.fallbacks} == {("fake", "ov-cpu")}
    assert "decode" in {one.part for one in found.fallbacks}
    assert all("\n" not in one.reason and one.reason for one in found.fallbacks)
    assert found.warnings == ()


class Together(FakeDevice):
    """Compiles two graphs at once or none."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.barrier = Barrier(2, timeout=30)

    def compile(self, file: Path, variant: Variant, options: DeviceOptions) -> FakeSession:
        self.barrier.wait()
        return super().compile(file, variant, options)


def test_parts_are_compiled_side_by_side(both: Path, expected: edgegen.Result) -> None:
    bundle = Bundle.open(both)
    device = Together(real(bundle))
    device.limits = replace(device.limits, formats=("onnx",))
    with opened(both, device) as pipeline:
        assert pipeline.engine.compile_seconds.keys() == {"encode", "decode"}
        assert pipeline.generate(TEXT, PLAIN).text == expected.text


@pytest.mark.parametrize(
    ("last", "told"), [(KeyboardInterrupt("decode"), "decode"), (DeviceError("decode"), "encode")]
)
def test_of_two_that_fail_the_first_is_told_unless_somebody_interrupts(
    both: Path, monkeypatch: pytest.MonkeyPatch, last: BaseException, told: str
) -> None:
    device = frail(Bundle.open(both))
    device.limits = replace(device.limits, formats=("onnx",))
    faults = {"encode": DeviceError("encode"), "decode": last}

    def fails(file: Path, variant: Variant, options: DeviceOptions) -> FakeSession:
        raise faults[variant.graph.name]

    monkeypatch.setattr(device, "compile", fails)
    engine = Engine(Bundle.open(both), device, DeviceOptions())
    with pytest.raises(type(faults[told]), match=str(faults[told])):
        engine.parts.open(("encode", "decode"))


def test_what_was_compiled_while_the_pipeline_closed_is_closed_too(
    both: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, closed = Bundle.open(both), list[str]()
    device = frail(bundle)
    engine = Engine(bundle, device, DeviceOptions())
    compile_graph = device.compile

    def slow(file: Path, variant: Any, options: DeviceOptions) -> Any:
        session = compile_graph(file, variant, options)
        engine.close()
        monkeypatch.setattr(session, "close", lambda: closed.append(variant.graph.name))
        return session

    monkeypatch.setattr(device, "compile", slow)
    with pytest.raises(InputError, match="the pipeline is closed"):
        engine.parts.session("decode")
    assert closed == ["decode"]


@pytest.mark.parametrize("fault", FAULTS)
def test_without_a_fallback_the_error_is_one_line(fault: str, both: Path) -> None:
    device = frail(Bundle.open(both), **FAULTS[fault])
    with pytest.raises(DeviceError) as caught, opened(both, device) as pipeline:
        pipeline.generate(TEXT, PLAIN)
    assert type(caught.value) is DeviceError
    assert "fake" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fallbacks_are_tried_in_order_and_the_last_error_stands(both: Path) -> None:
    bundle = Bundle.open(both)
    second = frail(bundle, at_call=2)
    second.name = "second"
    with opened(both, frail(bundle, compiling=True), second) as pipeline:
        with pytest.raises(DeviceError, match="second failed to run"):
            pipeline.generate(TEXT, PLAIN)
        assert {one.to for one in pipeline.engine.fallbacks} == {"second"}


def test_only_the_part_that_failed_moves(both: Path, expected: edgegen.Result) -> None:
    device = frail(Bundle.open(both), at_call=3)
    with opened(both, {"encode": OrtCpu(), "decode": device}, OvCpu()) as pipeline:
        found = pipeline.generate(TEXT, PLAIN)
    assert found.tokens == expected.tokens
    assert found.devices == {"encode": "ort-cpu", "decode": "ov-cpu"}
    (fallback,) = found.fallbacks
    assert (fallback.part, fallback.device, fallback.to) == ("decode", "fake", "ov-cpu")
    assert "call 3" in fallback.reason


def test_a_batch_begins_again_on_the_next_device(both: Path) -> None:
    sources = [TEXT, "a dog", "the cat"]
    with edgegen.load(both, "ov-cpu") as pipeline:
        truth = pipeline.generate(sources, PLAIN, batch_size=2)
    with opened(both, frail(Bundle.open(both), at_call=6), OvCpu()) as pipeline:
        found = pipeline.generate(sources, PLAIN, batch_size=2)
    assert [one.tokens for one in found] == [one.tokens for one in truth]
    assert all(one.fallbacks for one in found)


def test_a_stream_whose_text_changes_with_its_device_says_so(tmp_path: Path) -> None:
    one, two = (
        write_bundle(tmp_path / name, "t5-tied", num_layers=layers)
        for name, layers in (("one", 1), ("two", 2))
    )
    functions = {**real(Bundle.open(one)), "decode": real(Bundle.open(two))["decode"]}
    wrong = FakeDevice(functions, Faults(at_call=8))
    with opened(one, OrtCpu()) as pipeline:
        truth = pipeline.generate(TEXT, PLAIN)
    with opened(one, wrong, OrtCpu()) as pipeline, pipeline.stream(TEXT, PLAIN) as stream:
        shown = "".join(stream)
        assert stream.result.text == truth.text
        assert shown != truth.text
        assert len(stream.result.warnings) == 1


def test_a_missing_device_gives_way_when_the_bundle_is_loaded(both: Path) -> None:
    class Absent(OrtCpu):
        name = "absent"

        def missing(self) -> str | None:
            return "there is none; buy one"

    with opened(both, Absent(), OrtCpu()) as pipeline:
        assert pipeline.engine.devices == {"encode": "ort-cpu", "decode": "ort-cpu"}
        assert "there is none" in pipeline.engine.fallbacks[0].reason
    with pytest.raises(DeviceError, match="absent cannot be used here: there is none"):
        opened(both, Absent())


def test_a_format_the_device_does_not_run_gives_way(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "t5", "t5-tied")
    with edgegen.load(bundle, "ov-cpu", fallback=["ort-cpu"]) as pipeline:
        found = pipeline.generate(TEXT, PLAIN)
    assert set(found.devices.values()) == {"ort-cpu"}
    assert {one.part for one in found.fallbacks} == {"encode", "decode"}


# ------------------------------------------------------ sources that come again


@pytest.mark.parametrize("device", ["ort-cpu", "ov-cpu"])
def test_a_source_that_comes_again_is_not_encoded_and_gives_the_same(
    device: str, both: Path
) -> None:
    with edgegen.load(both, device, source_cache_bytes=2**20) as pipeline:
        first, again, other = (pipeline.generate(one, PLAIN) for one in (TEXT, TEXT, "a dog"))
        cache = pipeline.engine.sources
        assert cache is not None
        counts = cache.counts
    assert again.tokens == first.tokens
    assert (first.cached_source, again.cached_source, other.cached_source) == (False, True, False)
    assert again.timings.encode_ms == 0 < first.timings.encode_ms
    assert (counts.hits, counts.misses, counts.sources) == (1, 2, 2)


def test_without_the_option_nothing_is_kept(both: Path) -> None:
    with edgegen.load(both) as pipeline:
        results = [pipeline.generate(TEXT, PLAIN) for _ in range(2)]
        assert pipeline.engine.sources is None
    assert not any(one.cached_source for one in results)


def test_no_request_spoils_what_is_kept() -> None:
    cache = SourceCache(2**12)
    given = {"cross_key_0": np.ones((1, 2), np.float32)}
    cache.keep(b"a", given)
    given["cross_key_0"][:] = 5
    found = cache.find(b"a")
    assert found is not None
    found["cross_key_0"][:] = 7
    again = cache.find(b"a")
    assert again is not None
    assert (again["cross_key_0"] == 1).all()


def entry(size: int) -> dict[str, Tensor]:
    return {"memory": np.zeros(size, np.uint8)}


def test_the_bound_holds_and_what_was_used_longest_ago_leaves() -> None:
    cache = SourceCache(3 * 1512)
    for key in (b"a", b"b", b"c"):
        cache.keep(key, entry(1000))
    assert cache.find(b"a") is not None
    cache.keep(b"d", entry(1000))
    assert cache.find(b"b") is None
    assert all(cache.find(key) is not None for key in (b"a", b"c", b"d"))
    cache.keep(b"large", entry(5000))
    assert cache.find(b"large") is None
    cache.keep(b"e", entry(2500))
    counts = cache.counts
    assert counts.bytes <= cache.most_bytes
    assert (counts.evictions, counts.sources) == (3, 2)


def test_the_key_is_every_byte_of_the_input_and_what_encodes_it() -> None:
    ids = np.array([[1, 2, 3]], np.int64)
    keys = {
        key_of({"encode": "x"}, {"input_ids": ids}),
        key_of({"encode": "y"}, {"input_ids": ids}),
        key_of({"encode": "x"}, {"input_ids": ids + 1}),
        key_of({"encode": "x"}, {"input_ids": ids.astype(np.int32)}),
        key_of({"encode": "x"}, {"input_ids": ids.reshape(3, 1)}),
        key_of({"encode": "x"}, {"other_ids": ids}),
    }
    assert len(keys) == 6
    assert key_of({"encode": "x"}, {"input_ids": ids.copy()}) in keys


def test_threads_that_share_a_cache_each_get_their_text(both: Path) -> None:
    sources = [TEXT, "a dog", "the cat", "sat the dog"]
    with edgegen.load(both) as pipeline:
        truth = {one: pipeline.generate(one, PLAIN).tokens for one in sources}
    with edgegen.load(both, source_cache_bytes=4000) as pipeline:
        wrong: list[str] = []

        def work(turn: int) -> None:
            for at in range(12):
                one = sources[(at * (turn + 1)) % len(sources)]
                if pipeline.generate(one, PLAIN).tokens != truth[one]:
                    wrong.append(one)

        threads = [Thread(target=work, args=(turn,)) for turn in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        cache = pipeline.engine.sources
        assert cache is not None
        assert cache.counts.bytes <= 4000
        assert cache.counts.hits + cache.counts.misses == 48
    assert not wrong


def test_a_cache_of_less_than_nothing_is_refused(both: Path) -> None:
    with pytest.raises(InputError, match="source_cache_bytes must be at least 0"):
        edgegen.load(both, source_cache_bytes=-1)
