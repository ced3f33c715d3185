"""A text's own keys and values in 8 bits: near those in float32, and exact in what is promised of
rows, drafts, beams and batches."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_integer_products import rows_of
from test_rows import Model, drawn, same_bits
from tiny_families import write_bundle

from edgegen import GenerationOptions, Pipeline
from edgegen.bundle import Bundle
from edgegen.devices import device_named
from edgegen.errors import ExportError, ParityError
from edgegen.export.formats.row_scales import turned
from edgegen.export.options import ExportOptions, StaticSizes
from edgegen.export.parity import judge
from edgegen.manifest import Parity, PromptParity
from edgegen.runtime.cache import InPlaceCache
from edgegen.runtime.opening import load

# Biases by distance, learned places, layers with a window, shared key heads, norms of heads.
NAMES = ["t5-tied", "bart", "whisper", "llama-grouped", "gemma3", "qwen3"]
SOURCES = ([5, 9, 77, 120, 1], [44, 3, 19, 8, 61, 30, 12, 9, 1], [7, 1], [91, 18, 91, 4, 1])
Pipelines = Callable[..., Pipeline]
REPEATS = pytest.mark.filterwarnings("ignore:the text from:edgegen.runtime.task.EdgegenWarning")


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Pipelines:
    @cache
    def opened(name: str, weights: str = "fp32", kv_cache: str = "int8", **said: Any) -> Pipeline:
        folder = tmp_path_factory.mktemp("kv") / "bundle"
        how: dict[str, Any] = {"weight_format": weights, "kv_cache": kv_cache, **said}
        return load(write_bundle(folder, name, **how), "ort-cpu")

    return opened


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_near_those_of_a_float_cache(name: str, pipelines: Pipelines) -> None:
    whole = rows_of(pipelines(name, kv_cache="fp32").engine)[0]
    alone, together = rows_of(pipelines(name).engine)
    np.testing.assert_array_equal(alone, together)
    error = np.sqrt(np.mean((alone - whole) ** 2) / np.mean(whole**2))
    assert 0 < error <= 0.15


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["t5-tied", "llama-grouped", "gemma3"])
def test_rows_are_the_same_bits_alone_and_among_others(
    name: str, threads: int, pipelines: Pipelines
) -> None:
    """A chain, a tree whose first path is laid first, and a prompt fed at once."""
    bundle = Bundle.open(pipelines(name).bundle.path)
    model = Model(bundle, "ort-cpu", threads)
    same_bits(model)
    spine = drawn(9, seed=2)
    start = model.engine.decoder(model.memory)
    first = start.forward(spine).logits.copy()
    single = model.engine.decoder(model.memory)
    for row, token in enumerate(spine):
        np.testing.assert_array_equal(single.forward([token]).logits[0], first[row])
        single.keep(row + 1)


@REPEATS
@pytest.mark.parametrize(
    ("name", "weights", "said"),
    [("t5-tied", "fp32", {}), ("bart", "int8", {"memory": "int8"}),
     ("t5-tied", "int8", {"integer": ("encode", "decode"), "memory": "int8"})],
)  # fmt: skip
def test_drafts_beams_and_batches_give_the_texts_they_should(
    name: str, weights: str, said: dict[str, Any], pipelines: Pipelines
) -> None:
    pipeline = pipelines(name, weights, **said)
    given = [list(source) for source in SOURCES]
    plain = GenerationOptions(draft="none", max_new_tokens=90, min_new_tokens=70)
    alone = [pipeline.generate(source, plain).tokens for source in given]
    drafted = plain.with_changes(draft="lookup", num_assistant_tokens=6)
    assert [pipeline.generate(source, drafted).tokens for source in given] == alone
    together = pipeline.generate(given, plain, batch_size=3)
    assert [result.tokens for result in together] == alone
    one_beam = pipeline.generate(given[0], plain.with_changes(num_beams=2, num_beam_groups=2))
    assert len(one_beam.tokens) >= 70


def test_a_row_takes_a_quarter_and_the_manifest_says_so(pipelines: Pipelines) -> None:
    sizes: dict[str, int] = {}
    for held in ("fp32", "int8"):
        engine = pipelines("t5-tied", kv_cache=held).engine
        variant = engine.variants["decode"]
        assert variant.cache.held == held
        caches = [p for p in variant.graph.inputs if p.name.startswith(("key_cache", "value_c"))]
        assert {p.dtype for p in caches} == {"int8" if held == "int8" else "float32"}
        decoder = engine.decoder(engine.remember_ids(list(SOURCES[0])))
        found: Any = decoder._cache  # pyright: ignore[reportPrivateUsage]
        assert isinstance(found, InPlaceCache)
        array: NDArray[Any] = found._all[0].array  # pyright: ignore[reportPrivateUsage]
        sizes[held] = array.itemsize
        assert device_named("ort-cpu").limits.takes(variant)
        assert not device_named("ort-cuda").limits.takes(variant)
    assert sizes == {"fp32": 4, "int8": 1}


def test_numbers_that_a_rotation_mixes_have_one_scale() -> None:
    seen = np.array([[1, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 5, 0]], np.float32)
    assert turned(seen).tolist() == [[1, 1, 0, 0, 1, 0, 0, 0], [0, 0, 5, 0, 0, 0, 5, 5]]
    assert turned(np.ones((1, 3), np.float32)).tolist() == [[1, 1, 1]]


@pytest.mark.parametrize(
    ("name", "line"),
    [("marian-ssru", "has states in their place"), ("t5gemma2", "begins with its source's")],
)
def test_decoders_that_cannot_are_refused_in_a_line(name: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=line):
        write_bundle(tmp_path / "b", name, kv_cache="int8")


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"formats": ("openvino",)}, "ONNX graphs of any size with a cache in place"),
        ({"static": StaticSizes()}, "no --static"),
        ({"caches": ("append",)}, "with a cache in place"),
        ({"kv_cache": "int4"}, "unknown kv cache 'int4'; did you mean 'int8'"),
    ],
)
def test_options_that_cannot_be_are_one_line(
    said: dict[str, Any], line: str, tmp_path: Path
) -> None:
    whole: dict[str, Any] = {"kv_cache": "int8", **said}
    with pytest.raises(ExportError, match=line):
        ExportOptions(model="tiny", output=tmp_path, **whole)


def test_the_gate_holds_float_weights_to_tokens(tmp_path: Path) -> None:
    """A cache in 8 bits changes logits by more than float32 may, and tokens it must not."""
    options = ExportOptions(model="tiny", output=tmp_path, kv_cache="int8", parity=False)
    said: dict[str, Any] = {
        "format": "onnx",
        "weight_format": "fp32",
        "reference": "torch",
        "max_error": 0.01,
    }
    prompt: Any = {"prompt": "a", "tokens": 4, "agreement": 1.0, "error": 0.01}
    good = Parity(**said, cache="int8", agreement=1.0, prompts=(PromptParity(**prompt),))
    judge(good, options)
    wrongs: list[dict[str, Any]] = [
        {"cache": "fp32", "agreement": 1.0}, {"cache": "int8", "agreement": 0.5}
    ]  # fmt: skip
    for wrong in wrongs:
        with pytest.raises(ParityError):
            judge(Parity(**said, **wrong, prompts=(PromptParity(**prompt),)), options)
