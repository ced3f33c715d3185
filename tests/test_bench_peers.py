"""The bench against peers: turns in rounds, ratios within them, nobody wins by doing less."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peers import contest as contest_file
from peers.agreement import agreement, edits, words
from peers.command import chosen, main
from peers.contest import Place, contest
from peers.environments import CONSTRAINTS, ENVIRONMENTS, WORKER, finish
from peers.metrics import best_peer, best_threads, ratio, spread
from peers.models import FOUND, MODELS
from peers.protocol import Request, Unavailable
from peers.record import Entry, Made, PartRun, Results, Turn, WorkRecord
from peers.table import LENGTHS, works
from peers.tables import markdown
from peers.voice import Voice
from peers.works import Contestant, Work

from edgegen.profiles.record import Machine

HERE = Path(__file__).parent
MACHINE = Machine(system="s", processor="p", cores=2, memory=1, python="3", versions={})
WORKS = works()


@pytest.fixture(autouse=True)
def no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fakes have no threads to settle."""
    monkeypatch.setattr(contest_file, "SETTLE", 0.0)


def fake(log: Path, name: str, **settings: Any) -> Contestant:
    said = {"log": str(log), "name": name, **settings}
    peer = "edgegen" if name == "ours" else "fake"
    return Contestant(name=name, peer=peer, adapter="fake_peer", model="", settings=said)


def place(_: Contestant) -> Place:
    paths = os.pathsep.join([str(HERE), *sys.path])
    return Place(python=[sys.executable], environment={"PYTHONPATH": paths}, model="")


def work(*contestants: Contestant, **changes: Any) -> Work:
    one = Request(sources=((5, 6),), new_tokens=1)
    base = Work(
        name="w",
        title="W",
        group="g",
        contestants=contestants,
        requests=lambda: {"first": one, "whole": replace(one, new_tokens=4)},
        metrics=("per_token", "first_token"),
        reference=contestants[0].name,
        threads=(1,),
    )
    return replace(base, **changes)


def held(it: Work, rounds: int = 2, seed: int = 0) -> tuple[WorkRecord, list[str]]:
    said: list[str] = []
    return contest(it, place, rounds=rounds, seed=seed, say=said.append), said


def test_each_round_gives_everyone_one_turn_and_the_order_changes(tmp_path: Path) -> None:
    log = tmp_path / "log"
    names = ["ours", "a", "b"]
    record, _ = held(work(*(fake(log, name) for name in names), warm=False), rounds=6)
    lines = [line.split() for line in log.read_text().splitlines()]
    turns = [name for name, _, count in lines if count == "1"]
    rounds = [turns[i : i + 3] for i in range(0, len(turns), 3)]
    assert [count for _, _, count in lines] == ["1", "4"] * 18
    assert all(sorted(one) == sorted(names) for one in rounds)
    assert len(set(map(tuple, rounds))) > 1
    assert all([turn.round for turn in one.turns] == list(range(6)) for one in record.entries)


def test_the_order_is_that_of_the_seed(tmp_path: Path) -> None:
    orders: list[str] = []
    for number, seed in enumerate((1, 1, 2)):
        log = tmp_path / str(number)
        held(work(*(fake(log, name) for name in "abcd"), warm=False), rounds=3, seed=seed)
        orders.append(log.read_text())
    assert orders[0] == orders[1] != orders[2]


def test_everyone_runs_every_request_once_before_the_first_round(tmp_path: Path) -> None:
    log = tmp_path / "log"
    held(work(fake(log, "a"), fake(log, "b"), threads=(1, 2)), rounds=1)
    lines = log.read_text().splitlines()
    assert lines[:8] == [f"{name} {n} {count}" for name in "ab" for n in (1, 2) for count in (1, 4)]
    # Who slept while others had their turns wakes by the first request, which is not timed.
    turns = [lines[at : at + 3] for at in range(8, len(lines), 3)]
    assert len(turns) == 4
    assert all([line.split()[2] for line in turn] == ["1", "1", "4"] for turn in turns)


