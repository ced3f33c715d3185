"""Qualcomm's HTP, by its vendor's simulator: every node there, and texts near the checkpoint's.

A simulator has the HTP's arithmetic; it says nothing of the HTP's speed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
from numpy.typing import NDArray
from test_static import opened, text
from tiny_families import write_bundle

import edgegen
from edgegen.bundle import Bundle
from edgegen.devices import DeviceOptions, device_named
from edgegen.export.options import StaticSizes, WeightFormat
from edgegen.runtime.engine import Engine
from edgegen.runtime.options import GenerationOptions

MISSING = device_named("ort-qnn").missing()
# `make htp` asks for the proof: what is missing then fails, and is skipped elsewhere.
REQUIRED = os.environ.get("EDGEGEN_HTP") == "required"
pytestmark = pytest.mark.skipif(
    MISSING is not None and not REQUIRED, reason=f"HTP simulator: {MISSING}"
)
SIZES = StaticSizes(source=(20,), cache=(48,), tokens=(1, 6))
PLACES = {
    "t5-tied": {"encode": "ort-qnn", "decode": "ort-qnn"},
    "whisper": {"features": "ort-cpu", "encode": "ort-qnn", "decode": "ort-qnn"},
}
SLOW = pytest.mark.slow  # the simulator takes 12 s for half a minute of sound
CASES = [
    pytest.param("t5-tied", "qdq", id="t5-qdq"),
    pytest.param("t5-tied", "fp16", id="t5-fp16"),
    pytest.param("whisper", "qdq", id="whisper-qdq"),
    pytest.param("whisper", "fp16", id="whisper-fp16", marks=SLOW),
]
# Lengths of the sources (a window of sound has one), and tokens of each text.
LENGTHS = {"t5-tied": (3, 7, 12, 20), "whisper": (1,)}
NEW = 30
# The least share of fp32's tokens and the largest error: docs/simulators.md says what was measured.
BOUNDS = {
    ("t5-tied", "qdq"): (0.70, 0.32),
    ("t5-tied", "fp16"): (0.97, 0.005),
    ("whisper", "qdq"): (0.80, 0.14),
    ("whisper", "fp16"): (0.95, 0.003),
}
SAME_GRAPHS = (0.90, 0.05)  # what rounding on another processor may change
Rows = NDArray[np.float32]  # [tokens, vocabulary]
FOLDERS: list[Path] = []


@pytest.fixture(scope="module", autouse=True)
def bundles_are_left_behind_by_none() -> Iterator[None]:
    yield
    for folder in FOLDERS:
        shutil.rmtree(folder, ignore_errors=True)


@cache
def bundle(family: str, weight_format: WeightFormat) -> Bundle:
    folder = Path(mkdtemp(prefix="edgegen-htp-"))
    FOLDERS.append(folder)
    static = None if weight_format == "fp32" else SIZES
    written = write_bundle(folder / "bundle", family, static=static, weight_format=weight_format)
    return Bundle.open(written)


@cache
def simulated(family: str, weight_format: WeightFormat) -> Engine:
    """Nothing may be left to the CPU: ``DeviceOptions`` forbids it unless told otherwise."""
    places = {part: device_named(name) for part, name in PLACES[family].items()}
    return Engine(bundle(family, weight_format), places, DeviceOptions())


@cache
def exact(family: str) -> Engine:
    return Engine(bundle(family, "fp32"), device_named("ort-cpu"), DeviceOptions())


@cache
def plain(family: str, weight_format: WeightFormat) -> list[list[int]]:
    """Texts without drafts: of the simulated HTP, or, as fp32, of the dynamic graphs on the CPU."""
    engine = exact(family) if weight_format == "fp32" else simulated(family, weight_format)
    return [text(engine, length, NEW, draft="none") for length in LENGTHS[family]]


@pytest.mark.parametrize(("family", "weight_format"), CASES)
def test_every_node_of_encode_and_decode_runs_on_the_simulated_htp(
    family: str, weight_format: WeightFormat
) -> None:
    engine = simulated(family, weight_format)
    for part in ("encode", "decode"):
        assert engine.variants[part].static
        found = engine.session(part).placement().places
        assert set(found) == {"QNNExecutionProvider"}, (part, found)
        assert found["QNNExecutionProvider"] > 50, part


@pytest.mark.parametrize(("family", "weight_format"), CASES)
def test_drafts_leave_the_text_of_the_simulated_htp_as_it_is(
    family: str, weight_format: WeightFormat
) -> None:
    engine = simulated(family, weight_format)
    length = LENGTHS[family][-1]
    assert text(engine, length, NEW, draft="lookup") == plain(family, weight_format)[-1]


@cache
def paths(family: str) -> list[list[int]]:
    """Texts that fp32 sampled: many tokens, where its greedy text may be one again and again."""
    said = {"draft": "none", "do_sample": True, "seed": 7}
    return [text(exact(family), length, NEW, **said) for length in LENGTHS[family]]


def rows(engine: Engine, family: str) -> Rows:
    """The logits after each beginning of the paths: each is judged alone, whatever came before."""
    found: list[Rows] = []
    for length, path in zip(LENGTHS[family], paths(family), strict=True):
        memory, prompt = opened(engine, length)
        decoder = engine.decoder(memory)
        for fed in (prompt, *([token] for token in path[:-1])):
            found.append(decoder.forward(fed).logits[-1].copy())
            decoder.keep(decoder.length + len(fed))
    return np.stack(found)


@cache
def rows_of(family: str, weight_format: WeightFormat) -> Rows:
    engine = exact(family) if weight_format == "fp32" else simulated(family, weight_format)
    return rows(engine, family)


def near(found: Rows, expected: Rows) -> tuple[float, float]:
    """The share of equal best tokens, and the error as a share of the logits' own spread."""
    same = np.equal(found.argmax(axis=1), expected.argmax(axis=1))
    return float(same.mean()), float((found - expected).std() / expected.std(axis=1).mean())


