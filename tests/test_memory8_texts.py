"""A text's keys and values in 8 bits: sources of any length, alone, in batches and under beams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_batch import plain, sources
from test_rows import MOST, Model, drawn
from tiny_families import CASES, tokenizer, write_bundle

from edgegen import Pipeline, load
from edgegen.bundle import Bundle
from edgegen.coded import LEAST_ROWS
from edgegen.devices import DeviceOptions, device_named
from edgegen.errors import InputError
from edgegen.export.families import family_of
from edgegen.export.options import ExportOptions
from edgegen.export.parity import Gate
from edgegen.graph import HIDDEN
from edgegen.runtime.engine import Engine

# A bias by distance, biases of keys, states for a cache, keys shared by heads and a soft cap.
NAMES = ("t5-tied", "bart", "marian-ssru", "t5gemma")
WIDE: dict[str, dict[str, Any]] = {
    "t5-tied": {"d_model": 64, "d_kv": 32, "d_ff": 96},
    "marian-ssru": {"decoder_ffn_dim": 96},
}
ENGINES = {"onnx": "ort-cpu", "openvino": "ov-cpu"}
Folders = Callable[..., Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    @cache
    def folder(name: str, weights: str = "fp32", memory: str = "int8", form: str = "onnx") -> Path:
        said: dict[str, Any] = {"weight_format": weights, "memory": memory, "formats": (form,)}
        return write_bundle(tmp_path_factory.mktemp(name) / "b", name, **said, **WIDE.get(name, {}))

    return folder


@pytest.fixture(scope="module")
def pipelines(folders: Folders) -> Callable[..., Pipeline]:
    @cache
    def opened(name: str, **said: str) -> Pipeline:
        return load(folders(name, **said), ENGINES[said.get("form", "onnx")])

    return opened


@pytest.mark.parametrize("name", NAMES)
def test_hidden_rows_are_zeros_and_change_no_scale(name: str, folders: Folders) -> None:
    """Of a source beside a longer one, whose numbers are its own up to rounding."""
    engine = Engine(Bundle.open(folders(name)), device_named("ort-cpu"), DeviceOptions())
    short, long = list(range(3, 20)), [5, 9, 2] * 30
    alone = engine.remember_ids(short).feeds
    beside = engine.remember_many([short, long])[0].feeds
    assert alone["source_mask"].shape == (1, LEAST_ROWS)
    assert np.all(alone["source_mask"][0, len(short) :] == HIDDEN)
    for key in alone:
        if "scale" in key:
            np.testing.assert_allclose(beside[key], alone[key], rtol=1e-4)
        elif key != "source_mask":
            assert beside[key].shape[2] == len(long) and beside[key].dtype == np.int8
            for found in (alone[key], beside[key]):
                assert not found[:, :, len(short) :].any()
                assert np.abs(found.astype(int)).max() == 127
            far = beside[key][:, :, : len(short)].astype(int) - alone[key][:, :, : len(short)]
            assert np.abs(far).max() <= 1


@pytest.mark.parametrize("form", ENGINES)
@pytest.mark.parametrize("name", NAMES)
def test_the_gate_finds_the_checkpoint_s_tokens(name: str, form: str, folders: Folders) -> None:
    """Sources with hidden places at their end among them; logits are off by what codes lose."""
    bundle = Bundle.open(folders(name, form=form))
    made = CASES[name].make(**WIDE.get(name, {}))
    _, family = family_of(replace(made, tokenizers={"source": tokenizer(True)}))
    said: Any = {"formats": (form,), "memory": "int8"}
    found = Gate(family, ExportOptions(model="m", output=Path("o"), **said)).check(
        bundle.path, {part: bundle.component(part).variants[0] for part in ("encode", "decode")}
    )
    assert found.memory == "int8" and found.agreement >= 0.9
    assert 1e-5 < found.max_error < 0.1
    if form == "onnx":
        assert found.rows_error == 0


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_rows_are_the_same_bits_alone_and_among_others(weights: str, folders: Folders) -> None:
    """Of a source shorter than the call, too."""
    model = Model(Bundle.open(folders("t5-tied", weights)), "ort-cpu", 1)
    spine = drawn(MOST, seed=2)
    alone, decoder = model.alone(spine), model.decoder()
    for n in (*range(1, 17), 24, MOST):
        together = decoder.forward(spine[:n]).logits
        np.testing.assert_array_equal(together, alone[:n], err_msg=f"call of {n}")


@pytest.mark.parametrize("name", NAMES)
def test_drafts_batches_and_a_cached_source_change_no_text(
    name: str, pipelines: Callable[..., Pipeline], folders: Folders
) -> None:
    pipeline, given = pipelines(name), sources(name, 9)
    alone = [pipeline.generate(source, plain()).tokens for source in given]
    drafted = plain(draft="lookup", num_assistant_tokens=12)
    assert [pipeline.generate(source, drafted).tokens for source in given] == alone
    assert [found.tokens for found in pipeline.generate(given, plain(), batch_size=4)] == alone
    with load(folders(name), source_cache_bytes=1 << 20) as keeping:
        for source, tokens in zip(given[:2], alone, strict=False):
            first, again = keeping.generate(source, plain()), keeping.generate(source, plain())
            assert again.cached_source and first.tokens == again.tokens == tokens


@pytest.mark.parametrize("name", NAMES)
def test_beams_of_a_short_source_are_those_of_a_memory_in_float32(
    name: str, pipelines: Callable[..., Pipeline]
) -> None:
    """Near ties aside; scores say so."""
    said = plain(num_beams=6, num_return_sequences=2, max_new_tokens=6)
    alike = 0
    for source in sources(name, 8, seed=4):
        found = pipelines(name).generate(source, said)
        true = pipelines(name, memory="fp32").generate(source, said)
        alike += found.tokens == true.tokens
        for one, other in zip(found.hypotheses, true.hypotheses, strict=True):
            assert abs(one.score - other.score) < 0.05
    assert alike >= 6


def test_a_call_of_more_rows_than_the_memory_has_is_told_in_one_line(
    pipelines: Callable[..., Pipeline],
) -> None:
    pipeline = pipelines("t5-tied")
    assert pipeline.engine.decoder(pipeline.engine.remember_ids([5, 1])).chunk == LEAST_ROWS - 1
    with pytest.raises(InputError, match=r"64 rows, .* at most 63; ask for fewer beams"):
        pipeline.generate([5, 9, 1], plain(num_beams=LEAST_ROWS))
    long = [*range(3, 100), 1]
    assert pipeline.generate(long, plain(num_beams=LEAST_ROWS)).tokens
