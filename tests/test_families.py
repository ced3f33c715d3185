"""Every family says what its checkpoint says: in torch and ONNX, whole, in steps, over trees."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from stepping import error
from tiny_families import CASES, PAD, write_bundle
from tiny_model import IN_ONNX, IN_TORCH, READERS, Floats, Model, stepwise
from tiny_sources import ids, source_of

from edgegen.bundle import Bundle
from edgegen.devices import DeviceOptions, device_named
from edgegen.export.families import FAMILIES, family_of
from edgegen.export.families.base import Family
from edgegen.export.families.encoder import EncoderFamily
from edgegen.export.ops.torch_ops import TorchOps
from edgegen.export.stepper import Stepper, memory_of

ROOT = Path(__file__).resolve().parent.parent
WITH_SOURCE = [name for name, case in CASES.items() if case.family in READERS]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Model]:
    @cache
    def model(name: str) -> Model:
        return Model(name, tmp_path_factory.mktemp(name))

    return model


@pytest.fixture(params=CASES)
def model(request: pytest.FixtureRequest, models: Callable[[str], Model]) -> Model:
    return models(request.param)


def test_every_family_has_a_case() -> None:
    """Encoders that stand alone have theirs in test_encoders.py."""
    decoders = {name for name in FAMILIES if not issubclass(FAMILIES[name], EncoderFamily)}
    assert {case.family for case in CASES.values()} == decoders


# ------------------------------------------------------------------------- the same numbers


def test_cached_steps_in_torch_are_the_checkpoint_s_own_forward(model: Model) -> None:
    tokens = [*model.start, *ids(17 - len(model.start))]
    found = stepwise(model.in_torch(), tokens, (4, 1, 3, 1, 1, 7))
    assert error(found, model.truth(tokens)) <= IN_TORCH


def test_every_onnx_step_is_the_checkpoint_s_own_forward(model: Model) -> None:
    tokens = [*model.start, *ids(17 - len(model.start))]
    truth = model.truth(tokens)
    assert error(stepwise(model.onnx(), tokens, [1] * 17), truth) <= IN_ONNX
    assert error(stepwise(model.onnx(), tokens, (4, 1, 3, 1, 1, 7)), truth) <= IN_ONNX


@pytest.mark.parametrize("name", WITH_SOURCE)
@pytest.mark.parametrize("length", [1, 512])
def test_sources_of_one_token_and_of_512(
    name: str, length: int, models: Callable[[str], Model]
) -> None:
    model = models(name)
    source = model.source(length)
    tokens = [*model.start, *ids(6)]
    truth = model.truth(tokens, source)
    assert error(model.in_torch(source).decode(tokens), truth) <= IN_TORCH
    assert error(stepwise(model.onnx(source), tokens, (1, 1, 5)), truth) <= IN_ONNX


def compare_texts(model: Model, count: int, prompts: int = 20) -> None:
    texts: set[tuple[int, ...]] = set()
    for index in range(prompts):
        source, prompt = model.prompt(index)
        # A text ends with padding, which has a place here and none in M2M100's own class.
        wanted = model.reference.greedy(source, prompt, count, frozenset([PAD]))
        texts.add(tuple(wanted))
        # Every other source is padded on the right as well, as a batch's shorter ones are.
        padded = model.name in WITH_SOURCE and index % 2 == 1
        for padding in (0, index % 4) if padded else (0,):
            found = model.written(source, prompt, len(wanted), padding)
            said = f"prompt {index}, padding {padding}"
            assert found == wanted, f"{said}: {model.apart(source, prompt, found, wanted)}"
    assert len(texts) >= 8  # prompts are told apart


def test_twenty_prompts_get_the_checkpoint_s_greedy_tokens(model: Model) -> None:
    compare_texts(model, 4)


@pytest.mark.slow
def test_twenty_prompts_get_the_checkpoint_s_greedy_tokens_far_on(model: Model) -> None:
    compare_texts(model, 24)


@pytest.mark.parametrize("name", ["t5-tied", "llama-grouped", "gemma3"])
def test_a_prompt_of_512_tokens(name: str, models: Callable[[str], Model]) -> None:
    model = models(name)
    tokens = [*model.start, *ids(513 - len(model.start))]
    found = stepwise(model.onnx(capacity=513), tokens, (512, 1))
    assert error(found, model.truth(tokens)) <= IN_ONNX


def test_only_the_rows_asked_for_get_logits_and_they_are_the_same(model: Model) -> None:
    tokens = [*model.start, *ids(5)]
    stepper = model.onnx()
    every = stepper.decode(tokens, stand=False)
    feeds: dict[str, Any] = {}

    class Asking:
        """The session, asked for the second row and the last."""

        graph, device = model.sessions["decode"].graph, "ort-cpu"

        def request(self) -> Any:
            return self

        def run(self, given: dict[str, Any]) -> Any:
            feeds.update(given, logit_rows=np.array([1, len(tokens) - 1]))
            return model.sessions["decode"].request().run(feeds)

    stepper = Stepper(Asking(), model.variants["decode"], stepper.memory, 64)  # type: ignore[arg-type]
    some = stepper.decode(tokens)
    assert error(some, every[[1, -1]]) <= IN_TORCH


# ------------------------------------------------------------------------------- rows apart


@pytest.mark.parametrize("count", [2, 5, 33])
def test_rows_at_once_are_rows_one_by_one(model: Model, count: int) -> None:
    opening, tokens = [*model.start, *ids(3, seed=1)], ids(count)
    many, single = model.onnx(), model.onnx()
    many.decode(opening)
    single.decode(opening)
    rows, apart = many.decode(tokens), stepwise(single, tokens, [1] * count)
    assert error(rows, apart) <= IN_TORCH
    if platform.machine() == "x86_64":  # elsewhere the gate says which; here it is known
        np.testing.assert_array_equal(rows, apart)


TREES = {
    "two branches": [-1, 0, 0, 1, 2],
    "a star": [-1, -1, -1, -1, -1],
    "mixed": [-1, -1, 0, 1, 2, 2, 3, -1],
}


@pytest.mark.parametrize("tree", TREES)
def test_a_tree_s_rows_are_its_paths_fed_plainly(model: Model, tree: str) -> None:
    parents = TREES[tree]
    # Longer than Gemma's window, so that a path leaves part of the past behind.
    opening, tokens = [*model.start, *ids(7, seed=1)], ids(len(parents))
    stepper = model.onnx()
    stepper.decode(opening)
    rows = stepper.decode(tokens, parents, stand=False)
    for leaf in set(range(len(parents))) - set(parents):
        path = [leaf]
        while parents[path[0]] >= 0:
            path.insert(0, parents[path[0]])
        plain = stepper.decode([tokens[i] for i in path], stand=False)
        assert error(rows[path], plain) <= IN_TORCH


@pytest.mark.parametrize("name", WITH_SOURCE)
def test_right_padding_of_the_source_changes_nothing(
    name: str, models: Callable[[str], Model]
) -> None:
    model = models(name)
    tokens = [*model.start, *ids(6)]
    plain = model.onnx().decode(tokens)
    assert error(model.in_torch(padding=5).decode(tokens), plain) <= IN_ONNX
    assert error(model.onnx(padding=5).decode(tokens), plain) <= IN_TORCH


@pytest.mark.parametrize("model_type", ["t5", "mt5"])
@pytest.mark.parametrize(
    ("said", "scaled"),
    [
        ({}, True),
        ({"tie_word_embeddings": False}, False),
        ({"tie_word_embeddings": True}, True),
        ({"tie_word_embeddings": True, "scale_decoder_outputs": False}, False),
    ],
)
def test_configurations_old_and_new_say_whether_logits_are_scaled(
    model_type: str, said: dict[str, Any], scaled: bool
) -> None:
    checkpoint = CASES["t5-tied"].make()
    config = {k: v for k, v in checkpoint.config.items() if k not in ("tie_word_embeddings",)}
    config.pop("scale_decoder_outputs", None)
    config |= {"model_type": model_type, **said}
    family = family_of(replace(checkpoint, config=config))[1]
    names: set[str] = set()

    class Named(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            names.add(name)
            return super().__getitem__(name)

    feeds: dict[str, Any] = {
        "tokens": [[0]], "positions": [[0]], "key_positions": [[0]], "visible": [[[0.0]]],
        "logit_rows": [0], "source_mask": [[0.0]],
    }  # fmt: skip
    for i in range(family.shape.layers):
        for part in ("key", "value"):
            feeds[f"past_{part}_{i}"] = np.zeros((1, 0, 4, 16), np.float32)
            feeds[f"cross_{part}_{i}"] = np.zeros((1, 4, 1, 16), np.float32)
    family.decode(TorchOps(Named(family.weights()), feeds))
    assert ("decoder.final_layer_norm.scaled" in names) is (scaled and model_type == "t5")


# ---------------------------------------------------------------------------------- on disk


def unique_bytes(family: Family) -> int:
    """The checkpoint's weights and the features' own tables, tied ones once."""
    tables = {**family.checkpoint.weights}
    tables |= {k: w for k, w in family.weights().items() if k.startswith("features.")}
    arrays = [weight.read() for weight in tables.values()]
    return sum({hashlib.sha256(a.tobytes()).digest(): a.nbytes for a in arrays}.values())


@pytest.mark.parametrize("name", CASES)
def test_a_float32_bundle_is_as_large_as_its_weights(name: str, tmp_path: Path) -> None:
    """Wide vocabularies, as real ones have: a table written twice would be half as much again."""
    said: dict[str, Any] = {"vocab_size": 20000}
    family = family_of(CASES[name].make(**said))[1]
    bundle = Bundle.open(write_bundle(tmp_path / "bundle", name, **said))
    assert bundle.size / unique_bytes(family) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("weight_format", "share"), [("fp16", 0.58), ("int8", 0.36), ("int4", 0.25)]
)
@pytest.mark.parametrize("name", CASES)
def test_narrow_weights_run_and_are_smaller(
    name: str, weight_format: Any, share: float, tmp_path: Path
) -> None:
    """How close they come is the parity gate's to say on real weights; noise has no margins."""
    said: dict[str, Any] = {"vocab_size": 20000}
    bundle = Bundle.open(write_bundle(tmp_path / "b", name, weight_format=weight_format, **said))
    family = family_of(CASES[name].make(**said))[1]
    variant = bundle.component("decode").variants[0]
    assert variant.precision.weight_format == weight_format
    sizes = {file.path: file.size for file in bundle.manifest.files}
    features = 4 * (402 * 400 + 80 * 201) * ("features" in bundle.manifest.components)  # float32
    assert sizes[variant.weights[0]] - features < share * (unique_bytes(family) - features)
    narrow = Narrow(bundle, source_of(family.shape))
    rows = narrow.rows([*(family.generation().start if family.shape.encoder else ()), 5, 9])
    assert rows.shape[1] == 20000 and np.isfinite(rows).all() and rows.std() > 0