@pytest.mark.parametrize(("family", "weight_format"), CASES)
def test_the_simulated_htp_s_tokens_agree_with_fp32(
    family: str, weight_format: WeightFormat
) -> None:
    same, error = near(rows_of(family, weight_format), rows_of(family, "fp32"))
    alone = np.equal(plain(family, weight_format), plain(family, "fp32")).mean()
    told = f"{same:.1%} on fp32's path, error {error:.2%}, {alone:.1%} on its own"
    print(f"{family} {weight_format}: {told}")
    least, most = BOUNDS[family, weight_format]
    assert same >= least, told
    assert error <= most, told


@pytest.mark.parametrize("family", ["t5-tied", "whisper"])
def test_the_simulated_htp_s_logits_are_those_of_the_same_graphs_on_the_cpu(family: str) -> None:
    cpu = Engine(bundle(family, "qdq"), device_named("ort-cpu"), DeviceOptions(), static=True)
    same, error = near(rows_of(family, "qdq"), rows(cpu, family))
    print(f"{family} qdq: {same:.1%} of ort-cpu's on the same graphs, error {error:.2%}")
    assert same >= SAME_GRAPHS[0]
    assert error <= SAME_GRAPHS[1]


@pytest.mark.parametrize("family", ["t5-tied", "whisper"])
def test_load_and_generate_give_one_text_plain_and_drafted_on_the_simulated_htp(
    family: str,
) -> None:
    source = "ba bin dor" if family == "t5-tied" else np.sin(np.arange(16000) * 0.05, dtype="f4")
    options = GenerationOptions(max_new_tokens=8, min_new_tokens=8, draft="none")
    with edgegen.load(bundle(family, "qdq").path, device=PLACES[family]) as found:
        results = [
            found.generate(source, options),
            found.generate(source, replace(options, draft="lookup")),
        ]
    assert results[0].text
    assert results[0].text == results[1].text
