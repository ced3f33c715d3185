"""Costs are measured fairly, made monotone, kept by their key, and never trusted blindly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_families import write_bundle

from edgegen.bundle import Bundle
from edgegen.devices import DeviceOptions, device_named
from edgegen.runtime.auto import Auto
from edgegen.runtime.budget import Fixed
from edgegen.runtime.calibration import ROWS, Costs, Store, measure, quartile, rising
from edgegen.runtime.engine import Engine
from edgegen.runtime.opening import load
from edgegen.runtime.options import GenerationOptions
from edgegen.runtime.speculation import costs_key

KEY = {"graph": "ab", "threads": "1"}


class Machine:
    """A decoder and the clock that watches it: calls take what a formula says, plus disturbances.

    ``keep`` must leave the rows that stood before the call, as for any cache.
    """

    def __init__(self, disturbed: bool = False) -> None:
        self.now, self.length, self.new = 0.0, 0, 0
        self.sizes: list[int] = []
        self.random = np.random.default_rng(0)
        self.disturbed = disturbed

    def clock(self) -> float:
        return self.now

    def forward(
        self, tokens: Sequence[int], parents: Sequence[int] | None = None, first_row: int = 0
    ) -> None:
        self.new = len(tokens)
        self.sizes.append(len(tokens))
        self.now += cost(len(tokens))
        if self.disturbed and self.random.random() < 0.5:
            self.now += 0.02

    def keep(self, length: int, rows: Sequence[int] = ()) -> None:
        assert length <= self.length + self.new
        self.length = length


def cost(rows: int) -> float:
    return 1e-3 + 2e-4 * rows


@pytest.mark.parametrize("disturbed", [False, True], ids=["quiet", "disturbed"])
def test_the_table_is_the_machine_s(disturbed: bool) -> None:
    machine = Machine(disturbed)
    costs = measure(machine, clock=machine.clock)
    assert costs.rows == ROWS
    np.testing.assert_allclose(costs.seconds, [cost(n) for n in ROWS])


def test_sizes_take_turns_and_the_prompt_is_never_lost() -> None:
    machine = Machine()
    measure(machine, clock=machine.clock, seconds=0.1)
    past, rounds = machine.sizes[0], machine.sizes[1:]
    assert machine.length == past
    assert len(rounds) % len(ROWS) == 0
    for start in range(0, len(rounds), len(ROWS)):
        assert sorted(rounds[start : start + len(ROWS)]) == list(ROWS)


def test_measuring_ends_soon_after_the_seconds_allowed() -> None:
    machine = Machine()
    measure(machine, clock=machine.clock, seconds=0.5)
    assert 0.5 < machine.now < 0.5 + 3 * sum(cost(n) for n in ROWS)


def test_a_model_with_few_positions_is_measured_within_them() -> None:
    machine = Machine()
    costs = measure(machine, most=8, clock=machine.clock)
    assert costs.rows[-1] == 8
    assert machine.sizes[0] + costs.rows[-1] <= 16


def test_between_sizes_and_beyond_them_costs_lie_on_straight_lines() -> None:
    costs = Costs((1, 2, 4), (1.0, 2.0, 3.0))
    assert [costs.of(n) for n in (1, 2, 3, 4, 6)] == [1.0, 2.0, 2.5, 3.0, 4.0]


@given(st.lists(st.floats(0.001, 10.0), min_size=1, max_size=12))
def test_smoothing_never_falls_keeps_the_sum_and_leaves_what_rises(values: list[float]) -> None:
    found = rising(values)
    assert all(a <= b for a, b in pairwise(found))
    assert sum(found) == pytest.approx(sum(values))
    assert rising(sorted(values)) == tuple(sorted(values))


@given(st.lists(st.floats(0, 10), min_size=1, max_size=30))
def test_a_quarter_of_the_times_are_no_larger_than_the_quartile(values: list[float]) -> None:
    found = quartile(values)
    assert 4 * sum(value <= found for value in values) >= len(values)


# ------------------------------------------------------------------ the store


def never(message: str) -> None:
    raise AssertionError(message)


def test_what_is_written_is_read_for_that_key_alone(tmp_path: Path) -> None:
    store, costs = Store(tmp_path / "new" / "folder"), Costs((1, 2, 4), (0.1, 0.25, 0.3))
    assert store.read(KEY, never) is None
    store.write(KEY, costs, never)
    assert store.read(KEY, never) == costs
    assert store.read({**KEY, "threads": "2"}, never) is None
    assert [path.suffix for path in store.folder.iterdir()] == [".json"]


DAMAGE = {
    "empty": "",
    "deep": "[" * 100_000,
    "no json": "{rows",
    "a list": "[]",
    "null": "null",
    "no seconds": json.dumps({"rows": [1, 2]}),
    "uneven": json.dumps({"rows": [1, 2], "seconds": [0.1]}),
    "too few": json.dumps({"rows": [1], "seconds": [0.1]}),
    "zero": json.dumps({"rows": [1, 2], "seconds": [0.0, 0.1]}),
    "falling": json.dumps({"rows": [1, 2], "seconds": [0.2, 0.1]}),
    "unsorted": json.dumps({"rows": [2, 1], "seconds": [0.1, 0.2]}),
    "no number": json.dumps({"rows": [1, 2], "seconds": ["a", "b"]}),
    "not finite": '{"rows": [1, 2], "seconds": [0.1, Infinity]}',
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_said_in_a_line_and_nothing_is_read(tmp_path: Path, damage: str) -> None:
    store, said = Store(tmp_path), list[str]()
    store.file(KEY).write_text(DAMAGE[damage])
    assert store.read(KEY, said.append) is None
    assert len(said) == 1
    assert str(store.file(KEY)) in said[0]
    assert "\n" not in said[0]


def test_a_folder_that_cannot_be_written_is_said_and_no_more(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "file").write_text("")
    Store(tmp_path / "file" / "folder").write(KEY, Costs((1, 2), (0.1, 0.2)), said.append)
    assert len(said) == 1


# ----------------------------------------------------------------- an engine


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(write_bundle(tmp_path_factory.mktemp("bundle") / "b", "t5-tied"))


def engine_of(bundle: Bundle, threads: int = 1) -> Engine:
    return Engine(bundle, device_named("ort-cpu"), DeviceOptions(threads=threads))


def test_an_engine_is_measured_once_and_damage_measures_it_again(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0

    def counted(target: object, token: int, most: int) -> Costs:
        nonlocal count
        count += 1
        return Costs((1, 2), (0.1, 0.2))

    monkeypatch.setattr("edgegen.runtime.speculation.measure", counted)
    store, said = Store(tmp_path), list[str]()
    for _ in range(2):
        other = engine_of(bundle)
        other.speculation.calibrate(other, store, said.append)
    engine = engine_of(bundle)
    assert (count, said) == (1, [])
    store.file(costs_key(engine)).write_text("{")
    engine.speculation.calibrate(engine, store, said.append)
    assert (count, len(said)) == (2, 1)
    assert engine.speculation.costs == store.read(costs_key(engine), never)


def test_the_key_changes_with_threads_and_graph(bundle: Bundle, tmp_path: Path) -> None:
    key = costs_key(engine_of(bundle))
    assert key != costs_key(engine_of(bundle, threads=2))
    other = Bundle.open(write_bundle(tmp_path / "b", "marian-ssru"))
    assert key != costs_key(engine_of(other))
    assert {"hardware", "onnxruntime", "graph", "weights", "threads", "exact"} <= set(key)


@pytest.mark.parametrize("name", ["t5-tied", "marian-ssru", "llama-grouped", "whisper"])
def test_every_cache_can_be_measured(name: str, tmp_path: Path) -> None:
    engine = engine_of(Bundle.open(write_bundle(tmp_path / "b", name)))
    engine.speculation.calibrate(engine, None, never)
    costs = engine.speculation.costs
    assert costs is not None
    assert 0 < costs.seconds[0] <= costs.seconds[-1]


def test_budgets_follow_options_and_what_is_known(bundle: Bundle) -> None:
    speculation = engine_of(bundle).speculation
    options = GenerationOptions
    assert speculation.budget(options(draft="none")) == Fixed(0)
    assert speculation.budget(options(draft="auto")) == Fixed(0)
    assert speculation.budget(options(draft="lookup")) == Fixed(8)
    assert speculation.note(options(draft="auto")) != ""
    speculation.costs = Costs((1, 2), (0.1, 0.2))
    assert isinstance(speculation.budget(options(draft="auto")), Auto)
    assert isinstance(speculation.budget(options(draft="lookup")), Auto)
    assert speculation.budget(options(draft="lookup", num_assistant_tokens=3)) == Fixed(3)
    assert speculation.note(options(draft="auto")) == ""


def test_loading_calibrates_into_the_folder_given(bundle: Bundle, tmp_path: Path) -> None:
    with load(bundle.path, calibrate=True, cache_dir=tmp_path) as pipeline:
        assert pipeline.engine.speculation.costs is not None
    (kept,) = (tmp_path / "calibration").iterdir()
    before = kept.read_bytes()
    with load(bundle.path, calibrate=True, cache_dir=tmp_path):
        assert kept.read_bytes() == before
