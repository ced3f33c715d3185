"""The commands beside run: inspect, devices, sources, profile, export and compare."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import ONE_LINE, TEXT
from tiny_families import WORDS, tokenizer

from edgegen.cli import main


def test_what_is_in_a_bundle_is_printed_for_people_and_programs(
    run: Any, tiny_t5_bundle: Path
) -> None:
    status, out, _ = run("inspect", tiny_t5_bundle)
    assert status == 0
    assert "tiny-t5" in out
    status, out, _ = run("inspect", tiny_t5_bundle, "--json")
    assert json.loads(out)["family"] == "t5"


def test_devices_and_sources_list_every_entry_of_their_tables(run: Any) -> None:
    from edgegen.devices import DEVICES
    from edgegen.export.sources import SOURCES

    assert {entry["name"] for entry in json.loads(run("devices", "--json")[1])} >= set(DEVICES)
    listed = json.loads(run("sources", "--json")[1])
    assert [entry["name"] for entry in listed["sources"]] == list(SOURCES)
    assert "pypi:firefox-en-pt" in run("sources")[1]
    assert all(name in run("devices")[1] for name in DEVICES)


def test_a_profile_is_json_with_a_summary_a_drafter(run: Any, tiny_t5_bundle: Path) -> None:
    status, out, err = run(
        "profile", tiny_t5_bundle, "-p", 8, "-n", 4, "-r", 1, "--draft", "lookup", "--json"
    )
    assert status == 0, err
    summaries = json.loads(out)["summaries"]
    assert [summary["drafter"] for summary in summaries] == ["none", "lookup"]
    assert err.startswith("tiny-t5 on ort-cpu")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as ``save_pretrained`` writes it."""
    from tiny import tiny_t5_model

    folder = tmp_path_factory.mktemp("checkpoint")
    tiny_t5_model(vocab_size=3 + len(WORDS)).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(tokenizer(end=True).data)
    return folder


def test_an_export_ends_in_a_bundle_that_runs_and_says_how_it_was_made(
    run: Any, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = tmp_path / "prompts"
    prompts.write_text("ba bin\n\ndor ba\n")
    words = [
        "export", "-m", str(checkpoint), "-o", str(tmp_path / "new bundle"), "--weight-format",
        "int8", "--min-agreement", "0.1", "--parity-prompts", str(prompts),
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["edgegen", *words])
    status, out, err = run(*words)
    assert status == 0, err
    assert err.splitlines()[0] == f"reading {checkpoint}"
    assert f"edgegen run '{tmp_path}/new bundle' 'ba bin'" in out
    made = json.loads(run("inspect", tmp_path / "new bundle", "--json")[1])
    assert made["provenance"]["command"].startswith("edgegen export -m ")
    assert "'" in made["provenance"]["command"]  # quoted, so that it can be typed again
    assert [prompt["prompt"] for prompt in made["parity"][0]["prompts"]] == ["ba bin", "dor ba"]
    assert run("run", tmp_path / "new bundle", TEXT, "--max-new-tokens", 2)[0] == 0


def test_an_export_never_replaces_what_is_no_bundle(
    run: Any, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    status, out, err = run("export", "-m", checkpoint, "-o", tmp_path)
    assert (status, out) == (2, "")
    assert "no bundle" in err.splitlines()[-1]
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_an_output_that_cannot_be_written_is_one_line(
    run: Any, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    status, _, err = run("export", "-m", checkpoint, "-o", tmp_path / "file" / "bundle")
    assert status == 2
    assert ONE_LINE.fullmatch(err.splitlines(keepends=True)[-1])


def test_profile_compare_is_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for way in (["compare"], ["profile", "compare"]):
        assert main([*way, str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--json"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == second and "a.json" in first
