"""Profiles: numbers follow from the records, reports agree, and bad asks are one line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from edgegen.bundle import Bundle
from edgegen.errors import EdgegenError, InputError, UnknownName
from edgegen.profiles import Profile, memory, profile
from edgegen.profiles.compare import compare
from edgegen.profiles.machine import this_machine
from edgegen.profiles.record import (
    Case,
    Load,
    Machine,
    Memory,
    PassRecord,
    Place,
    Request,
    Run,
    StepRecord,
    Subject,
    from_json,
)
from edgegen.profiles.report import WRITERS, notes, tables, write
from edgegen.profiles.summary import Spread, percentiles, token_gaps
from edgegen.profiles.workload import Workload, jobs, read_texts
from edgegen.runtime.tokenizer import ByteTokenizer

MACHINE = Machine(
    system="none", processor="made up", cores=1, memory=0, python="3", versions={"edgegen": "0"}
)
NO_MEMORY = Memory(resident=0)


def step(*tokens: int, seconds: float = 0.010, drafted: int = 0) -> StepRecord:
    accepted = len(tokens) - 1
    return StepRecord(tokens, drafted, accepted, 1 + drafted, 0.001, 0.8 * seconds, seconds)


def one_pass(*steps: StepRecord) -> PassRecord:
    return PassRecord(
        source_tokens=7,
        tokenize_seconds=0.001,
        features_seconds=0.002,
        encode_seconds=0.004,
        steps=steps,
    )


def request(
    *steps: StepRecord,
    drafter: str = "none",
    repetition: int = 0,
    wall: float = 1.0,
    audio: float = 0.0,
) -> Request:
    return Request(
        drafter=drafter,
        item=0,
        repetition=repetition,
        warm_up=repetition < 0,
        passes=(one_pass(*steps),),
        wall_seconds=wall,
        read_seconds=0.0,
        audio_seconds=audio,
        finish_reason="length",
        lossless="sample-identical",
    )


def made_up(*requests: Request, machine: Machine = MACHINE) -> Profile:
    """A profile of one case."""
    memory_after = Memory(resident=3_000_000, peak=4_000_000, anonymous=1_000_000, mapped=2_000_000)
    run = Run(
        subject=Subject(
            path="bundle", name="bundle", family="t5", task="text2text-generation", parameters=1,
            size=5_000_000, decode_sha256="0" * 64, source="s", revision="r", format="onnx",
            weight_format="int8", lowering="fused", cache="in_place", rows="bit",
        ),
        place=Place(device="ort-cpu", threads=1, exact=True, details={"hardware": "none"}),
        load=Load(
            load_seconds=0.5, compile_seconds={"encode": 0.1, "decode": 0.2},
            compile_cached_seconds={}, started_seconds=0.1, first_token_seconds=0.7,
            before=NO_MEMORY, after=memory_after,
        ),
        cases=(
            Case(name="p7 n3", prompt_tokens=7, new_tokens=3, requests=requests,
                 memory=memory_after, peak=6_000_000),
        ),
    )  # fmt: skip
    return Profile(created="2026-01-01T00:00:00+00:00", machine=machine, runs=(run,))


def row_of(*requests: Request) -> dict[str, Any]:
    return made_up(*requests).summaries[0].row()


# ------------------------------------------------------------------ numbers


def test_times_to_the_first_token_are_sums_of_their_parts() -> None:
    row = row_of(request(step(1), step(2), step(3)))
    assert row["ttft_ms"] == pytest.approx(
        row["features_ms"] + row["encode_ms"] + row["first_decode_ms"]
    )
    assert row["request_ttft_ms"] == pytest.approx(row["tokenize_ms"] + row["ttft_ms"])
    assert row["ttft_ms"] == pytest.approx(16.0)


def test_time_per_token_is_generation_less_the_first_over_the_other_tokens() -> None:
    row = row_of(request(step(1), step(2, seconds=0.020), step(3, 4, seconds=0.030)))
    generate_ms = row["features_ms"] + row["encode_ms"] + 10 + 20 + 30
    assert row["tpot_ms"] == pytest.approx((generate_ms - row["ttft_ms"]) / (4 - 1))
    assert row["decode_tps"] == pytest.approx(1000 / row["tpot_ms"])


def test_tokens_of_one_step_are_emitted_together() -> None:
    timings = request(step(1, 2), step(3, seconds=0.020), step(4, 5, 6)).timings
    assert token_gaps(timings) == pytest.approx([0.0, 20.0, 10.0, 0.0, 0.0])


def test_gaps_add_up_to_the_steps_after_the_first() -> None:
    timings = request(step(1), step(2, 3), step(4), step(5, 6, 7)).timings
    assert len(token_gaps(timings)) == timings.tokens - 1
    assert sum(token_gaps(timings)) == pytest.approx(
        timings.tpot_ms * sum(len(s.tokens) for s in timings.steps[1:])
    )


def test_percentiles_are_linear_between_order_statistics() -> None:
    assert percentiles([4.0, 1.0, 3.0, 2.0]) == pytest.approx({50: 2.5, 95: 3.85, 99: 3.97})
    assert percentiles([]) == {50: 0.0, 95: 0.0, 99: 0.0}


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_the_median_lies_between_the_ends(values: list[float]) -> None:
    spread = Spread.of(values)
    assert spread.low <= spread.median <= spread.high
    assert {spread.low, spread.high} <= set(values)


def test_warm_ups_count_for_nothing_but_the_tokens() -> None:
    slow = request(step(9, seconds=9.0), repetition=-1, wall=99.0)
    row = row_of(slow, request(step(1)), request(step(1), repetition=1))
    assert row["e2e_ms_max"] == 1000.0
    assert row["repetitions"] == 2
    assert row["repeatable"] is False


def test_medians_come_with_the_ends() -> None:
    walls = [0.3, 0.1, 0.2]
    row = row_of(*(request(step(1), repetition=i, wall=wall) for i, wall in enumerate(walls)))
    assert (row["e2e_ms_min"], row["e2e_ms"], row["e2e_ms_max"]) == pytest.approx((100, 200, 300))


def test_the_speedup_is_of_walls_of_the_same_run() -> None:
    found = made_up(
        request(step(1), step(2), step(3), wall=0.3),
        request(step(1), step(2, 3, drafted=4), drafter="lookup", wall=0.2),
    )
    plain, drafted = (summary.row() for summary in found.summaries)
    assert plain["speedup"] is None and plain["identical_to_plain"] is None
    assert drafted["speedup"] == pytest.approx(1.5)
    assert drafted["identical_to_plain"] is True
    assert drafted["draft_acceptance_rate"] == pytest.approx(1 / 4)
    assert drafted["mean_acceptance_length"] == pytest.approx(1 + 1 / 2)


def test_a_drafter_that_changes_the_text_is_told() -> None:
    found = made_up(request(step(1)), request(step(2), drafter="lookup"))
    assert found.summaries[1].row()["identical_to_plain"] is False
    assert any("NOT PLAIN'S TOKENS" in line and "lookup" in line for line in notes(found))


def test_speech_is_as_fast_as_its_seconds_over_the_walls() -> None:
    assert row_of(request(step(1), wall=2.0, audio=10.0))["rtfx"] == pytest.approx(5.0)
    assert row_of(request(step(1), wall=2.0))["rtfx"] == 0.0


def test_memory_is_in_megabytes_of_a_million_bytes() -> None:
    row = row_of(request(step(1)))
    assert (row["rss_after_load_mb"], row["peak_rss_mb"], row["bundle_mb"]) == (3.0, 6.0, 5.0)
    assert row["compile_ms"] == pytest.approx(300.0)
    assert row["compile_cached_ms"] is None


# ------------------------------------------------------------------ files


TWO = (
    request(step(1), step(2)),
    request(step(1), step(2), repetition=1, wall=2.0),
    request(step(1, 2, drafted=3), drafter="lookup"),
)


def test_a_profile_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    before = made_up(*TWO)
    before.save(tmp_path / "profile.json")
    after = Profile.load(tmp_path / "profile.json")
    assert after == before
    assert [s.row() for s in after.summaries] == [s.row() for s in before.summaries]


def test_json_and_csv_hold_the_same_numbers() -> None:
    found = made_up(*TWO)
    rows = json.loads(write(found, "json"))["summaries"]
    table = list(csv.DictReader(io.StringIO(write(found, "csv"))))
    assert len(rows) == len(table) == 2
    for row, line in zip(rows, table, strict=True):
        assert list(row) == list(line)
        assert {name: "" if value is None else str(value) for name, value in row.items()} == line


def test_markdown_rounds_the_numbers_of_csv() -> None:
    found = made_up(*TWO)
    lines = write(found, "md").splitlines()
    names = [cell.strip() for cell in lines[0].strip("|").split("|")]
    table = csv.DictReader(io.StringIO(write(found, "csv")))
    for line, exact in zip(lines[2:], table, strict=False):
        cells = dict(zip(names, (c.strip() for c in line.strip("|").split("|")), strict=True))
        assert float(cells["tpot_ms"]) == pytest.approx(float(exact["tpot_ms"]), abs=5e-4)
        assert cells["drafter"] == exact["drafter"]


def test_the_tables_fit_a_hundred_columns() -> None:
    console = Console(width=100, file=io.StringIO(), color_system=None)
    console.print(tables(made_up(*TWO)))
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "lookup" in printed and "ort-cpu" in printed and "p7 n3" in printed
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= 100


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"schema_version": "9.0"}', b'{"schema_version": "1.0"}', b"\xff"],
)
def test_what_is_no_profile_is_refused_in_one_line(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_bytes(data)
    with pytest.raises(InputError) as caught:
        Profile.load(tmp_path / "profile.json")
    assert "\n" not in str(caught.value)


def test_a_newer_major_is_refused_and_a_newer_minor_read() -> None:
    document = msgspec.json.decode(made_up(*TWO).to_json())
    document["schema_version"] = "1.9"
    assert from_json(msgspec.json.encode(document)).schema_version == "1.9"
    document["schema_version"] = "2.0"
    with pytest.raises(InputError, match=r"2\.0"):
        from_json(msgspec.json.encode(document))


def test_an_unknown_report_format_lists_those_there_are() -> None:
    with pytest.raises(UnknownName, match=", ".join(sorted(WRITERS))):
        write(made_up(*TWO), "yaml")


# ------------------------------------------------------------------ comparing


def test_a_profile_does_not_differ_from_itself() -> None:
    assert compare(made_up(*TWO), made_up(*TWO)).changes == ()


def test_a_change_is_told_both_ways_round() -> None:
    fast = made_up(*(request(step(1), repetition=i, wall=1.0 + i / 100) for i in range(3)))
    slow = made_up(*(request(step(1), repetition=i, wall=2.0 + i / 100) for i in range(3)))
    (worse,) = compare(fast, slow).changes
    (better,) = compare(slow, fast).changes
    assert (worse.name, worse.verdict, worse.worse) == ("e2e_ms", "slower", True)
    assert (better.name, better.verdict, better.worse) == ("e2e_ms", "faster", False)
    assert worse.ratio == pytest.approx(1 / better.ratio)


def test_one_disturbed_repetition_is_no_regression() -> None:
    calm = made_up(*(request(step(1), repetition=i, wall=w) for i, w in enumerate((1, 1, 9))))
    torn = made_up(*(request(step(1), repetition=i, wall=w) for i, w in enumerate((1, 3, 3))))
    assert compare(calm, torn).changes == ()


def test_other_machines_are_not_compared() -> None:
    other = msgspec.structs.replace(MACHINE, processor="another")
    with pytest.raises(InputError, match="different machines"):
        compare(made_up(*TWO), made_up(*TWO, machine=other))


# ------------------------------------------------------------------ workloads


@pytest.mark.parametrize("name", ["prose", "short"])
def test_the_workloads_that_come_along_have_texts(name: str) -> None:
    assert len(read_texts(name)) >= 5


@pytest.mark.parametrize("content", ["", "{}", "text", '{"text": " "}', '["text"]'])
def test_a_bad_workload_file_is_told_in_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text(content)
    with pytest.raises(InputError) as caught:
        read_texts(tmp_path / "mine.jsonl")
    assert "mine.jsonl" in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_workload_lists_those_there_are() -> None:
    with pytest.raises(InputError, match="prose"):
        read_texts("proze")


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"prompts": (0,)}, "prompts"),
        ({"repetitions": 0}, "repetitions"),
        ({"warmups": 0}, "warm-ups"),
        ({"new_tokens": (0,)}, "new tokens"),
        ({"audio": ("no such.wav",)}, "no such.wav"),
    ],
)
def test_a_bad_workload_is_told_in_one_line(said: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named) as caught:
        Workload(**said)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------ memory


def test_resident_memory_is_its_parts_and_at_most_its_peak() -> None:
    found = memory.sample()
    assert found.resident > 0
    if found.anonymous is not None and found.mapped is not None:
        assert found.anonymous + found.mapped == found.resident
    if found.peak is not None:
        assert found.peak >= found.resident


def test_the_highest_peak_of_several_is_taken() -> None:
    known = [Memory(resident=1, peak=peak) for peak in (3, 5, 4)]
    assert memory.highest(*known, Memory(resident=9)) == 5
    assert memory.highest(Memory(resident=9)) is None


def test_the_machine_says_what_it_is() -> None:
    found = this_machine()
    assert found.cores >= 1 and found.memory > 0 and "numpy" in found.versions


# ------------------------------------------------------------------ a real run


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
    assert load.first_token_seconds > load.load_seconds >= sum(load.compile_seconds.values())


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
