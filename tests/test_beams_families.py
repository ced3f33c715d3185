"""Beam search of every kind of encoder-decoder finds transformers' texts, whatever the penalty."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from beam_truth import TIE, Scored, margins, options, searched, sources, truth
from numpy.typing import NDArray
from tiny_families import END, VOCABULARY, write_bundle
from transformers import WhisperFeatureExtractor

from edgegen import Pipeline, load
from edgegen.runtime.generation import Hypothesis
from edgegen.runtime.result import ScoredText

Pipelines = Callable[[str], Pipeline]
Text = Hypothesis | ScoredText
TEXTS = (
    "bart", "mbart", "pegasus", "m2m_100", "marian", "blenderbot",
    "t5-tied", "t5-untied-gated", "mt5",
)  # fmt: skip
# Random weights seldom end a text, and one that ends nowhere proves little: many words end it.
ENDS = (END, *range(6, VOCABULARY, 4))
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "four": {"num_beams": 4},
    "long": {"num_beams": 3, "length_penalty": 2.0},
    "short": {"num_beams": 3, "length_penalty": -1.0},
    "sums": {"num_beams": 5, "length_penalty": 0.0},
    "early": {"num_beams": 4, "early_stopping": True, "length_penalty": 0.6},
    "never": {"num_beams": 2, "early_stopping": "never", "length_penalty": 1.5},
    "rules": {"num_beams": 4, "no_repeat_ngram_size": 2, "repetition_penalty": 1.3},
}


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Pipelines:
    @cache
    def opened(name: str) -> Pipeline:
        folder = tmp_path_factory.mktemp(name) / "bundle"
        return load(write_bundle(folder, name, defaults={"end": ENDS}))

    return opened


def agree(found: Sequence[Text], wanted: Scored) -> None:
    """The same texts in the same order, scores within 1e-4 (and of their size above 1)."""
    assert [list(text.tokens) for text in found] == [tokens for tokens, _ in wanted]
    scores = [text.score for text in found]
    assert np.allclose(scores, [score for _, score in wanted], rtol=1e-4, atol=1e-4)


def check(
    found: Sequence[Text],
    name: str,
    given: Mapping[str, Any],
    said: Mapping[str, Any],
    prompt: Sequence[int] | None = None,
) -> bool:
    """Hold a search against transformers' own; False where that had to choose among equals."""
    with margins(name, ENDS) as apart:
        wanted = truth(name, given, said, prompt, ENDS)
    if min(apart) < TIE:
        return False
    agree(found, wanted)
    return True


def of_texts(pipeline: Pipeline, name: str, count: int, said: Mapping[str, Any]) -> int:
    """Sources of ragged lengths whose hypotheses were held against transformers'."""
    return sum(
        check(
            pipeline.generate(source, options(**said)).hypotheses,
            name,
            {"input_ids": torch.tensor([source])},
            said,
        )
        for source in sources(count, seed=len(said))
    )


@pytest.mark.parametrize("name", TEXTS)
def test_texts_are_those_of_transformers(pipelines: Pipelines, name: str) -> None:
    assert sum(of_texts(pipelines(name), name, 1, said) for said in SETTINGS.values()) > 4


@pytest.mark.slow
@pytest.mark.parametrize("name", TEXTS)
def test_many_texts_are_those_of_transformers(pipelines: Pipelines, name: str) -> None:
    assert sum(of_texts(pipelines(name), name, 20, said) for said in SETTINGS.values()) > 125


# ------------------------------------------------------------------------- speech


def sounds(pipeline: Pipeline, count: int) -> Iterator[NDArray[np.float32]]:
    """Windows of chirps in noise, which tiny weights hear apart."""
    speech = pipeline.bundle.manifest.speech
    assert speech is not None
    random, time = np.random.default_rng(8), np.arange(speech.window_samples) / speech.sample_rate
    for _ in range(count):
        start, rise, noise = random.uniform(80, 800), random.uniform(-20, 200), random.uniform()
        chirp = np.sin(2 * np.pi * time * (start + rise * time))
        yield (0.3 * chirp + 0.05 * noise * random.normal(size=time.size)).astype(np.float32)


def heard(pipeline: Pipeline, samples: NDArray[np.float32], said: Any) -> Sequence[Hypothesis]:
    """One window's hypotheses, without the rules of long speech around them."""
    engine, prompt = pipeline.engine, pipeline.bundle.manifest.generation.start
    memory = engine.remember_samples(samples)
    decoder = engine.decoder(memory, said)
    search = engine.generation(decoder, said, prompt_length=len(prompt), memory=memory)
    return [text for turn in search.run(prompt) for text in turn.hypotheses]


def of_sounds(pipeline: Pipeline, count: int, said: Mapping[str, Any]) -> int:
    rules = {"suppress_tokens": [7, 8], "begin_suppress_tokens": [9]}
    prompt = pipeline.bundle.manifest.generation.start
    make: Any = WhisperFeatureExtractor
    spectrogram = make()
    return sum(
        check(
            heard(pipeline, samples, options(**said)),
            "whisper",
            spectrogram(samples, sampling_rate=16000, return_tensors="pt"),
            {**said, **rules},
            prompt,
        )
        for samples in sounds(pipeline, count)
    )


def test_speech_is_heard_as_transformers_hears_it(pipelines: Pipelines) -> None:
    assert sum(of_sounds(pipelines("whisper"), 1, said) for said in SETTINGS.values()) > 4


@pytest.mark.slow
def test_much_speech_is_heard_as_transformers_hears_it(pipelines: Pipelines) -> None:
    assert sum(of_sounds(pipelines("whisper"), 10, said) for said in SETTINGS.values()) > 60


# --------------------------------------------------------------- recurrent decoders


def of_states(pipeline: Pipeline, count: int, penalty: float) -> None:
    """Marian's recurrent decoder, which transformers has not, against the book."""
    said = options(num_beams=3, length_penalty=penalty)
    start = pipeline.bundle.manifest.generation.start
    for source in sources(count, seed=11):
        found = pipeline.generate(source, said).hypotheses
        agree(found, searched("marian-ssru", {"input_ids": source}, start, said, ENDS))


PENALTIES = (-1.0, 0.0, 0.6, 1.0, 2.0)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_states_follow_their_parents(pipelines: Pipelines, penalty: float) -> None:
    of_states(pipelines("marian-ssru"), 1, penalty)


@pytest.mark.slow
@pytest.mark.parametrize("penalty", PENALTIES)
def test_many_states_follow_their_parents(pipelines: Pipelines, penalty: float) -> None:
    of_states(pipelines("marian-ssru"), 20, penalty)


@pytest.mark.parametrize("name", [*TEXTS, "marian-ssru"])
def test_the_penalty_matters_in_what_is_compared(pipelines: Pipelines, name: str) -> None:
    """Were all texts of one length, no penalty would be put to the proof."""
    short, long = (
        [pipelines(name).generate(source, said).text for source in sources(6)]
        for said in (options(num_beams=3, length_penalty=penalty) for penalty in (-1.0, 2.0))
    )
    assert short != long
