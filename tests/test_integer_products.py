"""Products of 8-bit integers: close to the checkpoint, each row by itself, and only where asked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from tiny_families import CASES, VOCABULARY, write_bundle

from edgegen.bundle import Bundle
from edgegen.devices import DeviceOptions, device_named
from edgegen.errors import ExportError
from edgegen.export.checkpoint import Weight
from edgegen.export.families import family_of
from edgegen.export.formats.weight_file import WeightFile
from edgegen.export.ops.memory_ops import LARGEST_CODE
from edgegen.export.ops.row_ops import RowProducts, by_channel
from edgegen.export.ops.specs import FeedForward
from edgegen.export.options import ExportOptions
from edgegen.export.quantisers.int8 import Int8
from edgegen.graph import Graph, Port
from edgegen.runtime.engine import Engine
from edgegen.runtime.options import GenerationOptions

Floats = NDArray[np.float32]
SOURCES = ([5, 9, 77, 120, 1], [44, 3, 19, 8, 61, 30, 12, 9, 1])
# Root of mean squares of what cross keys and values are off by, as a share of theirs; tiny layers,
# whose weights were made loud, feel rounding most.
CLOSE = 0.15
Engines = Callable[..., Engine]
ENCODE, DECODE, BOTH = ("encode",), ("decode",), ("encode", "decode")


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Engines:
    @cache
    def engine(
        name: str, weights: str, integer: tuple[str, ...] = (), memory: str = "fp32"
    ) -> Engine:
        folder = tmp_path_factory.mktemp("rows") / "b"
        said: dict[str, Any] = {"integer": integer, "memory": memory}
        bundle = write_bundle(folder, name, weight_format=weights, **said)  # type: ignore[arg-type]
        return Engine(Bundle.open(bundle), device_named("ort-cpu"), DeviceOptions())

    return engine


def memories(engine: Engine, ids: list[int]) -> dict[str, Floats]:
    feeds = engine.remember_ids(ids).feeds
    return {name: array for name, array in feeds.items() if name.startswith("cross_")}


def product(tmp_path: Path, weights: dict[str, Floats]) -> Callable[[Floats], Floats]:
    """``x @ w.T + b`` of ``[B, S, 48]`` as the lowering writes it."""
    return lowered(tmp_path, weights, lambda ops, x: ops.linear(x, "w", "b"))


def lowered(
    tmp_path: Path, weights: dict[str, Floats], made: Callable[[RowProducts, str], str]
) -> Callable[[Floats], Floats]:
    """What is made of ``[B, S, 48]``, 7 numbers a row."""
    shape: tuple[str | int, ...] = ("B", "S", 48)
    graph = Graph(
        name="encode",
        inputs=(Port(name="x", dtype="float32", shape=shape),),
        outputs=(Port(name="y", dtype="float32", shape=("B", "S", 7)),),
    )
    given = {name: Weight.of(array) for name, array in weights.items()}
    with closing(WeightFile(tmp_path / "weights.data")) as file:
        ops = RowProducts(graph, given, file, quantiser=Int8())
        ops.output("y", made(ops, ops.input("x")))
        onnx.save(ops.finish()[0], tmp_path / "encode.onnx")
    session = InferenceSession(str(tmp_path / "encode.onnx"), providers=["CPUExecutionProvider"])
    return lambda x: np.asarray(session.run(None, {"x": x})[0])


def test_a_product_is_that_of_its_rounded_numbers_row_by_row(tmp_path: Path) -> None:
    drawn = np.random.default_rng(1)
    weights = {
        "w": drawn.normal(size=(7, 48)).astype(np.float32),
        "b": drawn.normal(size=7).astype(np.float32),
    }
    multiply = product(tmp_path, weights)
    x = drawn.normal(size=(2, 5, 48)).astype(np.float32)
    x[0, 1] *= 1000
    x[1, 2] = 0
    found = multiply(x)
    codes, channels = by_channel(Weight.of(weights["w"]), Int8())
    scale = np.abs(x).max(-1, keepdims=True) / np.float32(127)
    codes_of_x = np.rint(x / np.where(scale == 0, 1, scale))
    exact = (codes_of_x @ codes.T.astype(np.float32)) * channels * scale + weights["b"]
    assert (np.abs(found - exact) <= 1e-5 * np.abs(exact).max(-1, keepdims=True)).all()
    float_product = x @ weights["w"].T + weights["b"]
    assert np.abs(found - float_product).max() <= 0.02 * np.abs(float_product).max()
    for text, row in ((0, 0), (0, 1), (1, 2)):
        np.testing.assert_array_equal(
            multiply(x[text : text + 1, row : row + 1])[0, 0], found[text, row]
        )


@pytest.mark.parametrize("biased", [False, True])
def test_a_feed_forward_rounds_behind_its_relu_from_0_on(biased: bool, tmp_path: Path) -> None:
    drawn = np.random.default_rng(2)
    shapes = {"up": (96, 48), "down": (7, 96), "up_bias": (96,), "down_bias": (7,)}
    weights = {k: drawn.normal(size=shape).astype(np.float32) for k, shape in shapes.items()}
    offsets = {k: k for k in ("up_bias", "down_bias") if biased}
    spec = FeedForward(up="up", down="down", activation="relu", **offsets)
    answer = lowered(tmp_path, weights, lambda ops, x: ops.ffn(x, spec))
    x = drawn.normal(size=(2, 5, 48)).astype(np.float32)
    x[0, 1] *= 1000
    x[1, 2] = 0
    found = answer(x)

    def rounded(rows: Floats, scale: Floats) -> Floats:
        return np.rint(rows / np.where(scale == 0, 1, scale)) * scale

    def by(name: str) -> Floats:
        codes, channels = by_channel(Weight.of(weights[name]), Int8())
        return (codes * channels[:, None]).T

    inner = rounded(x, np.abs(x).max(-1, keepdims=True) / np.float32(127)) @ by("up")
    inner = np.maximum(inner + weights["up_bias"] * biased, 0)
    scale = inner.max(-1, keepdims=True) / np.float32(255)
    exact = rounded(inner, scale) @ by("down") + weights["down_bias"] * biased
    off = np.abs(found - exact).max(-1, keepdims=True)
    # A number on the edge between two codes may go either way.
    assert (off <= scale * np.abs(weights["down"]).max() * 1.01 + 1e-5).all()
    assert np.median(off) <= 1e-5 * np.abs(exact).max()
    np.testing.assert_array_equal(answer(x[:1, 1:2])[0, 0], found[0, 1])


@pytest.mark.parametrize("biased", [False, True])
def test_a_row_that_its_relu_takes_away_leaves_the_bias(biased: bool, tmp_path: Path) -> None:
    weights: dict[str, Floats] = {"up": -np.eye(48, dtype=np.float32)}
    weights["down"] = np.ones((7, 48), np.float32)
    weights |= {"up_bias": np.zeros(48, np.float32), "down_bias": np.arange(7, dtype=np.float32)}
    offsets = {k: k for k in ("up_bias", "down_bias") if biased}
    spec = FeedForward(up="up", down="down", activation="relu", **offsets)
    x = np.ones((1, 2, 48), np.float32)
    x[0, 1] = -1  # one row behind the other is not taken away
    found = lowered(tmp_path, weights, lambda ops, x: ops.ffn(x, spec))(x)
    bias = np.arange(7) * biased
    np.testing.assert_array_equal(found[0, 0], bias)
    np.testing.assert_allclose(found[0, 1], 48 + bias, rtol=1e-6)


@pytest.mark.parametrize("name", ["t5-tied", "mt5", "bart", "marian-ssru"])
def test_what_it_leaves_is_the_float_encoder_s_but_for_a_few_percent(
    name: str, engines: Engines
) -> None:
    whole, rows = (engines(name, "fp32"), engines(name, "int8", ENCODE))
    for ids in SOURCES:
        wanted, found = memories(whole, ids), memories(rows, ids)
        for port, array in wanted.items():
            error = np.sqrt(np.mean((found[port] - array) ** 2) / np.mean(array**2))
            assert 0 < error <= CLOSE


def test_a_source_is_what_it_is_alone_beside_a_longer_one(engines: Engines) -> None:
    engine = engines("t5-tied", "int8", ENCODE)
    together = engine.remember_many(SOURCES)
    for ids, memory in zip(SOURCES, together, strict=True):
        for port, array in memories(engine, list(ids)).items():
            beside = memory.feeds[port][:, :, : len(ids)]
            np.testing.assert_allclose(beside, array, atol=1e-5 * np.abs(array).max())


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_the_decoder_stays_and_the_manifest_says_what_the_encoder_is(
    weights: str, engines: Engines
) -> None:
    plain, rows = (engines("t5-tied", weights, integer) for integer in ((), ENCODE))
    decoders = [one.variants["decode"] for one in (plain, rows)]
    assert decoders[0].precision == decoders[1].precision
    assert decoders[0].graph == decoders[1].graph
    encoder = rows.variants["encode"].precision
    assert (encoder.weight_format, encoder.group_size, encoder.symmetric) == ("int8", 0, True)


def test_texts_are_written_over_a_source_in_8_bits_too(engines: Engines) -> None:
    engine = engines("t5-tied", "int8", BOTH, "int8")
    options = GenerationOptions(max_new_tokens=8, min_new_tokens=8, draft="none")
    memory = engine.remember_ids(list(SOURCES[0]))
    start = list(engine.manifest.generation.start)
    made = engine.generation(engine.decoder(memory), options, prompt_length=len(start))
    assert sum(len(step.tokens) for step in made.run(start, SOURCES[0])) == 8


def test_a_weight_s_row_has_all_codes_and_one_scale() -> None:
    matrix = np.random.default_rng(0).normal(size=(7, 48)).astype(np.float32)
    matrix[3] = 0
    codes, scales = by_channel(Weight.of(matrix), Int8())
    assert np.abs(np.delete(codes, 3, 0)).max(1).tolist() == [LARGEST_CODE] * 6
    assert np.abs(codes * scales[:, None] - matrix).max() <= scales.max() / 2 + 1e-6
    assert not codes[3].any()


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"integer": ENCODE}, "integer encode is of ONNX graphs in int8 or int4"),
        ({"integer": ENCODE, "formats": ("openvino",), "weight_format": "int8"}, "ONNX graphs"),
        ({"integer": BOTH, "weight_format": "int4"}, "encode,decode is of ONNX graphs in int8 "),
        ({"integer": ("encode", "encode"), "weight_format": "int8"}, "use each once"),
        ({"integer": ("encoder",), "weight_format": "int8"}, "did you mean 'encode'"),
    ],
)
def test_where_it_cannot_be_it_is_refused_in_a_line(
    said: dict[str, Any], line: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=line):
        ExportOptions(model="tiny", output=tmp_path, **said)


def test_a_model_without_an_encoder_has_none_in_integers(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="has no encoder; leave it out"):
        write_bundle(tmp_path / "b", "llama-grouped", weight_format="int8", integer=ENCODE)


DECODERS = [n for n, c in CASES.items() if "decode" in family_of(c.make())[1].graph_names()]


def rows_of(engine: Engine, seed: int = 0) -> tuple[Floats, Floats]:
    """Logits of eight rows, one at a time and together; eleven more stand before. ``seed`` draws
    what a model is shown."""
    memory = None
    if engine.manifest.speech is not None:
        memory = engine.remember_samples(np.sin(np.arange(480000) * 0.01).astype(np.float32))
    elif engine.manifest.image is not None:
        shown = engine.manifest.image
        pixels = np.random.default_rng(seed).normal(size=(3, shown.height, shown.width))
        memory = engine.remember_pixels(pixels.astype(np.float32))
    elif "encode" in engine.manifest.components:
        memory = engine.remember_ids(list(SOURCES[1]))
    drawn = [int(i) for i in np.random.default_rng(seed + 1).integers(3, VOCABULARY, 19)]
    decoder = engine.decoder(memory)
    decoder.forward(drawn[:11], first_row=10)  # a prompt: logits of its last row alone
    decoder.keep(11)
    together = decoder.forward(drawn[11:]).logits.copy()
    decoder.keep(11)
    alone: list[Floats] = []
    for token in drawn[11:]:
        alone.append(decoder.forward([token]).logits[0].copy())
        decoder.keep(decoder.length + 1)
    return np.stack(alone), together


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_s_many_rows_are_those_of_one_at_a_time(name: str, engines: Engines) -> None:
    """And mostly near those of float weights: what a tiny model makes of rounding differs much from
    one picture to the next."""
    errors: list[float] = []
    for seed in range(5):
        wanted = rows_of(engines(name, "fp32"), seed)
        found = rows_of(engines(name, "int8", DECODE), seed)
        np.testing.assert_array_equal(found[0], found[1])
        errors.append(np.sqrt(np.mean((found[0] - wanted[0]) ** 2) / np.mean(wanted[0] ** 2)))
    assert min(errors) > 0 and np.median(errors) <= 0.2


def test_the_same_export_is_the_same_graphs_in_another_process(tmp_path: Path) -> None:
    """What compiled graphs and measurements are kept under is their hash."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; "
        "from tiny_families import write_bundle; from edgegen.bundle import Bundle; "
        "path = write_bundle(Path(sys.argv[2]), 't5-tied', weight_format='int8', "
        "integer=('encode', 'decode')); "
        "print([file.sha256 for file in Bundle.open(path).manifest.files])"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", program, str(Path(__file__).parent), str(tmp_path / seed)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert told[0] == told[1] and "," in told[0]