class Narrow:
    """A bundle's sessions, fed by hand."""

    def __init__(self, bundle: Bundle, source: dict[str, Any]) -> None:
        self.source = source
        self.variants = {
            name: component.variants[0] for name, component in bundle.manifest.components.items()
        }
        self.sessions = {
            name: device_named("ort-cpu").compile(bundle.file(v.file), v, DeviceOptions())
            for name, v in self.variants.items()
        }

    def rows(self, tokens: Sequence[int]) -> Floats:
        memory = memory_of(self.sessions, self.source) if self.source else {}
        return Stepper(self.sessions["decode"], self.variants["decode"], memory).decode(tokens)


# ------------------------------------------------------------------------------- the ports


def documented() -> dict[str, dict[str, set[str]]]:
    """Port names of docs/bundle.md: ``{graph or cache kind: {"in": ..., "out": ...}}``."""
    found: dict[str, dict[str, set[str]]] = {}
    graph = ""
    text = (ROOT / "docs" / "bundle.md").read_text(encoding="utf-8").split("## The graphs")[1]
    for line in text.split("## Versions")[0].splitlines():
        if heading := re.match(r"\*\*`(\w+)`\*\*", line):
            graph = heading[1]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if row := re.match(r"(in|out) (.*)", cells[0]):
            names = set(re.findall(r"`(\w+)`", row[2]))
            if graph == "encode" and "input_ids" in names:
                names.add("features")  # "or `features` as above"
            found.setdefault(graph, {"in": set(), "out": set()})[row[1]] |= names
        elif cells[0].strip("`") in ("append", "in_place", "recurrent"):
            sides = [set(re.findall(r"`(\w+_i)`", cell)) for cell in cells[1:3]]
            sides[1] = sides[1] or sides[0]
            found[cells[0].strip("`")] = {"in": sides[0], "out": sides[1]}
    return found


