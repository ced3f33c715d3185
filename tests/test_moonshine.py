"""Speech of any length to a model without a window or times: heard in parts that end in pauses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_families import CASES, write_bundle
from tiny_sources import chirp

from edgegen.errors import CheckpointError
from edgegen.export.families import family_of
from edgegen.export.reference import TransformersReference
from edgegen.runtime.audio import Samples
from edgegen.runtime.opening import load
from edgegen.runtime.options import GenerationOptions
from edgegen.runtime.pauses import pause
from edgegen.runtime.pipeline import Pipeline

RATE = 16000


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    folder = tmp_path_factory.mktemp("moonshine")
    with load(write_bundle(folder / "b", "moonshine")) as loaded:
        yield loaded


def noise(seconds: float, seed: int) -> Samples:
    """Loud and soft by turns, so that the model has something to tell apart."""
    random = np.random.default_rng(seed)
    size = int(seconds * RATE)
    waves = np.sin(np.arange(size) * (0.002 + 0.01 * seed)) * 0.3
    return np.asarray(waves * random.normal(0.5, 0.2, size), np.float32)


@pytest.mark.filterwarnings("ignore:the text from")  # noise makes a tiny model repeat itself
def test_sound_of_any_length_gives_the_tokens_transformers_generates(pipeline: Pipeline) -> None:
    model: Any = TransformersReference(family_of(CASES["moonshine"].make())[1]).model
    texts: set[tuple[int, ...]] = set()
    for seed, seconds in enumerate((0.1, 0.37, 0.7, 1.0, 1.9, 2.71, 4.003, 6.5)):
        sound = noise(seconds, seed)
        found = pipeline.generate(sound).tokens
        # The model card's recipe: six and a half tokens a second, the start token among them.
        most = max(2, int(sound.size * 6.5 / RATE))
        wanted = model.generate(
            torch.from_numpy(sound)[None], max_length=most, do_sample=False, num_beams=1
        )
        assert list(found) == wanted[0, 1:].tolist(), seconds
        texts.add(found[:2])
    assert len(texts) > 3


def test_a_bound_of_one_s_own_replaces_that_of_the_sound(pipeline: Pipeline) -> None:
    options = GenerationOptions(max_new_tokens=20, min_new_tokens=20)
    assert len(pipeline.generate(noise(0.5, 1), options).tokens) == 20
    assert len(pipeline.generate(noise(0.5, 1)).tokens) <= 2


def test_silence_is_not_given_to_the_model(pipeline: Pipeline) -> None:
    result = pipeline.generate(np.zeros(RATE * 3, np.float32))
    assert (result.text, result.tokens, result.timings.passes) == ("", (), ())


def spoken(seconds: float, *pauses: float) -> Samples:
    """A tone with half a second of silence at each of ``pauses``."""
    sound = chirp(int(seconds * RATE)) * np.float32(0.3)
    for at in pauses:
        sound[int(at * RATE) : int((at + 0.5) * RATE)] = 0
    return sound


def test_long_sound_is_cut_in_pauses_and_its_words_stay_apart(pipeline: Pipeline) -> None:
    sound = spoken(50, 5, 24, 41)
    options = GenerationOptions(timestamps=True, max_new_tokens=3)
    result = pipeline.generate(sound, options)
    starts = [one.start for one in result.segments]
    assert starts[0] == 0 and 24 < starts[1] < 24.5
    assert [one.end for one in result.segments] == [starts[1], 50]
    parts = [
        pipeline.generate(sound[int(one.start * RATE) : int(one.end * RATE)], options).text
        for one in result.segments
    ]
    assert result.text == " ".join(parts)
    untimed = pipeline.stream(sound, options.with_changes(timestamps=False))
    assert "".join(untimed) == untimed.result.text == result.text
    assert len(result.timings.passes) == 2


@pytest.mark.parametrize("quiet", [20.0, 24.0, 29.4])
def test_a_cut_lies_in_the_middle_of_the_pause(quiet: float) -> None:
    sound = spoken(30, 3, quiet)
    assert quiet + 0.1 <= pause(sound, RATE) / RATE <= quiet + 0.45


def test_a_cut_of_sound_without_pauses_keeps_two_thirds() -> None:
    for seed in range(5):
        sound = noise(30, seed)
        assert 20 * RATE <= pause(sound, RATE) <= 30 * RATE
    short = noise(0.2, 0)
    assert pause(short, RATE) == short.size


def test_key_heads_are_not_shared() -> None:
    checkpoint = CASES["moonshine"].make()
    said = {"decoder_num_attention_heads": 4, "decoder_num_key_value_heads": 2}
    with pytest.raises(CheckpointError, match="4 decoder heads share 2 key heads"):
        family_of(replace(checkpoint, config={**checkpoint.config, **said}))
