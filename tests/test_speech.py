"""Speech: where windows start, what of their text stands, and what silence says: nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spoken import (
    ENGLISH,
    ENGLISH_ONLY,
    FRENCH,
    RATE,
    START,
    TRANSCRIBE,
    TRANSLATE,
    UNTIMED,
    WINDOW,
    Script,
    at,
    ramp,
    words,
)
from tiny_families import write_bundle

from edgegen.errors import EdgegenWarning, InputError
from edgegen.runtime.audio import Samples
from edgegen.runtime.languages import CODES, NAMES, code_of
from edgegen.runtime.opening import load
from edgegen.runtime.options import GenerationOptions
from edgegen.runtime.recording import Recording
from edgegen.runtime.timestamps import read, settled

soundfile = pytest.importorskip("soundfile")
TIMED = GenerationOptions(timestamps=True)
# Two segments and half a third, whose end the window cuts off.
FIRST = [at(0), *words(" one"), at(1), at(1), *words(" two"), at(2), at(2), *words(" thr")]
SECOND = [at(0), *words(" three"), at(0.8), at(0.8), *words(" four"), at(1.6)]


# ------------------------------------------------------------------ prompts and languages


@pytest.mark.parametrize(
    ("options", "prompt"),
    [
        ({}, [START, FRENCH, TRANSCRIBE, UNTIMED]),
        ({"language": "en"}, [START, ENGLISH, TRANSCRIBE, UNTIMED]),
        ({"language": "English", "task": "translate"}, [START, ENGLISH, TRANSLATE, UNTIMED]),
        ({"timestamps": True}, [START, FRENCH, TRANSCRIBE]),
    ],
)
def test_the_prompt_says_language_task_and_no_timestamps(
    tmp_path: Path, options: dict[str, Any], prompt: list[int]
) -> None:
    script = Script(lines=[[at(0), *words(" a"), at(1)]], language=FRENCH)
    result = script.pipeline(tmp_path / "b").generate(ramp(2), GenerationOptions(**options))
    assert script.prompts == [prompt]
    assert result.language == ("fr" if prompt[1] == FRENCH else "en")


@pytest.mark.parametrize("timed", [False, True])
def test_an_english_model_is_told_neither_language_nor_task(tmp_path: Path, timed: bool) -> None:
    script = Script(lines=[[at(0), *words(" a"), at(1)]], bare=timed)
    pipeline = script.pipeline(tmp_path / "b", ENGLISH_ONLY)
    result = pipeline.generate(ramp(2), GenerationOptions(language="en", timestamps=timed))
    assert script.prompts[-1] == ([START] if timed else [START, UNTIMED])
    assert (result.text, result.language) == ("a", "en")
    for wrong in (GenerationOptions(language="French"), GenerationOptions(task="translate")):
        with pytest.raises(
            InputError, match=r"this model (knows English only|can only transcribe)"
        ):
            pipeline.generate(ramp(2), wrong)


def test_a_language_goes_by_its_code_its_names_and_its_regions() -> None:
    known = {code: 0 for code in NAMES}
    for code, names in NAMES.items():
        assert {code_of(said, known) for said in (code, code.upper(), *names)} == {code}
        assert all(code_of(name.title(), known) == code for name in names)
    assert code_of("pt-BR", known) == code_of("pt_br", known) == "pt"
    assert len(CODES) == sum(map(len, NAMES.values()))
    with pytest.raises(InputError, match="did you mean 'portuguese'"):
        code_of("portugese", known)
    with pytest.raises(InputError, match=r"unknown language 'xx'.*af, am"):
        code_of("xx", known)
    with pytest.raises(InputError, match="Known: de, en"):
        code_of("fr", {"en": 0, "de": 1})


def test_the_first_row_is_computed_once(tmp_path: Path) -> None:
    script = Script(lines=[words(" a")])
    script.pipeline(tmp_path / "b").generate(ramp(2))
    assert script.calls[:2] == [[START], [ENGLISH, TRANSCRIBE, UNTIMED]]


# ------------------------------------------------------------------ windows


def test_the_next_window_starts_at_the_last_pair_of_times(tmp_path: Path) -> None:
    script = Script(lines=[FIRST, SECOND])
    result = script.pipeline(tmp_path / "b").generate(ramp(4), TIMED)
    assert script.starts == [0, 2]
    assert result.text == "one two three four"
    found = [(one.start, one.end, one.text) for one in result.segments]
    assert found == [(0, 1, "one"), (1, 2, "two"), (2, 2.8, "three"), (2.8, 3.6, "four")]
    assert list(result.tokens) == [*FIRST[: FIRST.index(at(2)) + 1], *SECOND, 1]
    assert len(result.timings.passes) == 2
    assert result.timings.audio_seconds == 4


def test_a_long_recording_reads_the_same_without_timestamps(tmp_path: Path) -> None:
    plain = Script(lines=[FIRST, SECOND])
    result = plain.pipeline(tmp_path / "b").generate(ramp(4))
    assert (result.text, plain.starts, result.segments) == ("one two three four", [0, 2], ())


def test_one_time_at_the_end_means_that_nothing_follows(tmp_path: Path) -> None:
    line = [at(0), *words(" a"), at(1), at(1), *words(" b"), at(2)]
    script = Script(lines=[line, [at(0), *words(" c"), at(1)]])
    result = script.pipeline(tmp_path / "b").generate(ramp(4), TIMED)
    assert script.starts == [0, 3]
    found = [(one.start, one.end, one.text) for one in result.segments]
    assert found == [(0, 1, "a"), (1, 2, "b"), (3, 4, "c")]


def test_a_window_without_a_pair_is_one_segment(tmp_path: Path) -> None:
    script = Script(lines=[[at(0.4), *words(" a")], [at(0), *words(" b")]])
    result = script.pipeline(tmp_path / "b").generate(ramp(5.5), TIMED)
    assert script.starts == [0, 3]
    found = [(one.start, one.end, one.text) for one in result.segments]
    assert found == [
        (0, 0.4, "a"),
        (3, 5.5, "b"),
    ]  # a time alone is its end, as transformers has it


def test_no_segment_ends_after_the_recording(tmp_path: Path) -> None:
    script = Script(lines=[[at(0), *words(" a"), at(2.9)]])
    result = script.pipeline(tmp_path / "b").generate(ramp(1.5), TIMED)
    assert [one.end for one in result.segments] == [1.5]


def test_a_rest_too_short_for_a_word_is_not_heard(tmp_path: Path) -> None:
    script = Script(lines=[[at(0), *words(" a"), at(3)]])
    result = script.pipeline(tmp_path / "b").generate(ramp(3.09))
    assert (len(script.heard), result.text) == (1, "a")
    assert result.timings.audio_seconds == pytest.approx(3.09)


def test_what_is_cut_off_leaves_no_log_probabilities(tmp_path: Path) -> None:
    script = Script(lines=[FIRST, SECOND])
    options = GenerationOptions(timestamps=True, logprobs=0)
    result = script.pipeline(tmp_path / "b").generate(ramp(4), options)
    assert len(result.logprobs) == len(result.tokens)


# ------------------------------------------------------------------ streaming


def test_segments_are_shown_as_they_close(tmp_path: Path) -> None:
    script = Script(lines=[FIRST, SECOND])
    stream = script.pipeline(tmp_path / "b").stream(ramp(4))
    seen = [(piece, len(script.heard)) for piece in stream]
    assert seen == [("one", 1), (" two", 1), (" three", 2), (" four", 2)]
    assert "".join(piece for piece, _ in seen) == stream.result.text


def test_one_window_is_shown_by_the_token(tmp_path: Path) -> None:
    stream = Script(lines=[words(" hé!")]).pipeline(tmp_path / "b").stream(ramp(2))
    assert list(stream) == ["h", "é", "!"]


def test_closing_a_stream_ends_the_work(tmp_path: Path) -> None:
    script = Script(lines=[FIRST, SECOND])
    stream = script.pipeline(tmp_path / "b").stream(ramp(4))
    assert next(stream) == "one"
    calls = len(script.calls)
    stream.close()
    assert list(stream) == []
    assert (len(script.heard), len(script.calls)) == (1, calls)


@pytest.mark.parametrize("stop", ["thr", "o thr", "wo"])
def test_a_stop_string_ends_the_whole_text(tmp_path: Path, stop: str) -> None:
    script = Script(lines=[FIRST, SECOND])
    options = GenerationOptions(timestamps=True, stop=(stop,))
    stream = script.pipeline(tmp_path / "b").stream(ramp(4), options)
    assert "".join(stream) == stream.result.text == "one two thr".split(stop)[0]
    assert stream.result.finish_reason == "stop_string"
    assert len(script.heard) == 1
    shown = " ".join(one.text for one in stream.result.segments)
    assert shown == stream.result.text.strip()


# ------------------------------------------------------------------ silence


def test_silence_is_not_given_to_the_model(tmp_path: Path) -> None:
    script = Script(lines=[[at(0), *words(" a"), at(1)]])
    samples = np.concatenate([np.zeros(2 * WINDOW, np.float32), ramp(2)])
    result = script.pipeline(tmp_path / "b").generate(samples, TIMED)
    assert script.starts == [0]
    assert [(one.start, one.end) for one in result.segments] == [(6, 7)]
    nothing = script.pipeline(tmp_path / "c").generate(np.zeros(RATE, np.float32))
    assert (nothing.text, nothing.tokens, nothing.language) == ("", (), None)
    assert len(script.heard) == 1
    assert nothing.timings.passes == ()


def test_sound_too_faint_to_be_heard_is_spoken_of(tmp_path: Path) -> None:
    pipeline = Script(lines=[]).pipeline(tmp_path / "b")
    with pytest.warns(EdgegenWarning, match="-60 dBFS"):
        result = pipeline.generate(ramp(2) / 10_000)
    assert result.text == ""


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize(
    ("nobody", "sure", "text"),
    [(0.7, -2.5, ""), (0.7, -0.5, "a"), (0.5, -2.5, "a")],
    ids=["nobody and unsure", "sure all the same", "somebody"],
)
def test_a_window_is_dropped_when_nobody_speaks_and_the_text_is_unlikely(
    tmp_path: Path, nobody: float, sure: float, text: str, timed: bool
) -> None:
    line = [at(0), *words(" a"), at(1)] if timed else words(" a")
    script = Script(lines=[line], nobody={0: nobody}, sure={0: sure})
    stream = script.pipeline(tmp_path / "b").stream(ramp(2), GenerationOptions(timestamps=timed))
    pieces = list(stream)
    assert (pieces, stream.result.text) == ([text] if text else [], text)
    assert bool(stream.result.tokens) is bool(text)
    assert stream.result.logprobs == ()
    assert stream.result.finish_reason == "stop"
    assert len(stream.result.timings.passes) == 1


def test_a_loop_where_nobody_speaks_is_no_text(tmp_path: Path) -> None:
    script = Script(lines=[words(" la" * 40)], nobody={0: 0.7}, sure={0: -0.01})
    assert script.pipeline(tmp_path / "b").generate(ramp(2)).text == ""


def test_a_loop_where_somebody_speaks_is_warned_of(tmp_path: Path) -> None:
    pipeline = Script(lines=[words(" la" * 40)]).pipeline(tmp_path / "b")
    with pytest.warns(EdgegenWarning, match="from 0.00 s to 2.00 s repeats itself"):
        result = pipeline.generate(ramp(2))
    assert result.text == ("la " * 40).strip()
    assert len(result.warnings) == 1


def test_a_window_of_nothing_does_not_decide_the_language(tmp_path: Path) -> None:
    script = Script(
        lines=[words(" um"), [at(0), *words(" a"), at(1)]],
        nobody={0: 0.9},
        sure={0: -3},
        languages={0: FRENCH},
    )
    result = script.pipeline(tmp_path / "b").generate(ramp(5), TIMED)
    assert [prompt[1] for prompt in script.prompts] == [FRENCH, ENGLISH]
    assert (result.language, result.text) == ("en", "a")


# ------------------------------------------------------------------ sources


def test_files_arrays_and_blocks_are_one_recording(tmp_path: Path) -> None:
    script = Script(lines=[FIRST, SECOND] * 3)
    pipeline = script.pipeline(tmp_path / "b")
    soundfile.write(tmp_path / "a.wav", ramp(4), RATE, subtype="FLOAT")
    wanted = pipeline.generate(ramp(4)).text
    assert pipeline.generate(tmp_path / "a.wav").text == wanted
    assert pipeline.generate(str(tmp_path / "a.wav")).text == wanted
    assert script.starts == [0, 2] * 3


@pytest.mark.parametrize("source", [[1, 2, 3], [{"role": "user", "content": "a"}], np.zeros(0)])
def test_what_is_no_sound_is_refused_in_one_line(tmp_path: Path, source: Any) -> None:
    with pytest.raises(InputError) as fault:
        Script(lines=[]).pipeline(tmp_path / "b").generate(source)
    assert "\n" not in str(fault.value)


@given(st.lists(st.integers(0, 9), max_size=12), st.lists(st.integers(1, 12), max_size=8))
def test_a_recording_is_its_parts_joined(sizes: list[int], steps: list[int]) -> None:
    whole = np.arange(sum(sizes), dtype=np.float32)
    parts = np.split(whole, np.cumsum(sizes)[:-1]) if sizes else []
    recording, position = Recording(parts, 7), 0
    for step in [0, *steps]:
        position += step
        assert recording.goes_beyond(position) is (position < whole.size)
        assert recording.window(position).tolist() == whole[position : position + 7].tolist()
        assert recording.heard <= whole.size


# ------------------------------------------------------------------ times


@given(st.lists(st.integers(0, 20), min_size=1, max_size=30), st.integers(1, 15), st.booleans())
def test_every_reading_moves_on_and_its_segments_tile_what_stands(
    tokens: list[int], steps: int, stopped: bool
) -> None:
    reading = read(tokens, 8, steps, stopped=stopped)
    assert reading.advance > 0
    assert reading.spans[0].first == 0
    assert reading.spans[-1].last == reading.kept <= len(tokens)
    assert all(a.last == b.first for a, b in zip(reading.spans, reading.spans[1:], strict=False))
    assert all(0 <= span.start <= span.end for span in reading.spans)
    assert not stopped or reading.kept == len(tokens)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=30))
def test_a_settled_segment_stays(tokens: list[int]) -> None:
    whole = read(tokens, 8, 50).spans
    for end in range(1, len(tokens)):
        early = settled(tokens[:end], 8)
        assert whole[: len(early)] == early


# ------------------------------------------------------------------ a model of random weights


def noise(seed: int) -> Samples:
    return np.random.default_rng(seed).normal(0, 0.1, 16000 * (5 + 9 * seed)).astype(np.float32)


def test_threads_share_a_pipeline(tmp_path: Path) -> None:
    with load(write_bundle(tmp_path / "b", "whisper")) as pipeline:

        def tokens(sound: Samples) -> tuple[int, ...]:
            return pipeline.generate(sound, GenerationOptions(max_new_tokens=12)).tokens

        sounds = [noise(seed) for seed in range(4)]
        alone = [tokens(sound) for sound in sounds]
        with ThreadPoolExecutor(4) as threads:
            shared = list(threads.map(tokens, sounds))
    assert shared == alone
    assert len(set(alone)) == len(alone)