def test_the_page_of_the_format_is_read_right() -> None:
    page = documented()
    assert {"features", "encode", "decode", "append", "in_place", "recurrent"} <= set(page)
    assert "cross_key_i" in page["encode"]["out"] and "cross_key_i" in page["decode"]["in"]
    assert page["recurrent"] == {"in": {"state_i"}, "out": {"new_state_i"}}


def test_ports_are_those_of_the_written_format(model: Model) -> None:
    page = documented()
    for part, variant in model.variants.items():
        cache_ports = page.get(variant.cache.kind, {"in": set(), "out": set()})
        for side, ports in (("in", variant.graph.inputs), ("out", variant.graph.outputs)):
            names = {re.sub(r"_\d+$", "_i", port.name) for port in ports}
            assert names <= page[part][side] | cache_ports[side]
            assert cache_ports[side] <= names


def test_graphs_have_the_ports_their_manifest_says(model: Model) -> None:
    for part, variant in model.variants.items():
        graph = onnx.load(str(model.bundle.file(variant.file)), load_external_data=False).graph
        for said, real in (
            (variant.graph.inputs, graph.input),
            (variant.graph.outputs, graph.output),
        ):
            assert [port.name for port in said] == [value.name for value in real], part
            for port, value in zip(said, real, strict=True):
                kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
                assert str(kind) == port.dtype
