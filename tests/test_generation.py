"""The loop's laws on real graphs: the text never depends on who drafts, or on how much."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from fakes import Adversary, Forest, Oracle
from tiny_families import VOCABULARY, write_bundle

from edgegen.bundle import Bundle
from edgegen.devices import DeviceOptions, device_named
from edgegen.export.options import Format
from edgegen.runtime.budget import Fixed
from edgegen.runtime.decoder import PREFILL_CHUNK
from edgegen.runtime.drafters import DRAFTERS as TABLE
from edgegen.runtime.drafters.base import Drafter
from edgegen.runtime.drafters.lookup import Lookup
from edgegen.runtime.engine import Engine, Memory
from edgegen.runtime.generation import Step
from edgegen.runtime.options import GenerationOptions
from edgegen.runtime.speculative import SpeculativeDecoding

DEVICES: dict[Format, str] = {"onnx": "ort-cpu", "openvino": "ov-cpu"}
SETUPS: list[tuple[str, Format]] = [
    ("t5-tied", "onnx"),
    ("t5-untied-gated", "onnx"),
    ("whisper", "onnx"),
    ("marian-ssru", "onnx"),
    ("llama-grouped", "onnx"),
    ("gemma3", "onnx"),
    ("t5-tied", "openvino"),
    ("marian-ssru", "openvino"),
]
NEW = 40


@dataclass(frozen=True)
class Setup:
    """An engine, a source it has read, and the prompt its decoder starts from."""

    engine: Engine
    memory: Memory | None
    source: list[int]
    prompt: list[int]

    def steps(
        self, options: GenerationOptions, drafter: Drafter | None = None, nodes: int = 8
    ) -> list[Step]:
        """Every step of one generation; ``drafter`` in place of the options' own."""
        decoder = self.engine.decoder(self.memory)
        generation = self.engine.generation(decoder, options, prompt_length=len(self.prompt))
        if drafter is not None:
            assert isinstance(generation, SpeculativeDecoding)
            generation.drafter, generation.budget = drafter, Fixed(nodes)
        return list(generation.run(self.prompt, self.source))


Setups = Callable[[tuple[str, Format]], Setup]


@pytest.fixture(scope="module")
def setups(tmp_path_factory: pytest.TempPathFactory) -> Setups:
    @cache
    def setup(key: tuple[str, Format]) -> Setup:
        name, form = key
        folder = tmp_path_factory.mktemp("bundle") / "b"
        bundle = Bundle.open(write_bundle(folder, name, formats=(form,)))
        engine = Engine(bundle, device_named(DEVICES[form]), DeviceOptions())
        start = list(bundle.manifest.generation.start)
        if bundle.manifest.speech is not None:
            wave = np.sin(np.arange(480000) * 0.05).astype(np.float32)
            return Setup(engine, engine.remember_samples(wave), [], start)
        source = ids(12, seed=7)
        if "encode" in engine.variants:
            return Setup(engine, engine.remember_ids([*source, 1]), source, start)
        return Setup(engine, None, [], source)

    return setup


@pytest.fixture(params=SETUPS, ids=lambda key: "-".join(key))
def setup(request: pytest.FixtureRequest, setups: Setups) -> Setup:
    return setups(request.param)


def ids(count: int, seed: int = 0) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).integers(3, VOCABULARY, count)]


def tokens_of(steps: Sequence[Step]) -> list[int]:
    return [token for step in steps for token in step.tokens]


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"do_sample": True, "temperature": 1.3, "top_k": 40, "seed": 11},
    "sampled-with-cuts": {"do_sample": True, "top_p": 0.9, "min_p": 0.01, "seed": 2**63},
    "penalties": {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "min_new_tokens": NEW},
    "forced": {"forced": ((0, 5), (9, 17), (10, 17)), "bad_words_ids": ((17, 17), (5,))},
}
DRAFTERS: dict[str, Callable[[list[int], int], Drafter]] = {
    "lookup": lambda text, seed: Lookup(frozenset([1])),
    "oracle": lambda text, seed: Oracle(text),
    "adversary": lambda text, seed: Adversary(VOCABULARY, seed),
    "forest": lambda text, seed: Forest(text, VOCABULARY, seed),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("drafter", DRAFTERS)
def test_the_text_never_depends_on_the_drafter(setup: Setup, way: str, drafter: str) -> None:
    options = GenerationOptions(max_new_tokens=NEW, logprobs=0, **WAYS[way])
    plain = setup.steps(options)
    text = tokens_of(plain)
    for nodes in (1, 5, 12):
        made = DRAFTERS[drafter]([*setup.prompt, *text], nodes)
        steps = setup.steps(options, made, nodes)
        assert tokens_of(steps) == text
        assert steps[-1].cut.reason == plain[-1].cut.reason
        assert all(step.drafted <= nodes for step in steps)
        scores = [score.logprob for step in steps for score in step.scores]
        alone = [score.logprob for step in plain for score in step.scores]
        np.testing.assert_allclose(scores, alone, atol=1e-4)


@pytest.mark.parametrize("way", ["greedy", "sampled", "penalties"])
@pytest.mark.parametrize("draft", [name for name in TABLE if name not in ("none", "model")])
@pytest.mark.parametrize("name", ["t5-tied", "marian-ssru", "gemma3"])
def test_nor_on_any_drafter_of_the_table(name: str, draft: str, way: str, setups: Setups) -> None:
    setup = setups((name, "onnx"))
    options = GenerationOptions(max_new_tokens=NEW, **WAYS[way])
    drafted = options.with_changes(draft=draft, num_assistant_tokens=6)
    assert tokens_of(setup.steps(drafted)) == tokens_of(setup.steps(options))


def test_plain_steps_emit_a_token_each_and_the_first_reads_the_prompt(setup: Setup) -> None:
    steps = setup.steps(GenerationOptions(max_new_tokens=NEW))
    assert [len(step.tokens) for step in steps] == [1] * len(steps)
    assert [step.rows for step in steps] == [len(setup.prompt)] + [1] * (len(steps) - 1)
    assert all(step.drafted == 0 and step.draft_seconds >= 0 for step in steps)


def test_an_oracle_s_drafts_stand_whole(setup: Setup) -> None:
    options = GenerationOptions(max_new_tokens=NEW)
    text = tokens_of(setup.steps(options))
    steps = setup.steps(options, Oracle([*setup.prompt, *text]), 7)
    assert [step.accepted for step in steps] == [step.drafted for step in steps]
    assert len(steps) == -(-len(text) // 8)


def test_a_forest_s_hidden_path_is_found(setup: Setup) -> None:
    options = GenerationOptions(max_new_tokens=NEW)
    text = tokens_of(setup.steps(options))
    steps = setup.steps(options, Forest([*setup.prompt, *text], VOCABULARY), 8)
    assert sum(step.accepted for step in steps) > NEW // 3
    assert len(steps) < len(text) // 2


def test_the_same_seed_draws_the_same_and_another_does_not(setup: Setup) -> None:
    def text(seed: int) -> list[int]:
        options = GenerationOptions(max_new_tokens=NEW, do_sample=True, temperature=2.0, seed=seed)
        return tokens_of(setup.steps(options))

    assert text(3) == text(3)
    assert text(3) != text(4)


# -------------------------------------------------------------------- where a text may end


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 17])
def test_a_limit_inside_an_accepted_path_cuts_there(setup: Setup, length: int) -> None:
    text = tokens_of(setup.steps(GenerationOptions(max_new_tokens=NEW)))
    steps = setup.steps(GenerationOptions(max_new_tokens=length), Oracle([*setup.prompt, *text]), 7)
    assert tokens_of(steps) == text[:length]
    assert steps[-1].cut.reason == ("length" if len(text) > length or text[-1] != 1 else "stop")


