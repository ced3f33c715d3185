"""Weights in fewer bits: what a format cannot hold is refused or kept in floats, and said so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx as onnx_package
import pytest
from tiny_families import CASES, write_bundle
from tiny_words import WORDS, tokenizer

import edgegen
from edgegen.devices import device_named
from edgegen.errors import ExportError
from edgegen.export.checkpoint import Weight
from edgegen.export.families import family_of
from edgegen.export.formats import onnx, openvino
from edgegen.export.options import ExportOptions, Format, StaticSizes, WeightFormat
from edgegen.manifest import Precision
from edgegen.runtime.options import GenerationOptions
from edgegen.runtime.variants import choose_variant


def test_values_float16_cannot_hold_are_one_line_in_every_format(tmp_path: Path) -> None:
    checkpoint = CASES["t5-tied"].make(vocab_size=2000)
    table = checkpoint.weights["shared.weight"].read().copy()
    table[3, 3] = 1e6
    weights = {**checkpoint.weights, "shared.weight": Weight.of(table)}
    family = family_of(replace(checkpoint, weights=weights))[1]
    said = ExportOptions(model="tiny", output=tmp_path, weight_format="fp16")
    line = "^graph encode: shared.weight has values fp16 cannot hold; use"
    with pytest.raises(ExportError, match=line):
        onnx.write(family, tmp_path / "onnx", said)
    with pytest.raises(ExportError, match=line):
        openvino.write(family, tmp_path / "openvino", replace(said, formats=("openvino",)))
    onnx.write(family, tmp_path / "wide", replace(said, weight_format="fp32"))


@pytest.mark.parametrize(
    ("weight_format", "integer"), [("int8", ()), ("int4", ()), ("int8", ("encode", "decode"))]
)
def test_a_width_that_blocks_do_not_divide_keeps_its_matrices_in_floats(
    weight_format: WeightFormat, integer: tuple[str, ...], tmp_path: Path
) -> None:
    at = write_bundle(
        tmp_path / "b", "t5-tied", weight_format=weight_format, integer=integer, d_model=40
    )
    found = onnx_package.load(
        at / "graphs" / f"onnx-{weight_format}" / "decode.onnx", load_external_data=False
    )
    kinds = [node.op_type for node in found.graph.node]
    assert "FusedMatMul" in kinds  # the output table
    with edgegen.load(at) as pipeline:
        assert pipeline.generate("ban dun", GenerationOptions(max_new_tokens=4)).tokens


@pytest.mark.parametrize(
    ("form", "weight_format"), [("onnx", "int8"), ("onnx", "fp16"), ("openvino", "int8")]
)
def test_audio_features_are_recorded_in_floats_and_chosen_with_any_precision(
    form: Format, weight_format: WeightFormat, tmp_path: Path
) -> None:
    at = write_bundle(tmp_path / "b", "whisper", formats=(form,), weight_format=weight_format)
    bundle = edgegen.Bundle.open(at)
    (features,) = bundle.component("features").variants
    assert features.precision == Precision(weight_format="fp32", rows="rounding")
    device = device_named({"onnx": "ort-cpu", "openvino": "ov-cpu"}[form])
    for part in ("features", "encode", "decode"):
        chosen = choose_variant(bundle, part, device, weight_format)
        assert chosen in bundle.component(part).variants
    with pytest.raises(edgegen.BundleError, match="decode in int4"):
        choose_variant(bundle, "decode", device, "int4")


def test_features_of_fixed_sizes_are_recorded_in_floats(tmp_path: Path) -> None:
    sizes = StaticSizes(source=(8,), cache=(16,), tokens=(1, 4))
    at = write_bundle(tmp_path / "b", "whisper", static=sizes, weight_format="fp16")
    found = edgegen.Bundle.open(at)
    kinds = [one.precision.weight_format for one in found.component("features").variants]
    assert kinds == ["fp32", "fp32"]
    assert {one.precision.weight_format for one in found.component("decode").variants} == {"fp16"}


LONG = " ".join(WORDS[:60])
SHORT = " ".join(WORDS[:21])


@pytest.mark.parametrize(
    ("name", "texts"),
    [("gpt2", (SHORT,)), ("gpt2", (LONG,)), ("bart", (SHORT,)), ("bart", (SHORT, "ban"))],
)
def test_calibration_ends_at_the_last_position(
    name: str, texts: tuple[str, ...], tmp_path: Path
) -> None:
    """``SHORT`` fits, but not what would be written behind it, or hidden behind the source."""
    said = {"n_positions": 24} if name == "gpt2" else {"max_position_embeddings": 24}
    made = replace(CASES[name].make(**said), tokenizers={"source": tokenizer(end=name == "bart")})
    family = family_of(made)[1]
    sizes = StaticSizes(source=(24,), cache=(16,), tokens=(1, 4))
    coded = ExportOptions(model="tiny", output=tmp_path, calibration=texts, kv_cache="int8")
    found = onnx.write(family, tmp_path / "coded", coded)
    assert found["decode"].cache.held == "int8"
    qdq = replace(coded, kv_cache="fp32", weight_format="qdq", static=sizes)
    found = onnx.write(family, tmp_path / "qdq", qdq)
    assert any(one.lowering == "qdq" for one in found.values())
