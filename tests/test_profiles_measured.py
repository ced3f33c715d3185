"""Profiles of a tiny bundle, really measured: cases, turns, stages; and bad asks are one line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgegen.bundle import Bundle
from edgegen.errors import EdgegenError, InputError
from edgegen.profiles import Profile, profile
from edgegen.profiles.record import Case
from edgegen.profiles.summary import longest
from edgegen.profiles.workload import Workload, jobs
from edgegen.runtime.tokenizer import ByteTokenizer


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5 of a few kilobytes whose tokens are bytes, exported."""
    from tiny import tiny_t5_model

    from edgegen.export.build import export
    from edgegen.export.options import ExportOptions

    folder = tmp_path_factory.mktemp("tiny")
    tiny_t5_model().save_pretrained(folder / "checkpoint")
    (folder / "checkpoint" / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "ByT5Tokenizer"}'
    )
    export(ExportOptions(model=str(folder / "checkpoint"), output=folder / "tiny-t5", parity=False))
    return folder / "tiny-t5"


@pytest.fixture(scope="module")
def measured(bundle: Path) -> Profile:
    """Measured in a process of its own."""
    return profile(
        [bundle], prompts=(20, 9), new_tokens=6, repetitions=2, drafters=("lookup",),
        texts=("The train leaves.", "At nine."),
    )  # fmt: skip


def cases(found: Profile) -> Sequence[Case]:
    return found.runs[0].cases


def test_every_length_and_the_texts_are_cases(measured: Profile) -> None:
    assert [case.name for case in cases(measured)] == ["p9 n6", "p20 n6", "2 texts"]


def test_prompts_and_outputs_have_exactly_the_length_asked_for(measured: Profile) -> None:
    for case in cases(measured)[:2]:
        for one in case.requests:
            assert [part.source_tokens for part in one.passes] == [case.prompt_tokens]
            assert len(one.tokens) == case.new_tokens == 6


def test_plain_decoding_is_measured_in_turns_with_every_drafter(measured: Profile) -> None:
    found = cases(measured)[0]
    assert found.drafters == ("none", "lookup")
    order = [(one.repetition, one.drafter) for one in found.requests]
    assert order == [
        (-1, "none"), (-1, "lookup"), (0, "lookup"), (0, "none"), (1, "none"), (1, "lookup"),
    ]  # fmt: skip


def test_the_drafter_changed_no_token(measured: Profile) -> None:
    rows = [summary.row() for summary in measured.summaries]
    assert all(row["repeatable"] for row in rows)
    assert {row["identical_to_plain"] for row in rows if row["drafter"] == "lookup"} == {True}


def test_no_stage_outlasts_its_request(measured: Profile) -> None:
    for case in cases(measured):
        for one in case.requests:
            spent = sum(
                part.tokenize_seconds
                + part.features_seconds
                + part.encode_seconds
                + sum(step.seconds for step in part.steps)
                for part in one.passes
            )
            assert 0 < spent <= one.wall_seconds
            for part in one.passes:
                for step in part.steps:
                    assert step.draft_seconds + step.decode_seconds <= step.seconds


def test_the_process_holds_more_after_loading_and_the_peak_is_no_less(measured: Profile) -> None:
    load = measured.runs[0].load
    assert load.after.resident > load.before.resident
    assert all(case.peak is None or case.peak >= load.after.resident for case in cases(measured))
    assert load.first_token_seconds > load.load_seconds >= longest(load.compile_seconds)


def test_a_process_of_its_own_measures_what_this_one_does(bundle: Path, measured: Profile) -> None:
    here = profile([bundle], prompts=(9,), new_tokens=6, repetitions=1, isolate=False)
    assert cases(here)[0].requests[0].tokens == cases(measured)[0].requests[0].tokens
    assert here.runs[0].subject == measured.runs[0].subject
    assert here.runs[0].load.first_token_seconds == 0


@pytest.mark.parametrize(
    "said",
    [
        {"prompts": (1,)},
        {"audio": ("no such.wav",)},
        {"devices": ("ort-gpu",)},
        {"drafters": ("lookupp",)},
        {"threads": 0},
        {"devices": ()},
        {"precision": "int4"},
        {"texts": "no such"},
    ],
)
def test_a_bad_ask_is_answered_in_one_line(bundle: Path, said: dict[str, Any]) -> None:
    with pytest.raises(EdgegenError) as caught:
        profile([bundle], **said)
    assert str(caught.value) and "\n" not in str(caught.value)


def test_a_prompt_longer_than_the_bundle_takes_is_refused(bundle: Path) -> None:
    manifest = Bundle.open(bundle, verify=False).manifest
    defaults = msgspec.structs.replace(manifest.generation, max_source=16, max_positions=8)
    small = msgspec.structs.replace(manifest, generation=defaults)
    tokenizer = ByteTokenizer()
    assert jobs(Workload(prompts=(16,), new_tokens=(8,)), small, tokenizer)[0].name == "p16 n8"
    with pytest.raises(InputError, match="at most 16"):
        jobs(Workload(prompts=(17,), new_tokens=(8,)), small, tokenizer)
    with pytest.raises(InputError, match="8 decoder positions"):
        jobs(Workload(prompts=(16,), new_tokens=(9,)), small, tokenizer)


def test_a_speech_bundle_asks_for_audio(bundle: Path) -> None:
    manifest = Bundle.open(bundle, verify=False).manifest
    speech = msgspec.structs.replace(manifest, task="automatic-speech-recognition")
    with pytest.raises(InputError, match="audio"):
        jobs(Workload(prompts=(16,)), speech, None)
