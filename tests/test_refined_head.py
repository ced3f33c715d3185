"""An output table read in 4 bits first, and again for the words that come out on top."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from test_integer_products import DECODERS, rows_of
from tiny_families import CASES, tokenizer, write_bundle
from tiny_modernbert import encoder

from edgegen import load
from edgegen.bundle import Bundle
from edgegen.devices import DeviceOptions, device_named
from edgegen.errors import ExportError, ParityError
from edgegen.export.checkpoint import Weight
from edgegen.export.families import family_of
from edgegen.export.formats.weight_file import WeightFile
from edgegen.export.ops.refined_head import REFINED, RefinedHead, check_head
from edgegen.export.options import ExportOptions, StaticSizes
from edgegen.export.parity import Gate, judge, one_each
from edgegen.export.quantisers.base import Quantiser
from edgegen.graph import Graph, Port
from edgegen.manifest import held_as
from edgegen.runtime.engine import Engine
from edgegen.runtime.options import GenerationOptions

Floats = NDArray[np.float32]
VOCABULARY, WIDTH = 500, 64
Bundles = Callable[..., Path]
Engines = Callable[..., Engine]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    @cache
    def bundle(name: str, weights: str = "int8", head: str = "refined") -> Path:
        said: dict[str, Any] = {"head": head, "weight_format": weights}
        return write_bundle(tmp_path_factory.mktemp("refined") / "b", name, **said)

    return bundle


@pytest.fixture(scope="module")
def engines(bundles: Bundles) -> Engines:
    @cache
    def engine(name: str, **said: str) -> Engine:
        bundle = Bundle.open(bundles(name, **said))
        return Engine(bundle, device_named("ort-cpu"), DeviceOptions())

    return engine


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("bits", [None, 8])
def test_words_on_top_are_those_of_the_whole_table_and_others_of_4_bits(
    bits: int | None, biased: bool, tmp_path: Path
) -> None:
    drawn = np.random.default_rng(3)
    table = drawn.normal(size=(VOCABULARY, WIDTH)).astype(np.float32)
    bias = drawn.normal(size=VOCABULARY).astype(np.float32)
    quantiser = None if bits is None else Quantiser(bits, 32, True)
    shape: tuple[str | int, ...] = ("B", "m", WIDTH)
    graph = Graph(
        name="decode",
        inputs=(Port(name="x", dtype="float32", shape=shape),),
        outputs=(Port(name="logits", dtype="float32", shape=("B", "m", VOCABULARY)),),
    )
    given = {"table": Weight.of(table), "bias": Weight.of(bias)}
    with closing(WeightFile(tmp_path / "weights.data")) as file:
        ops = RefinedHead(graph, given, file, quantiser=quantiser)
        ops.output("logits", ops.by_table(ops.input("x"), "table", "bias" if biased else None))
        onnx.save(ops.finish()[0], tmp_path / "decode.onnx")
    session = InferenceSession(str(tmp_path / "decode.onnx"), providers=["CPUExecutionProvider"])

    def logits(x: Floats) -> Floats:
        return np.asarray(session.run(None, {"x": x})[0])

    x = drawn.normal(size=(2, 3, WIDTH)).astype(np.float32)
    found = logits(x)

    def product(bits: int | None) -> Floats:
        rows = table
        if bits is not None:
            held = Quantiser(bits, 32, True).quantise(Weight.of(table))
            codes = held.codes.astype(np.float32) - held.zeros.repeat(32, 1)
            rows = codes * held.scales.repeat(32, 1)
        return x @ rows.T + bias * biased

    fine, coarse = product(bits), product(4)
    exact = np.isclose(found, fine, atol=1e-4)
    assert exact.sum(-1).min() >= REFINED
    # Among the coarse logits nearly all of the first are refined: rounding of activations, which
    # the kernel does, may exchange two at the edge.
    for at in np.ndindex(2, 3):
        top = np.argsort(-coarse[at])[: REFINED - 4]
        assert exact[at][top].all()
        assert np.abs(found[at] - coarse[at])[~exact[at]].max() <= 0.05 * np.abs(coarse).max()
    np.testing.assert_array_equal(found.argmax(-1), fine.argmax(-1))
    np.testing.assert_array_equal(logits(x[1:, 2:])[0, 0], found[1, 2])


@pytest.mark.parametrize("name", DECODERS)
def test_a_row_has_the_same_bits_alone_and_among_others(name: str, engines: Engines) -> None:
    alone, together = rows_of(engines(name))
    np.testing.assert_array_equal(alone, together)
    full = rows_of(engines(name, head="full"))[0]
    assert (alone.argmax(-1) == full.argmax(-1)).mean() >= 0.75
    assert not np.array_equal(alone, full)


def test_only_the_decoder_is_told_to_have_one(engines: Engines) -> None:
    variants = engines("t5-tied").variants
    assert variants["decode"].precision.head == "refined"
    assert variants["encode"].precision.head == "full"
    assert held_as(variants["decode"].precision) == "int8, head refined"
    assert held_as(engines("t5-tied", head="full").variants["decode"].precision) == "int8"


@pytest.mark.parametrize("name", ["t5-tied", "marian-ssru", "llama-grouped"])
@pytest.mark.parametrize("draft", ["lookup", "suffix"])
def test_drafts_change_no_text(name: str, draft: str, bundles: Bundles) -> None:
    with load(bundles(name), "ort-cpu") as pipeline:
        for seed, sampled in ((0, False), (7, True)):
            said: dict[str, Any] = {"max_new_tokens": 24, "do_sample": sampled, "seed": seed}
            texts = [
                pipeline.generate("one two three one two", GenerationOptions(draft=kind, **said))
                for kind in ("none", draft)
            ]
            assert texts[0].tokens == texts[1].tokens
            assert len(texts[0].tokens) > 1


def test_float_weights_are_held_to_tokens_then(bundles: Bundles, tmp_path: Path) -> None:
    """Logits far from the top are those of 4 bits, which no tolerance of float32 allows."""
    bundle = Bundle.open(bundles("t5-tied", weights="fp32"))
    made = replace(CASES["t5-tied"].make(), tokenizers={"source": tokenizer(True)})
    family = family_of(made)[1]
    gate = Gate(family, ExportOptions(model="tiny", output=tmp_path, min_agreement=0))
    parts = {name: one.variants[0] for name, one in bundle.manifest.components.items()}
    parity = gate.check(bundle.path, parts)
    assert parity.head == "refined" and parity.max_error > 1e-3 and parity.rows_error == 0
    strict = ExportOptions(model="tiny", output=tmp_path, min_agreement=1)
    if parity.agreement < 1:
        with pytest.raises(ParityError, match="fp32, head refined: chooses its token"):
            judge(parity, strict)
    else:
        judge(parity, strict)
    poor = msgspec.structs.replace(parity, agreement=0.5)
    with pytest.raises(ParityError, match=r"; use no --head or a lower --min-agreement\.$"):
        judge(poor, strict)
    full = msgspec.structs.replace(parity, head="full", agreement=1.0)
    assert one_each([poor, full, parity]) == [
        msgspec.structs.replace(poor, max_error=parity.max_error),
        full,
    ]


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"head": "coarse"}, "unknown head 'coarse'"),
        ({"head": "refined", "weight_format": "int4"}, "in fp32 or int8, not int4"),
        ({"head": "refined", "formats": ("openvino",)}, "of ONNX graphs, not openvino"),
        ({"head": "refined", "shortlist": True}, "a refined head and --shortlist read"),
        ({"head": "refined", "static": StaticSizes()}, "a refined head and --static read"),
        (
            {"head": "refined", "weight_format": "int8", "integer": ("decode",)},
            "a refined head and --integer decode read",
        ),
    ],
)
def test_where_it_cannot_be_it_is_refused_in_a_line(
    said: dict[str, Any], line: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=line):
        ExportOptions(model="tiny", output=tmp_path, **said)


def test_a_model_without_a_decoder_has_no_head_to_refine() -> None:
    _, family = family_of(encoder("fill-mask"))
    with pytest.raises(ExportError, match="has no decoder; leave --head out"):
        check_head(family)


def test_rows_that_4_bits_do_not_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="rows of 24 numbers"):
        write_bundle(
            tmp_path / "b", "t5-tied", weight_format="int8", head="refined", d_model=24, d_kv=8
        )
