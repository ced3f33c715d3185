"""The command line: what it prints where, its exit status, and one line for whatever is amiss."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import wave
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from tiny_families import WORDS, tokenizer
from typer.main import get_command
from typer.testing import CliRunner

import edgegen
from edgegen.cli import COMMANDS, EXTRAS, app, explained, flowed, main
from edgegen.commands.inputs import Given, inputs
from edgegen.commands.lists import numbers, words
from edgegen.commands.run import generation_options
from edgegen.errors import InputError
from edgegen.runtime.options import GenerationOptions

ONE_LINE = re.compile(r"edgegen[^\n]*: [^\n]+\n")
TEXT = "ba bin dor"
EDGEGEN = [sys.executable, "-m", "edgegen"]

Outcome = tuple[int, str, str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command in this process: status, standard output, standard error."""

    def call(*arguments: object, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        told = capsys.readouterr()
        return status, told.out, told.err

    return call


def expected(bundle: Path, text: str, **options: Any) -> str:
    with edgegen.load(bundle) as pipeline:
        return pipeline.generate(text, edgegen.GenerationOptions(**options)).text


def silence(path: Path) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(bytes(2 * 8000))
    return path


# ------------------------------------------------------------------------ help


def test_help_loads_no_library_that_computes() -> None:
    code = (
        "import sys, edgegen.cli\n"
        "for words in [[], ['run'], ['export'], ['profile']]:\n"
        "    assert edgegen.cli.main([*words, '--help']) == 0\n"
        "heavy = {'numpy', 'onnxruntime', 'openvino', 'tokenizers', 'torch', 'msgspec'}\n"
        "print(*heavy & {name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stderr.strip() in ("", "msgspec")


@pytest.mark.parametrize("name", [name for name, _, _ in COMMANDS])
def test_the_help_of_a_command_has_examples_of_that_command(name: str) -> None:
    page = CliRunner().invoke(app, [name, "--help"])
    assert page.exit_code == 0
    assert f"\n   edgegen {name}" in page.output


def test_a_help_page_flows_but_its_examples_do_not() -> None:
    assert flowed("One.\n\na\nb\n\n  c\n  d\n") == ("One.\n\na b\n\n[cyan]  c\n  d[/cyan]")


def test_every_generation_option_has_its_name_on_the_command_line() -> None:
    ids = {"bad_words_ids", "suppress", "forced"}  # token ids are for programs
    run_options = {param.name for param in get_command(app).commands["run"].params}  # type: ignore[attr-defined]
    assert {field.name for field in fields(GenerationOptions)} - ids <= run_options


def test_options_that_are_not_given_keep_pythons_defaults() -> None:
    names = [field.name for field in fields(GenerationOptions)]
    typed: dict[str, Any] = {name: None for name in [*names, "draft_model"]}
    assert generation_options(typed) == GenerationOptions()
    assert generation_options({**typed, "seed": 0, "do_sample": False}) == GenerationOptions()
    assert generation_options({**typed, "stop": ["a"], "top_k": 3}) == GenerationOptions(
        stop=("a",), top_k=3
    )


def test_a_draft_model_is_drafted_with_unless_another_drafter_is_named() -> None:
    typed: dict[str, Any] = {"draft_model": Path("small"), "draft": None}
    assert generation_options(typed).draft == "model"
    assert generation_options({**typed, "draft": "lookup"}).draft == "lookup"


def test_the_version_is_printed(run: Any) -> None:
    assert run("--version") == (0, f"edgegen {edgegen.__version__}\n", "")


def test_every_library_an_extra_brings_is_known_to_come_with_it(repository: Path) -> None:
    with (repository / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    named = {
        module: extra
        for extra in ("export", "openvino", "audio", "ray")
        for requirement in extras[extra]
        for module in [re.split(r"[<>=\[]", requirement)[0].lower().replace("-", "_")]
    }
    renamed = {"protobuf": "google", "pyyaml": "yaml"}
    assert {renamed.get(module, module): extra for module, extra in named.items()} == EXTRAS


# ------------------------------------------------------------------------- run


def test_a_text_is_answered_as_python_answers_it(run: Any, tiny_t5_bundle: Path) -> None:
    text = expected(tiny_t5_bundle, TEXT, max_new_tokens=8)
    assert text
    assert run("run", tiny_t5_bundle, TEXT, "--max-new-tokens", "8") == (0, text + "\n", "")


def test_every_line_in_gives_one_line_out_in_order(run: Any, tiny_t5_bundle: Path) -> None:
    lines = ["ba bin", "", "dor dor", "   ", "fu"]
    answers = [
        expected(tiny_t5_bundle, line, max_new_tokens=6) if line.strip() else "" for line in lines
    ]
    data = "\ufeff" + "\r\n".join(lines)
    status, out, err = run("run", tiny_t5_bundle, "--max-new-tokens", "6", stdin=data.encode())
    assert (status, err) == (0, "")
    assert out == "".join(answer + "\n" for answer in answers)


def test_a_file_and_whole_standard_input_are_one_text(
    run: Any, tiny_t5_bundle: Path, tmp_path: Path
) -> None:
    text = "ba bin\ndor"
    (tmp_path / "letter").write_text(text)
    answer = expected(tiny_t5_bundle, text, max_new_tokens=6) + "\n"
    words = ("run", tiny_t5_bundle, "--max-new-tokens", 6)
    assert run(*words, "--file", tmp_path / "letter") == (0, answer, "")
    assert run(*words, "--whole", stdin=text.encode()) == (0, answer, "")


def test_json_is_one_object_a_line_with_everything_in_it(run: Any, tiny_t5_bundle: Path) -> None:
    status, out, err = run(
        "run", tiny_t5_bundle, "--json", "--logprobs", 2, "--max-new-tokens", 5,
        "--draft", "lookup", stdin=b"ba bin\n\ndor\n",
    )  # fmt: skip
    assert (status, err) == (0, "")
    first, blank, _ = [json.loads(line) for line in out.splitlines()]
    assert blank == {"source": "line 2", "text": "", "tokens": [], "finish_reason": None}
    assert first["text"] == expected(tiny_t5_bundle, "ba bin", max_new_tokens=5)
    assert first["finish_reason"] in ("length", "stop")
    assert first["lossless"] == "sample-identical"
    assert len(first["logprobs"]) == len(first["tokens"]) == first["timings"]["tokens"]
    assert all(len(entry["alternatives"]) == 2 for entry in first["logprobs"])
    assert first["timings"]["request_ttft_ms"] >= first["timings"]["ttft_ms"] > 0


def test_times_go_to_standard_error(run: Any, tiny_t5_bundle: Path) -> None:
    status, out, err = run("run", tiny_t5_bundle, TEXT, "--timings", "--max-new-tokens", 4)
    assert status == 0
    assert "ttft_ms" not in out
    assert all(name in err for name in ("ttft_ms", "request_ttft_ms", "tpot_ms", "load_ms"))


def test_a_shortened_line_is_told_with_its_number(run: Any, tmp_path: Path) -> None:
    from tiny_families import write_bundle

    bundle = write_bundle(tmp_path / "short", "t5-tied", defaults={"max_source": 4})
    words = ("run", bundle, "--max-new-tokens", 2)
    status, _, err = run(*words, stdin=b"ba\nba ba ba ba ba ba\n")
    assert status == 0
    assert err.startswith("edgegen: line 2: the input has 7 tokens and the model takes 4")
    status, _, err = run(*words, "--no-truncate", stdin=b"ba\nba ba ba ba ba ba\n")
    assert status == 2
    assert err.startswith("edgegen: line 2: ")
    assert ONE_LINE.fullmatch(err)


def test_the_same_seed_draws_the_same_text(run: Any, tiny_t5_bundle: Path) -> None:
    words = ("run", tiny_t5_bundle, TEXT, "--do-sample", "--temperature", 3, "--max-new-tokens", 9)
    outs = [run(*words, "--seed", seed)[1] for seed in (1, 1, 2)]
    assert outs[0] == outs[1] != outs[2]


def test_a_recording_is_transcribed_from_a_file_and_from_standard_input(
    run: Any, tiny_speech_bundle: Path, tmp_path: Path
) -> None:
    sound = silence(tmp_path / "a.wav")
    from_file = run("run", tiny_speech_bundle, sound, "--json")
    piped = run("run", tiny_speech_bundle, "-", "--json", stdin=sound.read_bytes())
    assert from_file[0] == piped[0] == 0
    assert json.loads(from_file[1])["source"] == str(sound)
    assert json.loads(from_file[1])["tokens"] == json.loads(piped[1])["tokens"]


# ---------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "nowhere", TEXT], "nowhere: there is no such folder"),
        (["inspect", "nowhere"], "nowhere: there is no such folder"),
        (["run", ".", TEXT], "edgegen.json: missing"),
        (["run", "T5", TEXT, "--device", "ort-cpuu"], "did you mean 'ort-cpu'?"),
        (["run", "T5", TEXT, "--draft", "lokup"], "did you mean 'lookup'?"),
        (["run", "T5", TEXT, "--output-format", "jsn"], "did you mean 'json'?"),
        (["run", "T5", TEXT, "--precision", "int4"], "the bundle has onnx fp32"),
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
        (["export", "-m", "pypi:firefox-enpt", "-o", "x"], "did you mean 'firefox-en-pt'?"),
        (["export", "-m", "x", "-o", "y", "--format", "onxx"], "did you mean 'onnx'?"),
        (["export", "-m", "x", "-o", "y", "--weight-format", "int3"], "did you mean 'int"),
        (["export", "-m", "x", "-o", "y", "--group-size", "31"], "group size 31"),
        (["export", "-m", "x"], "'--output'"),
        (["export", "-m", "x", "-o", "y", "--parity-prompts", "nowhere"], "nowhere: cannot be rea"),
        (["profile", "T5", "-p", "ten"], "expected whole numbers"),
        (["profile", "T5", "-d", "ort-gpu"], "did you mean 'ort-cpu'?"),
        (["profile", "T5", "-o", "jsn"], "did you mean 'json'?"),
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


# --------------------------------------------------------------------- inputs


def test_a_conversation_opens_with_what_the_system_was_told(tiny_t5_bundle: Path) -> None:
    from msgspec.structs import replace

    from edgegen.bundle import Bundle
    from edgegen.manifest import Chat

    manifest = replace(Bundle.open(tiny_t5_bundle).manifest, chat=Chat(template=""))
    given = Given(words=("a", "b"), system="Be brief.")
    sources = [item.source for item in inputs(given, manifest)]
    told = {"role": "system", "content": "Be brief."}
    assert sources == [[told, {"role": "user", "content": word}] for word in ("a", "b")]


def test_lists_are_words_and_numbers_with_commas_between() -> None:
    assert words(" onnx, openvino,,onnx") == ("onnx", "openvino")
    assert numbers("-p", "1, 20") == (1, 20)
    assert words("") == ()
    with pytest.raises(InputError, match="got none"):
        words(" ,")
    with pytest.raises(InputError, match="'1;2'"):
        numbers("-p", "1;2")


# ------------------------------------------------------------- other commands


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


# ---------------------------------------------------------- processes and pipes


def test_a_reader_that_stops_early_is_no_error(tiny_t5_bundle: Path) -> None:
    command = [*EDGEGEN, "run", str(tiny_t5_bundle), "--max-new-tokens", "2"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"ba\n" * 2000)
        process.stdin.flush()
        assert process.stdout.readline()
        process.stdout.close()
        process.stdin.close()
        said = process.stderr.read()
        assert process.wait(timeout=60) == 1
    assert said == b""


def test_a_line_is_answered_before_the_next_is_given(tiny_t5_bundle: Path) -> None:
    command = [*EDGEGEN, "run", str(tiny_t5_bundle), "--max-new-tokens", "2"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(3):
            process.stdin.write(b"ba bin\n")
            process.stdin.flush()
            assert process.stdout.readline().endswith(b"\n")
        process.stdin.close()
        assert process.wait(timeout=60) == 0


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_says_nothing_and_ends_with_130(tiny_t5_bundle: Path) -> None:
    command = [*EDGEGEN, "run", str(tiny_t5_bundle), "--max-new-tokens", "2"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=heed_ctrl_c,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"ba\n")
        process.stdin.flush()
        assert process.stdout.readline()
        time.sleep(0.2)  # it waits for the next line
        process.send_signal(signal.SIGINT)
        try:
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert said == b""


def heed_ctrl_c() -> None:
    """A suite started in the background ignores Ctrl-C, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_one_line(tiny_t5_bundle: Path) -> None:
    command = [*EDGEGEN, "run", str(tiny_t5_bundle), TEXT, "--max-new-tokens", "2"]
    with open("/dev/full", "wb") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 2
    assert ONE_LINE.fullmatch(result.stderr)


def test_profile_compare_is_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for way in (["compare"], ["profile", "compare"]):
        assert main([*way, str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--json"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == second and "a.json" in first
