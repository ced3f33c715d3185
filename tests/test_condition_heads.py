"""A classifier of a condition: trained on the model's own texts, carried by the bundle, asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pytest
from tiny_families import CASES, END, VOCABULARY, WORDS, write_bundle
from typer.testing import CliRunner

from edgegen import GenerationOptions, Pipeline, load
from edgegen.bundle import Bundle
from edgegen.cli import app
from edgegen.errors import BundleError, ExportError, InputError
from edgegen.export.families import family_of
from edgegen.export.heads.condition import Head, HeadOptions, add, fit, log_probability, model_of
from edgegen.runtime.conditioning import HIDDEN_TAP
from edgegen.runtime.conditions import repeats, runs
from edgegen.runtime.observing import observe

CONDITION = "not-repetitive"


def sources(count: int, seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [
        [*map(int, random.integers(3, VOCABULARY, int(random.integers(2, 14)))), END]
        for _ in range(count)
    ]


def options(**said: Any) -> GenerationOptions:
    given: dict[str, Any] = {"max_new_tokens": 16, "num_beams": 4, **said}
    return GenerationOptions(**given)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(
        tmp_path_factory.mktemp("t5") / "bundle", "t5-tied", taps=("topk", "hidden")
    )


def constant(width: int, logit: float) -> Head:
    """Says the same of every text."""
    weights = {
        "inner.weight": np.zeros((width, 4), np.float32),
        "inner.bias": np.zeros(4, np.float32),
        "outer.weight": np.zeros((4, 1), np.float32),
        "outer.bias": np.full(1, logit, np.float32),
    }
    return Head(weights, 0.0, 0.0)


def with_head(bundle: Path, head: Head, output: Path, condition: str = CONDITION) -> Pipeline:
    opened = Bundle.open(bundle)
    decode = opened.component("decode").variants[0]
    add(opened, decode, condition, head, output)
    return load(output)


@pytest.mark.parametrize("name", CASES)
def test_every_decoder_gives_the_state_its_logits_are_made_of(tmp_path: Path, name: str) -> None:
    """The port's width is the state's, and the graph with the tap loads."""
    if "decode" not in family_of(CASES[name].make())[1].graph_names():
        pytest.skip("no decoder")
    write_bundle(tmp_path / "b", name, taps=("hidden",))
    opened = Bundle.open(tmp_path / "b")
    tapped = opened.component("decode").variants[1]
    session = onnxruntime.InferenceSession(opened.file(tapped.file))
    port = next(port for port in tapped.graph.outputs if port.name == "hidden")
    seen = next(one for one in session.get_outputs() if one.name == "hidden")
    assert seen.shape[-1] == port.shape[-1]


def test_the_graph_computes_what_training_saw() -> None:
    random = np.random.default_rng(0)
    hidden = random.normal(size=(600, 12), loc=3.0, scale=5.0).astype(np.float32)
    holds = hidden[:, 0] > 3
    head = fit(hidden, holds, np.repeat(np.arange(60), 10), HeadOptions(batch=32))
    assert head.loss < head.base_loss / 2
    session = onnxruntime.InferenceSession(model_of(head.weights).SerializeToString())
    said: Any = session.run(None, {"hidden": hidden})[0]
    assert said.shape == (600,)
    assert np.allclose(said, log_probability(hidden, head.weights), atol=1e-4)


def test_nothing_is_learned_where_all_labels_are_alike() -> None:
    hidden = np.zeros((20, 4), np.float32)
    with pytest.raises(ExportError, match="nothing to learn"):
        fit(hidden, np.ones(20, np.bool_), np.arange(20), HeadOptions())


def test_a_constant_graph_is_beam_search(bundle: Path, tmp_path: Path) -> None:
    """Candidates are fed before they compete; more rows in a call may round otherwise."""
    lenient = "not-repetitive:0.999"
    with load(bundle) as plain:
        width = plain.engine.variants[HIDDEN_TAP].graph.outputs[-1].shape[-1]
        pipeline = with_head(bundle, constant(int(width), 200.0), tmp_path / "b", lenient)
        for source in sources(10):
            said = options(num_return_sequences=4)
            wanted = plain.generate(source, said).hypotheses
            asked = said.with_changes(condition=lenient)
            found = pipeline.generate(source, asked).hypotheses
            assert [text.tokens for text in found] == [text.tokens for text in wanted]
            assert np.allclose([t.score for t in found], [t.score for t in wanted], atol=1e-5)
    assert {HIDDEN_TAP, "condition-0"} <= set(pipeline.engine.compile_seconds)


def test_the_command_trains_and_no_text_repeats_itself(bundle: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    lines = [" ".join(random.choice(WORDS, int(random.integers(2, 12)))) for _ in range(30)]
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    asked = ["condition", str(bundle), "--condition", CONDITION, "-o", str(tmp_path / "b")]
    asked += ["--sources", str(tmp_path / "lines.txt"), "--samples", "200", "--json"]
    result = CliRunner().invoke(app, [*asked, "--max-new-tokens", "16", "--temperature", "0.1"])
    assert result.exit_code == 0, result.output
    learned = json.loads(result.stdout)
    assert 0 < learned["held"] < 1 and learned["loss"] < learned["base_loss"]

    def bad(pipeline: Pipeline, condition: str | None) -> int:
        texts = [pipeline.generate(one, options(condition=condition)).tokens for one in sources(20)]
        words = [[token for token in tokens if token != END] for tokens in texts]
        return sum(repeats(one) > 0.2 * runs(len(one)) for one in words)

    with load(tmp_path / "b") as pipeline:
        assert bad(pipeline, None) > 2
        assert bad(pipeline, CONDITION) == 0
        assert "condition-0" in pipeline.engine.compile_seconds


def test_states_observed_are_those_the_decoder_had(bundle: Path) -> None:
    """One row a beginning: the empty text's and each token's but the last, which is never fed."""
    with load(bundle) as pipeline:
        seen = observe(pipeline, sources(3), options(condition=CONDITION, seed=5), samples=4)
        texts = [
            pipeline.generate(
                sources(3)[i % 3], options(num_beams=1, do_sample=True, seed=5 + i, draft="none")
            ).tokens
            for i in range(4)
        ]
    assert np.bincount(seen.text).tolist() == [len(tokens) for tokens in texts]
    assert len(seen.hidden) == len(seen.holds) == len(seen.text)


def test_a_head_is_asked_for_its_own_condition_and_decoder_alone(
    bundle: Path, tmp_path: Path
) -> None:
    with load(bundle) as plain:
        width = int(plain.engine.variants[HIDDEN_TAP].graph.outputs[-1].shape[-1])
    pipeline = with_head(bundle, constant(width, 1.0), tmp_path / "b")
    pipeline.generate(sources(1)[0], options(condition="length:2-9"))
    assert "condition-0" not in pipeline.engine.compile_seconds
    pipeline.generate(sources(1)[0], options(condition=f"length:2-9+{CONDITION}"))
    assert "condition-0" in pipeline.engine.compile_seconds
    again = with_head(tmp_path / "b", constant(width, 2.0), tmp_path / "b")
    assert [one.component for one in again.bundle.manifest.conditions] == ["condition-0"]


def test_a_bundle_without_hidden_states_says_how_to_get_them(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b", "t5-tied")
    with load(tmp_path / "b") as pipeline, pytest.raises(InputError, match="--taps hidden"):
        observe(pipeline, sources(1), options(condition=CONDITION), samples=1)


def test_a_condition_names_a_component_there_is(bundle: Path, tmp_path: Path) -> None:
    with load(bundle) as plain:
        width = int(plain.engine.variants[HIDDEN_TAP].graph.outputs[-1].shape[-1])
    with_head(bundle, constant(width, 1.0), tmp_path / "b").close()
    path = tmp_path / "b" / "edgegen.json"
    manifest = json.loads(path.read_bytes())
    manifest["conditions"][0]["component"] = "conditoin"
    path.write_bytes(msgspec.json.encode(manifest))
    with pytest.raises(BundleError, match="names no component conditoin"):
        load(tmp_path / "b")
