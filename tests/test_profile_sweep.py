"""Sweeps and gates: every combination is measured or told, machines stay apart, gates say 0 1 2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest
from made_up_profiles import MACHINE, TWO, made_up, request, step

from edgegen.cli import main
from edgegen.errors import InputError, UnknownName
from edgegen.profiles import Profile, profile
from edgegen.profiles.compare import compare
from edgegen.profiles.measure import merge
from edgegen.profiles.record import Missing
from edgegen.profiles.runners import RUNNERS

FAST = made_up(*(request(step(1), repetition=at, wall=1.0 + at / 100) for at in range(3)))
SLOW = made_up(*(request(step(1), repetition=at, wall=2.0 + at / 100) for at in range(3)))


def test_every_length_of_prompt_and_output_is_a_case(tiny_t5_bundle: Path) -> None:
    found = profile(
        [tiny_t5_bundle], prompts=(5, 8), new_tokens=(2, 4), repetitions=1, isolate=False
    )
    names = [case.name for case in found.runs[0].cases]
    assert names == ["p5 n2", "p5 n4", "p8 n2", "p8 n4"]


def test_what_does_not_fit_is_told_and_the_rest_measured(tiny_t5_bundle: Path) -> None:
    has = profile(
        [tiny_t5_bundle], ("ort-cpu",), (5,), 2, 1, precision=("fp32", "int4"), isolate=False
    )
    assert [run.subject.weight_format for run in has.runs] == ["fp32"]
    (left,) = has.missing
    assert left.precision == "int4" and str(tiny_t5_bundle.parent) not in str(left)


def test_an_unknown_engine_lists_those_there_are(tiny_t5_bundle: Path) -> None:
    with pytest.raises(UnknownName, match="local, ray"):
        profile([tiny_t5_bundle], engine="dask")


def test_machines_that_are_alike_are_one_and_others_keep_their_name() -> None:
    other = msgspec.structs.replace(MACHINE, processor="another")
    found = merge([FAST, SLOW, made_up(*TWO, machine=other)])
    assert found.machine == MACHINE and list(found.machines.values()) == [other]
    assert [found.machine_of(run) for run in found.runs] == [MACHINE, MACHINE, other]


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed here")
def test_a_ray_node_measures_what_this_computer_does(tiny_t5_bundle: Path, tmp_path: Path) -> None:
    words = [str(tiny_t5_bundle), "-p", "5,8", "-n", "2", "-r", "1", "-t", "1,2"]
    found: list[Profile] = []
    for engine in RUNNERS:
        file = tmp_path / f"{engine}.json"
        command = [sys.executable, "-m", "edgegen", "profile", *words, "--engine", engine]
        subprocess.run([*command, "--save", str(file)], check=True, capture_output=True,
                       env={**os.environ, "RAY_ADDRESS": "local"})  # fmt: skip
        found.append(Profile.load(file))
    local, ray = found
    assert ray.machine == local.machine and not ray.machines and not ray.missing
    texts = [
        {run.place.threads: [one.tokens for case in run.cases for one in case.requests]
         for run in each.runs}
        for each in found
    ]  # fmt: skip
    assert texts[0] == texts[1] and set(texts[0]) == {1, 2}


# ------------------------------------------------------------------ gates


def save(folder: Path, name: str, found: Profile) -> str:
    found.save(folder / name)
    return str(folder / name)


def test_the_gate_says_0_fine_1_worse_2_no_profiles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fast, slow = save(tmp_path, "a.json", FAST), save(tmp_path, "b.json", SLOW)
    assert main(["compare", fast, fast]) == 0
    assert main(["compare", slow, fast]) == 0
    assert main(["compare", fast, slow]) == 1
    assert "e2e_ms" in capsys.readouterr().out
    assert main(["compare", fast, slow, "--threshold", "3"]) == 0
    assert main(["compare", fast, slow, "--metric", "tpot_ms,bundle_mb"]) == 0
    for words in ([fast, fast, "--threshold", "1"], [fast, fast, "--metric", "tpt_ms"]):
        assert main(["compare", *words]) == 2
    assert main(["compare", fast, str(tmp_path / "none.json")]) == 2
    capsys.readouterr()
    assert main(["compare", fast, slow, "--json"]) == 1
    (change,) = json.loads(capsys.readouterr().out)["changes"]
    assert change["verdict"] == "slower" and change["ratio"] == pytest.approx(2.01 / 1.01)


def test_other_software_and_weights_are_said_beside_the_ratios() -> None:
    newer = msgspec.structs.replace(MACHINE, versions={"edgegen": "1"})
    (run,) = made_up(*TWO).runs
    other = msgspec.structs.replace(run.subject, decode_sha256="1" * 64)
    after = msgspec.structs.replace(
        made_up(*TWO, machine=newer), runs=(msgspec.structs.replace(run, subject=other),)
    )
    notes = compare(made_up(*TWO), after).notes
    assert notes == ("Other versions: edgegen 0 -> 1.", "Other decode graphs: bundle.")


def second(found: Profile) -> Profile:
    """The profile with its run once more, as another bundle's."""
    (run,) = found.runs
    subject = msgspec.structs.replace(run.subject, name="second", path="bundles/second")
    return msgspec.structs.replace(found, runs=(run, msgspec.structs.replace(run, subject=subject)))


