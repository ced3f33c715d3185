"""Static graphs give the dynamic graphs' texts, whatever the sizes, the drafter or the length."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import onnx
import pytest
from tiny_families import CASES, tokenizer, write_bundle
from tiny_sources import shading

from edgegen.bundle import Bundle
from edgegen.devices import DeviceOptions, device_named
from edgegen.errors import BundleError, CacheFull, ExportError, InputError, ParityError
from edgegen.export.families import family_of
from edgegen.export.options import ExportOptions, StaticSizes
from edgegen.export.parity import Gate
from edgegen.export.static_parity import check_static
from edgegen.manifest import Variant
from edgegen.runtime.engine import Engine, Memory
from edgegen.runtime.options import GenerationOptions
from edgegen.runtime.static import StaticSession

# Small enough that a text of NEW tokens outgrows all but the last.
SIZES = StaticSizes(source=(8, 20), cache=(6, 18, 48), tokens=(1, 6))
NEW = 40
FAMILIES = (
    "t5-tied",
    "bart",
    "whisper",
    "marian-ssru",
    "llama-grouped",
    "gemma3",
    "t5gemma2",
    "vit-trocr",
)
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"draft": "none"},
    "seeded": {"draft": "none", "do_sample": True, "temperature": 0.9, "seed": 7},
    "lookup": {"draft": "lookup"},
    "tree": {"draft": "recycling"},
    "seeded tree": {"draft": "recycling", "do_sample": True, "temperature": 0.9, "seed": 7},
}


@cache
def engines(family: str) -> tuple[Engine, Engine]:
    """The same bundle over graphs of any size, and of fixed sizes."""
    folder = write_bundle(Path(mkdtemp()) / family, family, static=SIZES)
    bundle = Bundle.open(folder)
    device, options = device_named("ort-cpu"), DeviceOptions()
    return Engine(bundle, device, options), Engine(bundle, device, options, static=True)


def ids(count: int, seed: int) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).integers(3, 40, count)]


def opened(engine: Engine, length: int, seed: int = 0) -> tuple[Memory | None, list[int]]:
    """A memory and a prompt; ``length`` tokens of the source, where it has tokens."""
    start = list(engine.manifest.generation.start)
    if (speech := engine.manifest.speech) is not None:
        wave = np.sin(np.arange(speech.window_samples) * 0.01 * (seed + 1)).astype(np.float32)
        return engine.remember_samples(wave), start
    if (image := engine.manifest.image) is not None:
        shown = shading(3, image.height, image.width) * np.float32(seed + 1)
        return engine.remember_pixels(shown), start
    if "encode" in engine.variants:
        return engine.remember_ids([*ids(length - 1, seed), 1]), start
    return None, ids(length, seed)


def text(engine: Engine, length: int, new: int = NEW, **said: Any) -> list[int]:
    """Tokens after a source of ``length`` tokens, the ends forbidden."""
    memory, prompt = opened(engine, length)
    options = GenerationOptions(max_new_tokens=new, min_new_tokens=new, **said)
    decoder = engine.decoder(memory, options)
    made = engine.generation(decoder, options, prompt_length=len(prompt), memory=memory)
    return [token for step in made.run(prompt, prompt) for token in step.tokens]


@pytest.mark.parametrize("family", FAMILIES)
def test_static_graphs_give_the_dynamic_graphs_texts_with_and_without_drafts(family: str) -> None:
    dynamic, static = engines(family)
    for way in WAYS.values():
        assert text(static, 7, **way) == text(dynamic, 7, **way), way


@pytest.mark.parametrize("length", [1, 7, 8, 9, 20])
def test_sources_of_odd_lengths_are_filled_up_unseen(length: int) -> None:
    dynamic, static = engines("t5-tied")
    assert text(static, length, 12) == text(dynamic, length, 12)


def test_a_text_moves_up_through_the_sizes_that_were_compiled_when_needed() -> None:
    folder = write_bundle(Path(mkdtemp()) / "t5", "t5-tied", static=SIZES)
    engine = Engine(Bundle.open(folder), device_named("ort-cpu"), DeviceOptions(), static=True)
    session = engine.session("decode")
    assert isinstance(session, StaticSession)
    assert len(session.opened) == 1
    text(engine, 7, draft="none")
    caches = {words.split("past=")[1].split()[0] for words in session.opened}
    assert caches == {"6", "18", "48"}
    assert all("n=1" in words for words in session.opened)
    assert all(one.seconds > 0 for one in session.opened.values())
    engine.close()


@pytest.mark.parametrize("draft", ["none", "lookup", "recycling"])
def test_a_text_past_the_last_cache_is_full_at_the_same_token_whatever_is_drafted(
    draft: str,
) -> None:
    static = engines("t5-tied")[1]
    assert len(text(static, 7, 49, draft=draft)) == 49  # the last token is never fed
    with pytest.raises(CacheFull, match=r"49 rows .* takes 48; .* --static cache="):
        text(static, 7, 50, draft=draft)


def test_a_source_or_a_call_past_the_largest_size_names_the_way_out() -> None:
    static = engines("t5-tied")[1]
    with pytest.raises(InputError, match=r"21 source tokens .* takes 20; .* --static source="):
        text(static, 21)
    memory, start = opened(static, 7)
    with pytest.raises(InputError, match=r"7 rows of one call .* takes 6; .* --static tokens="):
        static.decoder(memory).forward(start * 7)


def test_the_state_of_one_text_is_not_seen_by_another() -> None:
    static = engines("t5-tied")[1]
    alone = [text(static, 7, 10), text(static, 15, 10)]
    memories = [opened(static, 7), opened(static, 15)]
    decoders = [static.decoder(memory) for memory, _ in memories]
    found: list[list[int]] = [[], []]
    for _ in range(10):
        for which, decoder in enumerate(decoders):
            last = found[which][-1:] or memories[which][1]
            row = decoder.forward(last).logits[-1].copy()
            row[list(static.manifest.generation.end)] = -np.inf
            decoder.keep(decoder.length + 1)
            found[which].append(int(row.argmax()))
    assert found == alone


def test_several_sources_are_encoded_one_by_one_as_alone() -> None:
    static = engines("t5-tied")[1]
    sources = [ids(5, 1), ids(7, 2)]
    for source, memory in zip(sources, static.remember_many(sources), strict=True):
        alone = static.remember_ids(source)
        for name, array in alone.feeds.items():
            given = memory.feeds[name]
            seen = (
                given[..., : len(source)] if name == "source_mask" else given[:, :, : len(source)]
            )
            np.testing.assert_allclose(seen, array, atol=1e-6)


def test_beams_run_over_static_graphs() -> None:
    dynamic, static = engines("bart")
    options = GenerationOptions(num_beams=3, max_new_tokens=12)

    def best(engine: Engine) -> list[int]:
        memory, prompt = opened(engine, 7)
        decoder = engine.decoder(memory, options)
        made = engine.generation(decoder, options, prompt_length=len(prompt), memory=memory)
        *_, last = made.run(prompt)
        return list(last.hypotheses[0].tokens)

    assert best(static) == best(dynamic)


# ------------------------------------------------------------------ in the bundle


def statics(bundle: Bundle, component: str) -> list[Variant]:
    return [one for one in bundle.component(component).variants if one.static]


def test_static_graphs_share_the_weight_file_and_say_their_sizes() -> None:
    bundle = engines("t5-tied")[0].bundle
    decoders = statics(bundle, "decode")
    assert [one.buckets["S"] for one in statics(bundle, "encode")] == [8, 20]
    assert len(decoders) == 2 * 3 * 2
    dynamic = bundle.component("decode").variants[0]
    assert {one.weights for one in decoders} == {dynamic.weights}
    for one in decoders:
        shapes = {port.name: port.shape for port in one.fixed().graph.inputs}
        assert all(isinstance(dim, int) for shape in shapes.values() for dim in shape)
        past, rows = one.buckets["past"], one.buckets["n"]
        assert shapes["visible"] == (1, rows, past + rows)


def test_static_graphs_add_no_large_weights() -> None:
    lone = Bundle.open(write_bundle(Path(mkdtemp()) / "lone", "t5-tied"))
    both = engines("t5-tied")[0].bundle
    sizes = [
        next(file.size for file in bundle.manifest.files if file.path.endswith("weights.data"))
        for bundle in (lone, both)
    ]
    assert sizes[1] < 1.2 * sizes[0]


def test_a_dynamic_load_never_takes_a_static_graph_and_a_static_one_asks_for_them() -> None:
    dynamic, static = engines("t5-tied")
    assert not any(one.static for one in dynamic.variants.values())
    assert all(one.static for one in static.variants.values())
    lone = Bundle.open(write_bundle(Path(mkdtemp()) / "lone", "t5-tied"))
    with pytest.raises(BundleError, match="Export with --format onnx --static"):
        Engine(lone, device_named("ort-cpu"), DeviceOptions(), static=True)


def test_openvino_s_static_graphs_of_narrow_weights_give_its_dynamic_graphs_texts() -> None:
    sizes = StaticSizes(source=(8,), cache=(16,), tokens=(1, 6))
    folder = Path(mkdtemp()) / "openvino"
    write_bundle(folder, "t5-tied", static=sizes, formats=("openvino",), weight_format="int8")
    bundle, device = Bundle.open(folder), device_named("ov-cpu")
    assert len({one.weights for one in bundle.component("decode").variants}) == 1
    dynamic = Engine(bundle, device, DeviceOptions())
    static = Engine(bundle, device, DeviceOptions(), static=True)
    for way in WAYS.values():
        assert text(static, 7, 16, **way) == text(dynamic, 7, 16, **way), way


def gated(family: str) -> tuple[Gate, Bundle, dict[str, Variant]]:
    bundle = engines(family)[0].bundle
    checkpoint = replace(CASES[family].make(), tokenizers={"source": tokenizer(end=True)})
    made = family_of(checkpoint)[1]
    gate = Gate(made, ExportOptions(model="tiny", output=Path("unused"), static=SIZES))
    every = (one for name in bundle.manifest.components for one in statics(bundle, name))
    return gate, bundle, {one.file: one for one in every}


@pytest.mark.parametrize("family", ["t5-tied", "whisper", "marian-ssru", "llama-grouped"])
def test_the_gate_holds_every_static_graph_to_the_checkpoint(family: str) -> None:
    gate, bundle, variants = gated(family)
    found = check_static(gate, bundle.path, variants)
    assert found.agreement == 1.0
    assert found.max_error < 1e-4
    assert found.rows_error < 1e-4


def test_the_gate_refuses_static_graphs_of_another_checkpoint() -> None:
    gate, bundle, variants = gated("t5-tied")
    gate.examples = [replace(one, logits=one.logits * 1.01) for one in gate.examples]
    with pytest.raises(ParityError, match="onnx fp32: outputs differ"):
        check_static(gate, bundle.path, variants)


def test_sizes_that_no_prompt_of_the_gate_fits_are_refused() -> None:
    gate, bundle, variants = gated("t5-tied")
    gate.examples = [one for one in gate.examples if len(one.source["input_ids"]) > 8]
    with pytest.raises(ExportError, match=r"S=8 .* --parity-prompts"):
        check_static(gate, bundle.path, variants)


@cache
def rounded() -> Bundle:
    """Graphs of 8-bit weights and 16-bit activations."""
    sizes = StaticSizes(source=(20,), cache=(48,), tokens=(1, 6))
    folder = Path(mkdtemp()) / "qdq"
    return Bundle.open(write_bundle(folder, "t5-tied", static=sizes, weight_format="qdq"))


def test_integer_graphs_are_near_the_checkpoint_and_their_rows_nearer_to_each_other() -> None:
    bundle = rounded()
    gate = gated("t5-tied")[0]
    gate.options = replace(gate.options, min_agreement=0.5)
    every = (one for name in ("encode", "decode") for one in statics(bundle, name))
    found = check_static(gate, bundle.path, {one.file: one for one in every})
    assert found.weight_format == "qdq"
    assert found.agreement > 0.7
    assert 1e-4 < found.max_error < 0.1
    assert found.rows_error < found.max_error / 5


def test_integer_graphs_are_rounded_once_for_all_sizes() -> None:
    bundle = rounded()
    scales: list[dict[str, float]] = []
    for one in statics(bundle, "decode"):
        model = onnx.load(bundle.path / one.file)
        kinds = {node.op_type for node in model.graph.node}
        assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
        scales.append(
            {
                tensor.name: float(onnx.numpy_helper.to_array(tensor))
                for tensor in model.graph.initializer
                if tensor.name.endswith("_scale") and not tensor.dims
            }
        )
    assert scales[0]
    assert scales[0] == scales[1]


def test_drafts_leave_the_text_of_integer_graphs_as_it_is() -> None:
    engine = Engine(rounded(), device_named("ort-cpu"), DeviceOptions(), static=True)
    assert engine.variants["decode"].precision.weight_format == "qdq"
    plain = text(engine, 7, draft="none")
    for draft in ("lookup", "recycling"):
        assert text(engine, 7, draft=draft) == plain, draft


def test_integer_graphs_are_static_onnx_of_decoders_without_a_summed_state() -> None:
    with pytest.raises(ExportError, match="--static"):
        ExportOptions(model="tiny", output=Path("unused"), weight_format="qdq")
    with pytest.raises(ExportError, match="loses its digits"):
        folder = Path(mkdtemp()) / "refused"
        write_bundle(folder, "marian-ssru", static=SIZES, weight_format="qdq")


@pytest.mark.parametrize(
    ("family", "why"), [("codegen-prefix-lm", "one call of any length"), ("moonshine", "size")]
)
def test_families_that_no_fixed_size_fits_are_refused_by_name(family: str, why: str) -> None:
    with pytest.raises(ExportError, match=why):
        write_bundle(Path(mkdtemp()) / "refused", family, static=SIZES)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["source=0"], "source=0 "),
        (["cache=64,32"], "cache=64,32 "),
        (["tokens=1"], "tokens=1 "),
        (["rows=8"], "'rows=8'"),
        (["source=8", "source=9"], "said twice"),
        (["source="], "'source='"),
        (["source=" + "9" * 5000], r"'source=9+\.\.\.' is not one of .* N up to 32768"),
    ],
)
def test_sizes_that_mean_nothing_are_refused(words: list[str], why: str) -> None:
    with pytest.raises(ExportError, match=why) as caught:
        StaticSizes.parse(words)
    assert len(str(caught.value)) < 300


def test_sizes_are_read_as_they_are_written_on_the_command_line() -> None:
    found = StaticSizes.parse(["source=32,64", "tokens=1,4"])
    assert found == StaticSizes(source=(32, 64), tokens=(1, 4))
    assert StaticSizes.parse(["source=8 cache=4"]) == StaticSizes(source=(8,), cache=(4,))
