"""Studies: shares follow from tables, acceptance from records, and a study goes on where it was."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from made_up_profiles import DEEP
from typer.testing import CliRunner

from edgegen.cli import app, main
from edgegen.errors import EdgegenError, InputError
from edgegen.profiles.machine import this_machine
from edgegen.profiles.record import StepRecord
from edgegen.profiles.study import Settings, Study, study
from edgegen.profiles.study import record as study_record
from edgegen.profiles.study.acceptance import Acceptance, of_steps, read, recorded
from edgegen.profiles.study.page import BEGIN, END, between, markdown, plots, put
from edgegen.profiles.study.plot import Axis
from edgegen.profiles.study.record import STRUCTURES, Cell, CostTable, Sample, Subject
from edgegen.profiles.study.shares import (
    Split,
    best_gain,
    comparisons,
    figures,
    gain,
    settled,
)
from edgegen.runtime.calibration import Costs

# Of ten steps five draft four tokens, of which four stand twice and none three times.
HALF = Acceptance(
    origin="made up", drafter="lookup", draft_seconds=0.0, steps=((0, 0, 5), (4, 0, 3), (4, 4, 2))
)
FREE = Costs((1, 32), (0.010, 0.010))
DEAR = Costs((1, 2, 32), (0.010, 0.040, 1.0))
# Four more rows cost as much as the first.
FAIR = Costs((1, 5, 32), (0.010, 0.020, 0.1))


# Speculation's part ------------------------------------------------------------------------------


def test_rows_that_cost_nothing_gain_all_tokens_that_stand() -> None:
    found = best_gain(HALF, FREE)
    assert (found.nodes, found.tokens_per_call) == (4, 1.8)
    assert found.ratio == pytest.approx(1.8)


def test_it_is_an_answer_not_to_speculate() -> None:
    found = best_gain(HALF, DEAR)
    assert (found.nodes, found.tokens_per_call, found.ratio) == (0, 1.0, 1.0)


def test_a_gain_is_the_recorded_steps_at_what_their_rows_cost() -> None:
    # 18 tokens; 5 calls of one row and 5 of five.
    assert gain(HALF, FAIR, 4).ratio == pytest.approx(18 * 0.010 / (5 * 0.010 + 5 * 0.020))
    # Cut to two: 14 tokens, drafted rows at 0.015.
    assert gain(HALF, FAIR, 2).ratio == pytest.approx(14 * 0.010 / (5 * 0.010 + 5 * 0.015))
    slow = msgspec.structs.replace(HALF, draft_seconds=0.010)
    assert gain(slow, FREE, 4).ratio == pytest.approx(1.8 / 2)


def test_a_longer_draft_is_chosen_only_where_it_pays_more() -> None:
    gains = [gain(HALF, FAIR, k).ratio for k in range(5)]
    assert best_gain(HALF, FAIR).ratio == max(gains)


# The structure's part ----------------------------------------------------------------------------


def cell(structure: str, *samples: Sample, output: int = 11) -> Cell:
    return Cell(
        size="tiny", precision="fp32", device="ort-cpu", structure=structure, source=8,
        output=output, samples=samples,
    )  # fmt: skip


def subject(structure: str, costs: Costs) -> Subject:
    return Subject(
        size="tiny", precision="fp32", device="ort-cpu", structure=structure, parameters=1000,
        bundle=4000, loaded=10**7, peak=None, load_seconds=0.1,
        calls=(CostTable(source=8, rows=costs.rows, seconds=costs.seconds),),
    )  # fmt: skip


def made(*, wall: float = 0.32) -> Study:
    """The first token comes in half the time, the later ones too; drafts make those 1.8 times as
    fast in the encoder-decoder and do not pay in the other."""
    machine = msgspec.structs.replace(this_machine(), processor="made up")
    return Study(
        created="2026-01-01T00:00:00+00:00",
        machine=machine,
        settings=Settings(sizes=("tiny",), sources=(8,), outputs=(11,), devices=("ort-cpu",)),
        acceptance=HALF,
        subjects=(subject(STRUCTURES[0], FREE), subject(STRUCTURES[1], DEAR)),
        cells=(
            cell(STRUCTURES[0], *[Sample(0.04, 0.02, 0.1, wall / 2, 0.16)] * 3),
            cell(STRUCTURES[1], *[Sample(0.0, 0.12, 0.2, wall, 0.32)] * 3),
        ),
        skipped={"ov-npu": "no driver"},
    )


def test_the_figures_of_a_cell_are_medians_over_its_requests() -> None:
    found = figures(
        cell("", Sample(0.1, 0.1, 1.0, 1.2, 2.0), Sample(0.1, 0.2, 2.0, 2.3, 4.0),
             Sample(0.1, 0.3, 3.0, 3.4, 6.0))
    )  # fmt: skip
    assert found.ttft_ms.median == pytest.approx(300)
    assert found.tpot_ms.median == pytest.approx(200)
    assert found.e2e_ms.median == pytest.approx(2300)
    assert (found.cpu_seconds.low, found.cpu_seconds.high) == (2.0, 6.0)
    assert found.tokens_per_second == pytest.approx(11 / 2.3)
    assert found.repetitions == 3


def test_structure_and_speculation_multiply_to_the_whole_and_share_its_logarithm() -> None:
    (found,) = comparisons(made())
    assert found.ttft_saved == pytest.approx(0.5)
    assert found.throughput == pytest.approx(2.0)
    assert found.decoding == pytest.approx(2.0)
    # Of 160 ms 100 are later tokens.
    drafted = 160 - 100 * (1 - 1 / 1.8)
    assert found.split.speculation == pytest.approx(160 / drafted)
    assert found.split.whole == pytest.approx(320 / drafted)
    share = found.split.structure_share
    assert share == pytest.approx(math.log(2) / math.log(320 / drafted))
    assert found.speculation(STRUCTURES[1]) == 1.0
    assert found.both_speculate == pytest.approx(found.split.whole)


@pytest.mark.parametrize("split", [(0.5, 3.0), (3.0, 0.5), (1.0, 1.0)])
def test_where_one_part_is_no_gain_there_is_nothing_to_share(split: tuple[float, float]) -> None:
    assert Split(structure=split[0], speculation=split[1]).structure_share is None


def test_a_place_where_only_one_structure_was_measured_is_not_compared() -> None:
    whole = made()
    assert not comparisons(msgspec.structs.replace(whole, cells=whole.cells[:1]))


@pytest.mark.parametrize(
    ("walls", "steady"),
    [((1.0, 1.0), False), ((1.0, 1.0, 1.0), True), ((1.0, 2.0, 3.0), False),
     ((1.0, 1.0, 1.0, 1.0, 9.0), True)],
)  # fmt: skip
def test_times_have_settled_when_their_middle_half_agrees(
    walls: tuple[float, ...], steady: bool
) -> None:
    assert settled(walls, 0.03) is steady


# Acceptance --------------------------------------------------------------------------------------


def test_acceptance_counts_what_the_steps_of_a_profile_did() -> None:
    steps = [
        StepRecord((1, 2, 3), 4, 2, 5, 0.001, 0.01, 0.02),
        StepRecord((1, 2, 3), 4, 2, 5, 0.003, 0.01, 0.02),
        StepRecord((1,), 0, 0, 1, 0.002, 0.01, 0.02),
    ]
    found = of_steps(steps, "lookup", "made up")
    assert found.steps == ((0, 0, 1), (4, 2, 2))
    assert found.draft_seconds == 0.002
    assert found.tokens_per_call == pytest.approx(7 / 3)


def test_the_record_edgegen_brings_is_of_a_real_model_and_says_so() -> None:
    found = recorded()
    assert found.calls > 100 and found.tokens_per_call > 1
    assert "proofreader" in found.origin


def test_acceptance_is_read_from_its_own_file_and_nonsense_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "acceptance.json"
    file.write_bytes(msgspec.json.encode(HALF))
    assert read(file) == HALF
    for data in (b"{", b"[]", b'{"schema_version": "9.0"}', b"{}", DEEP, b'{"origin": "\xff"}'):
        file.write_bytes(data)
        with pytest.raises(InputError) as caught:
            read(file)
        assert "\n" not in str(caught.value)


# The page ----------------------------------------------------------------------------------------


def test_figures_stand_between_the_marks_and_nothing_else_of_the_page_changes(
    tmp_path: Path,
) -> None:
    page = tmp_path / "study.md"
    page.write_text(f"# Mine\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    written = put(made(), page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# Mine\n{BEGIN}\n") and text.endswith(f"{END}\nafter\n")
    assert "old" not in text and "ov-npu (no driver)" in text
    assert all(path.exists() and path.name in text for path in written[1:])
    put(made(), page)
    assert page.read_text(encoding="utf-8") == text


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="put them where"):
        between("# Mine\n", "new", tmp_path / "study.md")


def test_every_row_of_every_table_has_as_many_cells_as_its_heading() -> None:
    tables = [part for part in markdown(made()).split("\n\n") if part.startswith("|")]
    assert len(tables) == 4
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_plots_are_well_formed_and_bigger_numbers_stand_higher() -> None:
    pictures = plots(made())
    assert set(pictures) == {"ttft", "request"}
    for picture in pictures.values():
        root = ElementTree.fromstring(picture)
        heights = [
            float(dot.attrib["cy"]) for dot in root.iter("{http://www.w3.org/2000/svg}circle")
        ]
        assert len(heights) == 2 and heights[0] > heights[1]


def test_an_axis_is_logarithmic_with_round_ticks() -> None:
    axis = Axis(1, 100, 0, 200)
    assert axis.at(10) == pytest.approx(100)
    assert axis.ticks() == [1, 2, 5, 10, 20, 50, 100]


# Measuring ---------------------------------------------------------------------------------------

TINY = Settings(
    sizes=("tiny",), precisions=("int8",), devices=("ort-cpu", "no-such-place"), sources=(20,),
    outputs=(2, 5), fewest=2, most=2,
)  # fmt: skip


def never(*asked: str) -> Path:
    raise AssertionError(f"bundle {asked} was asked for again")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_a_quick_study_measures_both_structures_and_does_not_measure_twice(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    file, page = tmp_path / "study.json", tmp_path / "study.md"
    words = [
        "study", "encoder-decoder", "--quick", "-d", "ort-cpu", "--precision", "int8", "-p", "20",
        "-n", "2,5", "-o", str(file), "--report", str(page),
    ]  # fmt: skip
    assert main(words) == 0
    found = study_record.read(file)
    lengths = [(one.structure, one.source, one.output) for one in found.cells]
    assert lengths == [(name, 20, output) for output in (2, 5) for name in STRUCTURES]
    assert {one.structure for one in found.subjects} == set(STRUCTURES)
    for sample in [sample for one in found.cells for sample in one.samples]:
        assert 0 < sample.first <= sample.wall and 0 < sample.later < sample.wall
        assert sample.encode + sample.first + sample.later <= sample.wall
    encodes = {one.structure: one.samples[0].encode for one in found.cells}
    assert encodes[STRUCTURES[0]] > 0 == encodes[STRUCTURES[1]]
    assert study(found.settings, never, HALF, file).cells == found.cells
    assert len(comparisons(found)) == 2


def test_a_study_goes_on_after_the_last_cell_it_saved(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from edgegen.commands.study import random_bundle

    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    settings = msgspec.structs.replace(TINY, devices=("ort-cpu",))
    file = tmp_path / "study.json"
    whole = study(settings, random_bundle, HALF, file)
    msgspec.structs.replace(whole, cells=whole.cells[:2]).save(file)
    again = study(settings, random_bundle, HALF, file)
    assert again.subjects == whole.subjects
    assert again.cells[:2] == whole.cells[:2] and len(again.cells) == len(whole.cells) == 4


def test_results_of_another_study_are_not_gone_on_with(tmp_path: Path) -> None:
    file = tmp_path / "study.json"
    made().save(file)
    with pytest.raises(InputError, match="other settings or of another machine"):
        study(TINY, never, HALF, file)


@pytest.mark.parametrize("value", [b'"\xff"', DEEP], ids=("bytes", "deep"))
@pytest.mark.parametrize("key", [b"created", b"unknown"])
def test_what_is_no_study_is_refused_in_one_line(value: bytes, key: bytes, tmp_path: Path) -> None:
    file = tmp_path / "study.json"
    file.write_bytes(b'{"%b": %b}' % (key, value))
    with pytest.raises(InputError, match=r"study\.json: expected the results of a study") as caught:
        study(TINY, never, HALF, file)
    assert "\n" not in str(caught.value)


def test_a_study_of_unknown_places_names_or_numbers_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(EdgegenError, match="no-such-place"):
        study(TINY, never, HALF, tmp_path / "study.json")
    with pytest.raises(InputError, match="outputs from 2"):
        Settings(outputs=(1,))
    assert main(["study", "decoder-encoder"]) == 2
    assert CliRunner().invoke(app, ["study", "--help"]).exit_code == 0