def gone(**changes: Any) -> Profile:
    """What came of measuring ``second`` again: it ended before its time."""
    missing = Missing(bundle="second", device="ort-cpu", threads=1, why="SIGSEGV")
    return msgspec.structs.replace(FAST, missing=(msgspec.structs.replace(missing, **changes),))


def test_a_run_that_could_not_be_measured_again_is_worse_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [save(tmp_path, "a.json", second(FAST)), save(tmp_path, "b.json", gone())]
    assert main(["compare", *words]) == 1
    lines = capsys.readouterr().out.splitlines()
    why = "missing in the second: second on ort-cpu, 1 thread: SIGSEGV."
    assert f"Measured in the first, {why}" in lines
    assert main(["compare", *words, "--json"]) == 1
    (left,) = json.loads(capsys.readouterr().out)["missing"]
    assert (left["bundle"], left["why"]) == ("second", "SIGSEGV")
    # Nothing else was measured again either: that it is gone is still what is to be said.
    assert compare(second(FAST), msgspec.structs.replace(gone(), runs=())).missing


@pytest.mark.parametrize(
    ("changes", "lost"),
    [
        ({"precision": "int8"}, True),
        ({"device": "encode=ort-cpu,decode=ort-cpu"}, True),
        ({"precision": "encode=fp32,decode=int8"}, True),
        ({"precision": "int4"}, False),
        ({"device": "decode=ov-cpu"}, False),
        ({"threads": 2}, False),
        ({"bundle": "third"}, False),
    ],
)
def test_only_what_was_measured_can_go_missing(changes: dict[str, Any], lost: bool) -> None:
    assert len(compare(second(FAST), gone(**changes)).missing) == lost


def test_a_folder_of_another_name_and_parts_on_devices_of_their_own_are_known_again() -> None:
    (run, other) = second(FAST).runs
    subject = msgspec.structs.replace(other.subject, name="as exported")
    place = msgspec.structs.replace(other.place, device="encode=ov-cpu+decode=ort-cpu")
    before = msgspec.structs.replace(
        FAST, runs=(run, msgspec.structs.replace(other, subject=subject, place=place))
    )
    assert compare(before, gone(device="encode=ov-cpu")).missing
    assert not compare(before, gone(device="ov-cpu")).missing
    place = msgspec.structs.replace(other.place, device="ov-cpu")
    before = msgspec.structs.replace(FAST, runs=(run, msgspec.structs.replace(other, place=place)))
    assert compare(before, gone(device="encode=ov-cpu,decode=ov-cpu")).missing
    assert not compare(before, gone(device="encode=ov-cpu")).missing


def test_what_was_measured_in_another_file_of_the_same_profile_is_not_missing() -> None:
    after = msgspec.structs.replace(second(FAST), missing=gone().missing)
    assert not compare(second(FAST), after).missing


def test_two_results_of_one_key_are_refused_instead_of_one_of_them_hidden(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = msgspec.structs.replace(FAST, runs=(*SLOW.runs, *FAST.runs))
    once, both = save(tmp_path, "a.json", FAST), save(tmp_path, "b.json", twice)
    for words, side in (([once, both], "second"), ([both, once], "first")):
        assert main(["compare", *words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"the {side} profile holds two results of bundle ort-cpu 1 int8 onnx p7 n3" in line


def test_other_inputs_under_the_same_name_are_not_compared() -> None:
    one = request(step(1))
    longer = msgspec.structs.replace(one.passes[0], source_tokens=8)
    with pytest.raises(InputError, match="same inputs"):
        compare(made_up(one), made_up(msgspec.structs.replace(one, passes=(longer,))))


# ------------------------------------------------------------------ files


def test_a_saved_profile_is_shown_again_and_nothing_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_t5_bundle: Path
) -> None:
    file, out = save(tmp_path, "a.json", FAST), tmp_path / "report.html"
    assert main(["profile", file, "--html", str(out), "-o", "csv"]) == 0
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert capsys.readouterr().out.startswith("bundle,")
    assert main(["profile", file, str(tiny_t5_bundle)]) == 2
    assert "not taken together" in capsys.readouterr().err