def test_whoever_falls_over_gives_one_line_and_the_others_go_on(tmp_path: Path) -> None:
    log = tmp_path / "log"
    record, said = held(
        work(
            fake(log, "good"),
            fake(log, "dead", dies=4),
            fake(log, "fails", fails=3),
            fake(log, "absent", refuses="it has no beams"),
        ),
        rounds=3,
    )
    reasons = {entry.contestant: entry.missing for entry in record.entries}
    assert reasons == {
        "good": "",
        "dead": "the process ended with status 3: out of ink",
        "fails": "ValueError: no such token",
        "absent": "it has no beams",
    }
    assert [len(entry.turns) for entry in record.entries] == [3, 0, 0, 0]
    told = [line for line in said if "not available" in line]
    assert len(told) == 3
    text = markdown(Results(created="", quick=False, machine=MACHINE, works=(record,)))
    assert all(f"not available: {name}" in text for name in ("dead", "fails", "absent"))


def test_a_peer_that_cannot_be_made_is_told_with_its_reason(tmp_path: Path) -> None:
    def nothing(_: Contestant) -> Place:
        raise Unavailable("no such package")

    record = contest(work(fake(tmp_path / "log", "a")), nothing, say=lambda _: None)
    assert [entry.missing for entry in record.entries] == ["no such package"]


def test_inputs_that_cannot_be_made_leave_everyone_out_with_the_reason(tmp_path: Path) -> None:
    def nothing() -> dict[str, Request]:
        raise Unavailable("espeak-ng is not installed")

    record, _ = held(work(fake(tmp_path / "log", "a"), requests=nothing))
    assert [entry.missing for entry in record.entries] == ["espeak-ng is not installed"]


def test_disagreement_and_doing_less_are_flagged(tmp_path: Path) -> None:
    log = tmp_path / "log"
    record, _ = held(
        work(
            fake(log, "truth", tokens=[1, 2, 3, 4]),
            fake(log, "ours", tokens=[1, 2, 9, 4]),
            fake(log, "short", tokens=[1, 2, 3, 4], drop=1),
            fake(log, "fickle", fickle=True),
        )
    )
    truth, ours, short, fickle = (agreement(record, entry) for entry in record.entries)
    assert truth and (truth.same, truth.sources, truth.prefix, truth.tokens) == (2, 2, 5, 5)
    assert ours and (ours.same, ours.prefix, ours.flagged) == (1, 3, False)
    assert short and (short.short, short.flagged) == (2, True)
    assert fickle and (fickle.steady, fickle.flagged) == (False, True)
    text = markdown(Results(created="", quick=False, machine=MACHINE, works=(record,)))
    assert "2 TOKENS SHORT" in text and "NOT ALWAYS THE SAME" in text


def test_drafts_that_change_what_is_made_are_flagged(tmp_path: Path) -> None:
    log = tmp_path / "log"
    plain = fake(log, "plain", tokens=[1, 2])
    same = replace(fake(log, "same", tokens=[1, 2]), plain="plain")
    other = replace(fake(log, "other", tokens=[1, 3]), plain="plain")
    record, _ = held(work(plain, same, other), rounds=1)
    found = [agreement(record, one) for one in record.entries]
    assert [one.kept for one in found if one] == [True, True, False]
    assert found[2] and found[2].flagged and "NOT AS WITHOUT DRAFTS" in str(found[2])


def test_a_fresh_process_is_started_for_every_turn(tmp_path: Path) -> None:
    log = tmp_path / "log"
    record, _ = held(work(fake(log, "a", dies=3), fresh=True), rounds=2)
    (entry,) = record.entries
    assert not entry.missing and len(entry.turns) == 2  # two runs a process, never a third
    assert all(turn.start_seconds > turn.parts["first"].seconds for turn in entry.turns)
    if Path("/proc/self/status").exists():
        assert all(turn.peak >= turn.resident > 1_000_000 for turn in entry.turns)


def test_what_a_peer_prints_and_its_versions_do_not_disturb(tmp_path: Path) -> None:
    record, _ = held(work(fake(tmp_path / "log", "a")))
    (entry,) = record.entries
    assert set(entry.versions) == {"msgspec", "no-such-package"}
    assert entry.versions["no-such-package"] == "not installed"
    assert entry.turns[0].parts["first"].timings == {"encode": 0.25}


