"""What a bundle holds is told in full, to programs as JSON and to people as safe text."""

from __future__ import annotations

import io
import json
from pathlib import Path

import msgspec
import pytest
import tiny_bundle
from rich.console import Console

from edgegen.bundle import Bundle
from edgegen.bundle_writer import BundleWriter
from edgegen.inspection import count_text, describe, show, size_text
from edgegen.manifest import Manifest, Parity, Speech


def written(path: Path, manifest: Manifest) -> Bundle:
    with BundleWriter(path) as writer:
        for relative, data in tiny_bundle.CONTENT.items():
            writer.add_file(relative, data)
        writer.finish(manifest)
    return Bundle.open(path)


def printed(bundle: Bundle, width: int = 200, colour: bool = False) -> str:
    stream = io.StringIO()
    show(bundle, Console(file=stream, width=width, force_terminal=colour))
    return stream.getvalue()


def test_the_description_is_json_and_complete(tmp_path: Path) -> None:
    bundle = written(tmp_path / "b", tiny_bundle.manifest())
    said = json.loads(json.dumps(describe(bundle)))
    assert said["size_on_disk_bytes"] == bundle.size
    assert said["generation"]["start"] == [0]
    [decode] = said["components"]["decode"]
    assert decode["precision"]["rows"] == "rounding"
    assert decode["cache"]["kind"] == "append"
    assert decode["file_bytes"] == len(b"decode graph")
    assert decode["weights_bytes"] == 256
    assert decode["inputs"] == ["tokens int64[B,n]"]
    assert said["parity"][0]["prompts"][0]["error"] == 0.001
    assert said["provenance"]["command"] == "edgegen export local"
    # Only the list of files and the template, which has a flag, are left to the manifest itself.
    left_out = set(Manifest.__struct_fields__) - set(said)
    assert left_out == {"files", "chat", "port_names"}


def test_people_see_every_component_variant_and_result(tmp_path: Path) -> None:
    text = printed(written(tmp_path / "b", tiny_bundle.manifest()))
    for said in (
        *("tiny", "t5", "text2text-generation", "1.2 k", "Apache-2.0"),
        *("encode", "decode", "onnx plain", "int8", "32", "to rounding", "append", "n=8"),
        *("256 B weights.bin", "100.00%", "medusa", "greedy-identical"),
        *("start", "5 at 0", "edgegen export local", "edgegen 0.1.0"),
    ):
        assert said in text, said


def test_what_was_not_measured_is_not_shown_as_a_number(tmp_path: Path) -> None:
    skipped = (Parity(format="onnx", weight_format="int8", skipped=True),)
    for parity in (skipped, ()):
        manifest = msgspec.structs.replace(tiny_bundle.manifest(), parity=parity)
        text = printed(written(tmp_path / "b", manifest))
        assert "not measured" in text
        assert "%" not in text


@pytest.mark.parametrize("colour", [False, True])
def test_nothing_in_a_manifest_is_obeyed_by_the_terminal(tmp_path: Path, colour: bool) -> None:
    evil = "\x1b]0;owned\x07[bold red]x[/] \u202egnp.exe\r\n\x9b31m"
    manifest = msgspec.structs.replace(tiny_bundle.manifest(), name=evil, family=evil)
    origin = msgspec.structs.replace(manifest.provenance, licence=evil, versions={evil: evil})
    text = printed(
        written(tmp_path / "b", msgspec.structs.replace(manifest, provenance=origin)), colour=colour
    )
    assert not set(text) & set("\x07\u202e\r\x9b")
    assert "\x1b]" not in text
    assert "[bold red]x[/]" in text


def test_speech_bundles_say_their_window_and_languages(tmp_path: Path) -> None:
    speech = Speech(languages={"de": 3, "pt": 4})
    manifest = msgspec.structs.replace(tiny_bundle.manifest(), speech=speech)
    bundle = written(tmp_path / "b", manifest)
    assert "windows of 30 s, 2 languages" in printed(bundle)
    assert describe(bundle)["speech"]["languages"] == {"de": 3, "pt": 4}


def test_a_narrow_terminal_loses_nothing(tmp_path: Path) -> None:
    bundle = written(tmp_path / "b", tiny_bundle.manifest())
    for width in (60, 80):
        text = printed(bundle, width=width)
        assert max(map(len, text.splitlines())) <= width
        cut = "".join(text.split())
        assert all(word in cut for word in ("medusa", "256B", "int8"))
    words = text.split()  # of 80 columns: none is broken
    assert {"component", "rounding", "append", "weights.bin", "greedy-identical"} <= set(words)


def test_numbers_are_written_for_people() -> None:
    sizes = [0, 999, 1000, 37_400_000, 2 * 10**9, 10**12]
    assert [size_text(size) for size in sizes] == [
        *("0 B", "999 B", "1.0 kB", "37.4 MB", "2.0 GB", "1.0 TB")
    ]
    counts = [0, 999, 1234, 37_800_000, 7 * 10**9, 10**12]
    assert [count_text(count) for count in counts] == [
        "0",
        "999",
        "1.2 k",
        "37.8 M",
        "7.0 G",
        "1.0 T",
    ]
