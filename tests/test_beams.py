"""Beam search finds transformers' own hypotheses, with its scores, from rows of one cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_families import CASES, END, PAD, UNKNOWN, VOCABULARY, write_bundle

from edgegen import GenerationOptions, Pipeline, Result, load
from edgegen.errors import InputError
from edgegen.export.families import family_of
from edgegen.export.reference import reference_of

Pipelines = Callable[[str], Pipeline]
NEW = 12
WITH_TRUTH = ["t5-tied", "bart", "marian", "whisper"]
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "plain": {"num_beams": 4},
    "long": {"num_beams": 3, "length_penalty": 2.0},
    "short": {"num_beams": 3, "length_penalty": -1.0},
    "early": {"num_beams": 4, "early_stopping": True},
    "never": {"num_beams": 2, "early_stopping": "never", "length_penalty": 1.5},
    "no-repeat": {"num_beams": 4, "no_repeat_ngram_size": 2, "repetition_penalty": 1.3},
}


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Pipelines:
    @cache
    def opened(name: str) -> Pipeline:
        return load(write_bundle(tmp_path_factory.mktemp(name) / "bundle", name))

    return opened


@cache
def model(name: str) -> Any:
    """transformers' own model of a tiny checkpoint."""
    return reference_of(family_of(CASES[name].make())[1]).model  # type: ignore[attr-defined]


def sources(count: int, seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [
        [*map(int, random.integers(3, VOCABULARY, int(random.integers(2, 14)))), END]
        for _ in range(count)
    ]


def options(**said: Any) -> GenerationOptions:
    most = said.get("num_beams", 1)
    return GenerationOptions(**{"max_new_tokens": NEW, "num_return_sequences": most, **said})


def truth(name: str, source: Sequence[int], said: Mapping[str, Any]) -> list[tuple[list[int], float]]:
    """transformers' sequences without prompt and padding, and their scores."""
    with torch.no_grad():
        found = model(name).generate(
            input_ids=torch.tensor([source]),
            max_new_tokens=NEW,
            num_return_sequences=said["num_beams"],
            do_sample=False,
            use_cache=False,  # its own cache has as many layers as the encoder
            return_dict_in_generate=True,
            output_scores=True,
            **said,
        )
    texts: list[tuple[list[int], float]] = []
    for row, score in zip(found.sequences.tolist(), found.sequences_scores.tolist(), strict=True):
        tokens = row[1:]
        ends = [i for i, token in enumerate(tokens) if token == END]
        texts.append((tokens[: ends[0] + 1] if ends else tokens, score))
    return texts


@pytest.mark.parametrize("setting", SETTINGS)
def test_hypotheses_and_scores_are_those_of_transformers(
    pipelines: Pipelines, setting: str
) -> None:
    for source in sources(12, seed=3):
        found = pipelines("t5-tied").generate(source, options(**SETTINGS[setting])).hypotheses
        wanted = truth("t5-tied", source, SETTINGS[setting])
        assert [list(text.tokens) for text in found] == [tokens for tokens, _ in wanted]
        assert np.allclose([t.score for t in found], [s for _, s in wanted], atol=1e-4)
