"""Profiles: numbers follow from the records, reports agree, and bad asks are one line."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_profiles import DEEP, MACHINE, TWO, made_up, request, step
from rich.console import Console

from edgegen.errors import InputError, UnknownName
from edgegen.profiles import Profile, memory
from edgegen.profiles.compare import compare
from edgegen.profiles.machine import this_machine
from edgegen.profiles.record import Memory, Request, from_json
from edgegen.profiles.report import WRITERS, notes, tables, write
from edgegen.profiles.summary import Spread, percentiles, token_gaps
from edgegen.profiles.workload import Workload, read_texts

# Names that a line of a table defines, and the end of one that is a spread's or a percentile.
TERMS, END = re.compile(r"`([a-z0-9_]+)`"), re.compile(r"_(min|max)$|(?<=itl_ms)_p\d\d$")


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
    assert row["compile_ms"] == pytest.approx(200.0)
    assert row["compile_cached_ms"] is None


# ------------------------------------------------------------------ files


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


def test_every_number_has_its_definition_in_the_documents(repository: Path) -> None:
    page = (repository / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| `")]
    defined = {name for row in rows for name in TERMS.findall(row)}
    names = {END.sub("", name) for name in made_up(*TWO).summaries[0].row()}
    assert names - defined == set()


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
    [
        *(b"", b"[]", b"{}", b'{"schema_version": "9.0"}', b'{"schema_version": "1.0"}', b"\xff"),
        *(b'{"schema_version": "1.1\xff"}', DEEP, b'{"schema_version": "1.1", "runs": %b}' % DEEP),
    ],
    ids=range(9),
)
def test_what_is_no_profile_is_refused_in_one_line(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_bytes(data)
    with pytest.raises(InputError) as caught:
        Profile.load(tmp_path / "profile.json")
    assert "\n" not in str(caught.value)


def test_a_run_of_a_machine_the_profile_does_not_hold_is_refused(tmp_path: Path) -> None:
    (run,) = made_up(*TWO).runs
    elsewhere = msgspec.structs.replace(run, machine="elsewhere")
    file = tmp_path / "profile.json"
    msgspec.structs.replace(made_up(*TWO), runs=(run, elsewhere)).save(file)
    with pytest.raises(InputError, match=r"bundle on ort-cpu.*machine 'elsewhere'.*none") as caught:
        Profile.load(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


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


@pytest.mark.parametrize(
    "content", ["", "{}", "text", '{"text": " "}', '["text"]', DEEP.decode()], ids=range(6)
)
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