# ------------------------------------------------------------------------------- arithmetic


def entry(name: str, seconds: Sequence[tuple[float, float]], threads: int = 1) -> Entry:
    """``seconds`` of one token and of five, a round."""
    return Entry(
        contestant=name,
        peer="p",
        ours=name == "ours",
        note="",
        threads=threads,
        turns=tuple(
            Turn(
                round=number,
                parts={
                    "first": PartRun(seconds=first, cpu_seconds=0, tokens=(1,)),
                    "whole": PartRun(seconds=whole, cpu_seconds=0, tokens=(5,)),
                },
            )
            for number, (first, whole) in enumerate(seconds)
        ),
    )


def record_of(*entries: Entry) -> WorkRecord:
    return WorkRecord(
        name="w",
        title="W",
        metrics=("per_token", "first_token"),
        against="slow",
        reference="slow",
        rounds=3,
        entries=entries,
    )


def test_later_tokens_cost_the_whole_less_the_first_over_their_number() -> None:
    found = spread(entry("a", [(0.5, 2.5), (0.5, 4.5), (0.5, 1.5)]), "per_token")
    assert found and (found.least, found.median, found.most) == (250, 500, 1000)


def test_a_ratio_is_the_median_of_each_round_s_own() -> None:
    """Medians of 4 and 1 apart, yet never more than 3 times in a round."""
    ours = entry("ours", [(0, 1), (0, 4), (0, 8)])
    slow = entry("slow", [(0, 3), (0, 4), (0, 24)])
    found = ratio(ours, slow, "per_token")
    assert found and (found.least, found.median, found.most) == (1, 3, 3)


def test_rounds_one_of_them_missed_do_not_count() -> None:
    ours, slow = entry("ours", [(0, 1), (0, 1)]), entry("slow", [(0, 2)])
    found = ratio(ours, slow, "per_token")
    assert found and found.most == 2
    assert ratio(entry("ours", []), slow, "per_token") is None


def test_the_best_number_of_threads_is_each_one_s_own() -> None:
    entries = [entry("a", [(0, 2)], 1), entry("a", [(0, 1)], 2), entry("ours", [(0, 1)], 1)]
    record = record_of(*entries, entry("ours", [(0, 3)], 2))
    best = [best_threads(record, name, "per_token") for name in ("a", "ours")]
    assert [one.threads for one in best if one] == [2, 1]
    peer = best_peer(record.entries, "per_token")
    assert peer and (peer.contestant, peer.threads) == ("a", 2)


def test_both_tables_show_the_ratio_to_the_named_peer_and_to_the_best() -> None:
    record = record_of(
        entry("slow", [(0, 8)], 1), entry("slow", [(0, 12)], 2),
        entry("quick", [(0, 4)], 1), entry("quick", [(0, 6)], 2),
        entry("ours", [(0, 4)], 1), entry("ours", [(0, 2)], 2),
    )  # fmt: skip
    text = markdown(Results(created="", quick=False, machine=MACHINE, works=(record,)))
    one, best = (part for part in text.split("### ")[1:])
    rows = [next(line for line in part.splitlines() if "**ours**" in line) for part in (one, best)]
    assert "× slow | × quick" in one and "× slow | × quick" in best
    assert "| 2.00× | 1.00× |" in rows[0]
    assert "| 4.00× | 2.00× |" in rows[1]


@pytest.mark.parametrize(
    ("one", "other", "count"),
    [("", "", 0), ("a b c", "a b c", 0), ("a c", "a b c", 1), ("x b c d", "a b c", 2)],
)
def test_word_errors_are_the_fewest_edits(one: str, other: str, count: int) -> None:
    assert edits(one.split(), other.split()) == edits(other.split(), one.split()) == count


def test_words_are_counted_without_case_and_marks() -> None:
    assert words("It's two, TWO: cities-\u2014é!") == ["it's", "two", "two", "cities", "é"]


