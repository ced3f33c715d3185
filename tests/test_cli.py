"""The command line: its help, its options, and what a run prints where."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from command_line import ONE_LINE, TEXT, expected, silence
from typer.main import get_command
from typer.testing import CliRunner

import edgegen
from edgegen.cli import COMMANDS, EXTRAS, app, flowed
from edgegen.commands.inputs import Given, inputs
from edgegen.commands.lists import numbers, words
from edgegen.commands.run import generation_options
from edgegen.errors import InputError
from edgegen.runtime.options import GenerationOptions

# ------------------------------------------------------------------------ help


@pytest.mark.parametrize("name", [name for name, _, _ in COMMANDS])
def test_the_help_of_a_command_has_examples_of_that_command(name: str) -> None:
    page = CliRunner().invoke(app, [name, "--help"])
    assert page.exit_code == 0
    assert f"\n   edgegen {name}" in page.output


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, _, text in COMMANDS])
def test_examples_and_names_stand_whole_in_a_narrow_terminal(name: str, text: str) -> None:
    page = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "80"}).output
    lines = [line.rstrip() for line in page.splitlines()]
    assert max(map(len, lines)) <= 80
    examples = [line for line in text.splitlines() if line.startswith("  ")]
    assert [line for line in examples if f" {line}" not in lines] == []
    assert "…" not in page  # what stands for the rest of a name that is cut


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
