"""Whatever is amiss on the command line is one line and an exit status; a bug says it is one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import ONE_LINE, TEXT, expected, silence

import edgegen
from edgegen.cli import explained
from edgegen.errors import InputError


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "nowhere", TEXT], "nowhere: there is no such folder"),
        (["inspect", "nowhere"], "nowhere: there is no such folder"),
        (["run", ".", TEXT], "edgegen.json: missing"),
        (["run", "T5", TEXT, "--device", "ort-cpuu"], "did you mean 'ort-cpu'?"),
        (["run", "T5", TEXT, "--draft", "lokup"], "did you mean 'lookup'?"),
        (["run", "T5", TEXT, "--output-format", "jsn"], "did you mean 'json'?"),
        (["run", "T5", TEXT, "--precision", "int4"], "has onnx fp32. Ask for fp32, or"),
        (["run", "T5", TEXT, "--precision", "int4"], "or export with --weight-format int4."),
        (["run", "T5", TEXT, "--precision", "fp33"], "the bundle has onnx fp32. Ask for fp32."),
        (
            ["run", "T5", TEXT, "--threads"],
            "edgegen run: Option '--threads' requires an argument. ",
        ),
        (["run", "T5", TEXT, "--threads"], " See edgegen run --help."),
        (["--nonsense"], " See edgegen --help."),
        (["run", "T5", TEXT, "--threads", "0"], "threads must be at least 1, got 0"),
        (["run", "T5", TEXT, "--threads", "many"], "'--threads'"),
        (["run", "T5", TEXT, "--temperature", "-1"], "temperature must be a number above 0"),
        (["run", "T5", TEXT, "--tempreature", "1"], "--temperature"),
        (["run", "T5", TEXT, "--logprobs", "1"], "add it"),
        (["run", "T5", TEXT, "--chat"], "no chat template"),
        (["run", "T5", TEXT, "--language", "pt"], "--language is for speech models"),
        (["run", "T5", TEXT, "--output-format", "srt"], "srt is for speech models"),
        (["run", "T5", "talk.wav"], "sound is for the bundle of a speech model"),
        (["run", "T5", "note.txt"], "--file note.txt"),
        (["run", "T5", "--file", "talk.wav"], "sound is for the bundle of a speech model"),
        (["run", "T5", "--file", "nowhere"], "nowhere: No such file"),
        (["run", "T5", "--file", "noise"], "noise: not UTF-8 text (byte 0 is 0xff)"),
        (["run", "T5", TEXT, "--corpus", "nowhere"], "corpus nowhere: cannot be read (No such"),
        (["run", "T5", TEXT, "--corpus", "noise"], "corpus noise: not UTF-8 text (byte 0 is 0xff)"),
        (["run", "T5", TEXT, "--corpus", "zeros"], "corpus zeros: it has NUL bytes"),
        (["run", "T5", TEXT, "--corpus", "blank"], "corpus blank: there is no text in it"),
        (["run", "ASR", TEXT], "no such file; tiny-asr is a speech model"),
        (["run", "ASR"], "name audio files, or - for one on standard input"),
        (["run", "ASR", "note.txt"], "note.txt"),
        (["run", "ASR", "talk.wav", "--chat"], "are for text"),
        (["export", "-m", "nowhere", "-o", "x"], "'nowhere' is no file or folder here"),
        (["export", "-m", "~nosuch/model", "-o", "x"], "'~nosuch/model' is no file or folder here"),
        (["export", "-m", "pypi:firefox-enpt", "-o", "x"], "did you mean 'firefox-en-pt'?"),
        (["export", "-m", "x", "-o", "y", "--format", "onxx"], "did you mean 'onnx'?"),
        (["export", "-m", "x", "-o", "y", "--weight-format", "int3"], "did you mean 'int"),
        (["export", "-m", "x", "-o", "y", "--group-size", "31"], "group size 31"),
        (["export", "-m", "x"], "'--output'"),
        (["export", "-m", "x", "-o", "y", "--parity-prompts", "nowhere"], "nowhere: cannot be rea"),
        (["profile", "T5", "-p", "ten"], "expected whole numbers"),
        (["profile", "T5", "-d", "ort-gpu"], "did you mean 'ort-cpu'?"),
        (["profile", "T5", "-o", "jsn"], "did you mean 'json'?"),
        (
            ["condition", "T5", "--condition", "not-empty", "--sources", "note.txt"],
            "export the model with --taps hidden.",
        ),
        (["exprot"], "Did you mean 'export'?"),
        ([], "no command given"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_what_a_user_can_mend_is_one_line_and_status_2(
    arguments: list[str],
    said: str,
    run: Any,
    tiny_t5_bundle: Path,
    tiny_speech_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    silence(tmp_path / "talk.wav")
    (tmp_path / "note.txt").write_text(TEXT)
    (tmp_path / "noise").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "zeros").write_bytes(b"a\x00b")
    (tmp_path / "blank").write_text(" \n")
    bundles = {"T5": str(tiny_t5_bundle), "ASR": str(tiny_speech_bundle)}
    status, out, err = run(*(bundles.get(word, word) for word in arguments))
    assert status == 2
    assert said in err
    last = err.removeprefix(f"reading {arguments[2]}\n" if arguments[:1] == ["export"] else "")
    assert ONE_LINE.fullmatch(last), err
    assert out == "" or not arguments  # the help, where there is no command


def test_a_damaged_bundle_is_one_line(run: Any, tiny_t5_bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_t5_bundle, copy)
    manifest = copy / "edgegen.json"
    whole = manifest.read_bytes()
    for damaged in (whole[:100], b"\0" * 99, b"[]", whole.replace(b'"2.0"', b'"9.0"', 1)):
        manifest.write_bytes(damaged)
        for command in (("inspect", copy), ("run", copy, TEXT), ("profile", copy)):
            status, out, err = run(*command)
            assert (status, out) == (2, "")
            assert ONE_LINE.fullmatch(err), err


def test_a_bad_line_is_named_and_the_answers_before_it_stand(
    run: Any, tiny_t5_bundle: Path
) -> None:
    status, out, err = run(
        "run", tiny_t5_bundle, "--max-new-tokens", 4, stdin=b"ba\n\xff\xfe\nbin\n"
    )
    assert status == 2
    assert out == expected(tiny_t5_bundle, "ba", max_new_tokens=4) + "\n"
    assert err.startswith("edgegen: line 2: not UTF-8 text")


def test_a_bug_keeps_its_traceback_and_says_so(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise KeyError("oops")

    monkeypatch.setattr("edgegen.devices.listing.list_devices", broken)
    status, _, err = run("devices")
    assert status == 1
    assert err.splitlines()[0].startswith(f"edgegen {edgegen.__version__}: unexpected error, a bug")
    assert err.splitlines()[-1] == "KeyError: 'oops'"


def test_a_missing_library_is_answered_with_the_pip_line() -> None:
    line = explained(ModuleNotFoundError("No module named 'torch'", name="torch"))
    assert line is not None
    assert "pip install 'edgegen[export]'" in line
    assert explained(ModuleNotFoundError("No module named 'os2'", name="os2")) is None


def test_a_message_of_several_lines_is_printed_as_one(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise InputError("one\ntwo")

    monkeypatch.setattr("edgegen.devices.listing.list_devices", refuse)
    assert run("devices") == (2, "", "edgegen: one two\n")