def test_texts_are_compared_by_words() -> None:
    made = [Made(asked=0, tokens=(), texts=(text,)) for text in ("A tale of two.", "A tail of two")]
    turn = entry("slow", [(1, 2)])
    pair = [
        Entry(contestant=name, peer="p", ours=False, note="", threads=1, turns=turn.turns,
              made={"clip": one})
        for name, one in zip(("slow", "b"), made, strict=True)
    ]  # fmt: skip
    found = agreement(record_of(*pair), pair[1])
    assert found and (found.word_errors, found.words, found.same) == (1, 4, 0)


# -------------------------------------------------------------------------------- the tables


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    record = record_of(entry("ours", [(0.5, 1)]))
    results = Results(created="now", quick=True, machine=MACHINE, works=(record,))
    results.save(tmp_path / "r.json")
    assert Results.load(tmp_path / "r.json") == results
    assert "the times mean nothing" in markdown(results)


@pytest.mark.parametrize("one", WORKS, ids=lambda one: one.name)
def test_every_work_names_things_that_there_are(one: Work) -> None:
    names = [who.name for who in one.contestants]
    assert len(set(names)) == len(names)
    assert one.reference in names and (not one.against or one.against in names)
    assert {who.plain for who in one.contestants if who.plain} <= set(names)
    for who in one.contestants:
        assert who.peer in ENVIRONMENTS
        assert who.model in MODELS or who.model in FOUND
        assert (HERE.parent / "bench" / f"{who.adapter.replace('.', '/')}.py").is_file()
        assert ("format" in who.settings) == who.ours


def test_every_peer_s_versions_are_pinned() -> None:
    for name, environment in ENVIRONMENTS.items():
        if not environment.packages:
            continue
        lines = (CONSTRAINTS / f"{name}.txt").read_text().splitlines()
        pins = dict(line.split("==") for line in lines if not line.startswith("#"))
        wanted = {package.replace("-", "_") for package in environment.packages}
        assert wanted <= {pin.replace("-", "_") for pin in pins}, name


def test_works_are_chosen_by_name_group_and_contestant() -> None:
    lengths = {f"t5-{source}-{count}" for source, count in LENGTHS}
    assert {one.name for one in chosen(["t5"], "")} == lengths
    assert len(chosen([], "")) == len(WORKS)
    (only,) = chosen(["smollm2"], "llama")
    assert {who.peer for who in only.contestants} == {"llama.cpp"}


def test_an_unknown_work_is_refused_with_the_names_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["t6"])
    assert "unknown work 't6' (use " in capsys.readouterr().err


def test_a_step_that_fails_says_why_in_one_line() -> None:
    code = "import sys; print('much\\nERROR: no wheel\\nmore', file=sys.stderr); sys.exit(2)"
    with pytest.raises(Unavailable, match=r"^python\S*: ERROR: no wheel$"):
        finish([sys.executable, "-c", code])


def test_workers_keep_bytecode_whatever_the_caller_s_environment_says() -> None:
    """Starts would else be timed with a compiler in them for who runs from sources."""
    for given, said in (({}, "True"), (WORKER, "False")):
        told = subprocess.run(
            [sys.executable, "-c", "import sys; print(sys.dont_write_bytecode)"],
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **given},
            capture_output=True,
            text=True,
            check=True,
        )
        assert told.stdout.strip() == said


def test_the_synthetic_voice_is_the_same_in_every_process() -> None:
    program = (
        "from hashlib import sha256; from peers.voice import Voice; voice = Voice();"
        "print(sha256(voice.say('Yes.').tobytes() + voice.say('No.').tobytes()).hexdigest())"
    )
    call = [sys.executable, "-c", program]
    environment = {**os.environ, "PYTHONPATH": str(CONSTRAINTS.parents[1])}
    said = {
        subprocess.run(call, env=environment, capture_output=True, check=True).stdout
        for _ in range(2)
    }
    assert len(said) == 1
    sound = Voice().say("The train leaves at nine.")
    assert 16_000 < len(sound) < 48_000
    assert 0.05 < np.abs(sound).max() <= 1.0
