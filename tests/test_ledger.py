"""Laws of the ledger of identity: it goes on where it stopped, and it tells what differs.

The ledger itself is bench/ledger.py, whose real models are compared here on a few inputs only.
"""

from __future__ import annotations

import json
import shutil
import sys
from importlib import import_module
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"
sys.path.append(str(BENCH))
ledger: Any = import_module("ledger")
lines: Any = import_module("ledger_file")
models: Any = import_module("ledger_models")


@pytest.fixture
def subject(tiny_t5_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return models.Subject(
        model="tiny",
        format="onnx",
        precision="fp32",
        bundle=lambda: tiny_t5_bundle,
        sources=[models.Source(given=text) for text in ("ba bin dor", "fa fin", "ke la la ke")],
    )


def test_a_run_that_was_killed_goes_on_where_it_stopped(subject: Any, tmp_path: Path) -> None:
    path, each = tmp_path / "ledger.jsonl", len(ledger.MODES) * (1 + len(ledger.drafters(subject)))
    with lines.Ledger(path) as found:
        first = list(islice(ledger.compare(found, subject, range(3)), 7))
    written = path.read_bytes()
    path.write_bytes(written + b'{"model":"ti')  # killed within a line
    with lines.Ledger(path) as found:
        rest = list(ledger.compare(found, subject, range(2)))
        assert len(first) + len(rest) == len(found.entries) == 2 * each
        assert list(ledger.compare(found, subject, range(2))) == []
        assert len(list(ledger.compare(found, subject, range(3)))) == each
    assert path.read_bytes().startswith(written)
    assert path.read_bytes().count(b"\n") == 3 * each
    # A reference is made once, before what is held against it.
    references = [entry.drafter == lines.PLAIN for entry in (*first, *rest)]
    assert references == [i % (each // 2) == 0 for i in range(2 * each)]
    assert all(entry.equal for entry in (*first, *rest))


def test_other_options_sources_or_graphs_are_compared_anew(
    subject: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = len(ledger.MODES) * (1 + len(ledger.drafters(subject)))
    with lines.Ledger(tmp_path / "ledger.jsonl") as found:
        assert len(list(ledger.compare(found, subject, range(1)))) == each
        subject.sources[0] = subject.sources[1]
        assert len(list(ledger.compare(found, subject, range(1)))) == each
        monkeypatch.setattr(ledger, "NEW", 5)
        assert len(list(ledger.compare(found, subject, range(1)))) == each
        digests = [ledger.digest_of(subject.bundle()), "another"]
        todo = [len(list(ledger.missing(found, subject, one, range(1)))) for one in digests]
        assert todo == [0, each]


def test_pairwise_each_two_factors_meet_and_each_drafter_meets_each_input_once(
    subject: Any,
) -> None:
    for bundles in (1, 3, 5):
        met = [
            (index, mode, drafter, which)
            for which in range(bundles)
            for index in range(models.INPUTS)
            for mode in range(len(ledger.MODES))
            for drafter in range(len(ledger.drafters(subject)))
            if ledger.pairwise((which, bundles), index, mode, drafter)
        ]
        sizes = models.INPUTS, len(ledger.MODES), len(ledger.drafters(subject)), bundles
        assert len(met) == sizes[0] * sizes[2]
        for one, other in combinations(range(4), 2):
            pairs = {(case[one], case[other]) for case in met}
            assert len(pairs) == sizes[one] * sizes[other]


def test_the_plan_is_pairwise_but_for_the_first_input(subject: Any, tmp_path: Path) -> None:
    with lines.Ledger(tmp_path / "ledger.jsonl") as found:
        ledger.run(found, [subject], 3)
        count, modes = len(ledger.drafters(subject)), len(ledger.MODES)
        pairs = [entry for entry in found.entries.values() if entry.drafter != lines.PLAIN]
        assert len(pairs) == count * modes + 2 * count
        references = len(found.entries) - len(pairs)
        assert references == 3 * modes
        ledger.run(found, [subject], 3, full=True)
        assert len(found.entries) == 3 * modes * (1 + count)


def test_what_differs_is_told_and_counted(
    subject: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """One drafter is made to run at another seed."""
    whole = ledger.Bench.result

    def other_seed(self: Any, source: Any, options: Any, drafter: str, known: Any) -> Any:
        seed = options.seed + (drafter == "lookup")
        return whole(self, source, options.with_changes(seed=seed), drafter, known)

    monkeypatch.setattr(ledger.Bench, "result", other_seed)
    with lines.Ledger(tmp_path / "ledger.jsonl") as found:
        assert ledger.run(found, [subject], 1) == 1
        entries = list(found.entries.values())
    (wrong,) = [entry for entry in entries if not entry.equal]
    (right,) = [e for e in entries if (e.drafter, e.mode) == (lines.PLAIN, "sampled")]
    at = wrong.first_difference
    assert (wrong.drafter, wrong.mode) == ("lookup", "sampled")
    assert wrong.emitted[:at] == right.emitted[:at] and wrong.emitted[at] != right.emitted[at]
    assert "DIFFERS" in capsys.readouterr().out
    pairs = len(ledger.MODES) * len(ledger.drafters(subject))
    tables = lines.report(entries)
    tokens = sum(entry.tokens for entry in entries if entry.drafter != lines.PLAIN)
    assert f"| tiny | onnx | fp32 | {wrong.rows} | 1 | {pairs} | {tokens:,} | 1 |" in tables
    assert f"| `lookup` | 2 | {tokens * 2 // pairs} | 1 |" in tables


def test_what_is_no_ledger_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("milk\nbread\n")
    with pytest.raises(ValueError, match=r"notes.txt:1 is no line of a ledger"):
        lines.Ledger(path)
    assert path.read_text() == "milk\nbread\n"


def test_thirty_different_inputs_for_every_model_that_needs_no_package() -> None:
    for made in (models.translations, models.corrections, models.conversations):
        assert len({repr(source.given) for source in made()}) == models.INPUTS


def test_a_bundle_is_kept_until_the_exporter_changes(
    tiny_t5_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def export(options: Any) -> None:
        shutil.copytree(tiny_t5_bundle, options.output, dirs_exist_ok=True)
        manifest = options.output / "edgegen.json"
        record = json.loads(manifest.read_bytes())
        record["provenance"]["command"] = options.command
        manifest.write_text(json.dumps(record))
        made.append(options.command)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(models, "export", export)
    graphs = ("onnx", "fp32")
    first = models.bundle("pypi:tiny", graphs)
    assert (models.bundle("pypi:tiny", graphs), len(made)) == (first, 1)
    monkeypatch.setattr(models, "exporter", lambda: "another")
    assert (models.bundle("pypi:tiny", graphs), len(made)) == (first, 2)
    (first / "edgegen.json").write_text("{}")
    assert (models.bundle("pypi:tiny", graphs), len(made)) == (first, 3)
    assert models.bundle("folder/tiny", ("onnx", "int8")) != first


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_no_drafter_changes_a_token_of_real_models(precision: str, tmp_path: Path) -> None:
    """The first inputs of the ledger; ``make ledger`` compares them all."""
    names = ["proofread-t5", "firefox-en-pt", "smollm2-135m", "whisper-base"]
    with lines.Ledger(tmp_path / "ledger.jsonl") as found:
        differing = ledger.run(found, list(models.subjects(names, [precision])), 2)
        tables = lines.report(found.entries.values())
    assert differing == 0, tables
    assert {e.model for e in found.entries.values()} >= {*names} - {"proofread-t5"}