@pytest.mark.parametrize("at", [0, 3, 4, 9])
def test_an_end_inside_an_accepted_path_ends_the_text(setup: Setup, at: int) -> None:
    """An end token is forced, and the oracle drafts on beyond it."""
    end = setup.engine.manifest.generation.end[0]
    options = GenerationOptions(max_new_tokens=NEW, forced=((at, end),), min_new_tokens=NEW)
    plain = setup.steps(options)
    assert (len(tokens_of(plain)), plain[-1].cut.reason) == (at + 1, "stop")
    drafted = [*setup.prompt, *tokens_of(plain), *ids(20)]
    steps = setup.steps(options, Oracle(drafted), 7)
    assert tokens_of(steps) == tokens_of(plain)
    assert steps[-1].cut.reason == "stop"


@pytest.mark.parametrize("least", [1, 5, 12])
def test_no_end_before_the_least_length(setup: Setup, least: int) -> None:
    """Drafts full of ends are all refused until then."""
    end = setup.engine.manifest.generation.end[0]
    options = GenerationOptions(max_new_tokens=least, min_new_tokens=least)
    steps = setup.steps(options, Oracle([*setup.prompt, *[end] * 40]), 7)
    assert len(tokens_of(steps)) == least and end not in tokens_of(steps)


@pytest.mark.parametrize("key", [("whisper", "onnx"), ("gemma3", "onnx")], ids=lambda k: k[0])
def test_positions_are_used_up_and_never_exceeded(
    key: tuple[str, Format], setups: Setups, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """96 positions of Whisper, 96 of a Gemma cut short: the last token needs none."""
    if key[0] == "whisper":
        setup = setups(key)
    else:
        folder = write_bundle(tmp_path_factory.mktemp("b") / "b", "gemma3",
                              defaults={"max_positions": 96})  # fmt: skip
        engine = Engine(Bundle.open(folder), device_named("ort-cpu"), DeviceOptions())
        setup = Setup(engine, None, [], ids(12))
    options = GenerationOptions(max_new_tokens=500, min_new_tokens=500)
    text = tokens_of(setup.steps(options))
    assert len(setup.prompt) + len(text) == 97
    for drafter in (Oracle([*setup.prompt, *text]), Forest([*setup.prompt, *text], VOCABULARY)):
        assert tokens_of(setup.steps(options, drafter, 9)) == text


# ----------------------------------------------------------------------------- long prompts


@pytest.mark.parametrize("name", ["llama-grouped", "gemma3"])
@pytest.mark.parametrize("length", [PREFILL_CHUNK, PREFILL_CHUNK + 1, 2 * PREFILL_CHUNK + 90])
def test_a_prefill_in_chunks_is_one_prefill(name: str, length: int, setups: Setups) -> None:
    engine = setups((name, "onnx")).engine
    prompt = ids(length, seed=3)
    setup = Setup(engine, None, [], prompt)
    steps = setup.steps(GenerationOptions(max_new_tokens=6))
    assert steps[0].rows <= PREFILL_CHUNK
    decoder = engine.decoder()
    text: list[int] = []
    for _ in range(6):
        logits = decoder.forward([*prompt, *text], first_row=length + len(text) - 1).logits
        decoder.keep(0)
        text.append(int(logits[-1].argmax()))
    assert tokens_of(steps) == text
