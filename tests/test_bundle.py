"""A bundle opens when every rule is kept and is refused in one line when any is broken."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tiny_bundle

from edgegen import bundle_files, bundle_swap
from edgegen.bundle import Bundle
from edgegen.bundle_rules import MANIFEST_NAME, MAX_MANIFEST_BYTES, path_fault, read_manifest
from edgegen.bundle_writer import BundleWriter
from edgegen.errors import BundleError, ExportError, UnknownName
from edgegen.manifest import Manifest, json_schema

Break = Callable[[dict[str, Any]], None]
WEIGHTS = "graphs/onnx-int8/weights.bin"
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs fifos and links")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    tiny_bundle.write(tmp_path / "b")
    return tmp_path / "b"


def rewrite(bundle: Path, change: Break) -> None:
    place = bundle / MANIFEST_NAME
    said = json.loads(place.read_bytes())
    change(said)
    place.write_text(json.dumps(said), encoding="utf-8")


def refusal(bundle: Path, verify: bool = True) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.open(bundle, verify=verify)
    line = str(caught.value)
    assert line.isprintable(), line
    assert len(line) < 8192
    return line


def siblings(bundle: Path) -> list[str]:
    return sorted(os.listdir(bundle.parent))


# Reading


def test_what_was_written_is_what_is_read(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    assert {file.path for file in opened.manifest.files} == set(tiny_bundle.CONTENT)
    for path, data in tiny_bundle.CONTENT.items():
        assert opened.file(path).read_bytes() == data
    assert opened.path == bundle
    assert opened.size == sum(p.stat().st_size for p in bundle.rglob("*") if p.is_file())
    assert opened.component("decode").variants[0].cache.kind == "append"


def test_only_listed_files_and_present_components_are_given_out(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    for path in (MANIFEST_NAME, "../b/edgegen.json", "graphs", "", "/etc/passwd"):
        with pytest.raises(BundleError, match="is not one of its files"):
            opened.file(path)
    with pytest.raises(UnknownName, match="decode, encode"):
        opened.component("decoder")


@pytest.mark.parametrize("depth", [10, 100_000])
def test_depth_bombs_are_refused(bundle: Path, depth: int) -> None:
    bomb = "[" * depth + "]" * depth
    (bundle / MANIFEST_NAME).write_text('{"x":' + bomb + ',"schema_version":"2.0"}')
    assert "unknown field" in refusal(bundle) or depth > 10
    (bundle / MANIFEST_NAME).write_text(bomb)
    refusal(bundle)


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"\xff\xfe", b'{"schema_version":"\\ud800"}', b'{"schema_version":"\xff"}'],
)
def test_what_is_not_json_is_refused(bundle: Path, data: bytes) -> None:
    (bundle / MANIFEST_NAME).write_bytes(data)
    assert "cannot be read" in refusal(bundle)


def test_a_manifest_over_the_cap_is_not_read(bundle: Path) -> None:
    with (bundle / MANIFEST_NAME).open("ab") as file:
        file.truncate(MAX_MANIFEST_BYTES + 1)
    assert "at most 16777216" in refusal(bundle)


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("3.0", "pip install -U edgegen"),
        ("1.0", "export the model anew"),
        ("1", "must look like"),
        ("1.0\n", "must look like"),
        ("1." + "9" * 9000, "must look like"),
        ("\u0661.0", "must look like"),
    ],
)
def test_unknown_majors_are_refused_with_a_way_out(bundle: Path, version: str, said: str) -> None:
    rewrite(bundle, lambda m: m.update(schema_version=version, future={"a": 1}))
    assert said in refusal(bundle)


def test_a_newer_minor_is_read_when_it_says_nothing_new(bundle: Path) -> None:
    rewrite(bundle, lambda m: m.update(schema_version="2.7"))
    assert Bundle.open(bundle).manifest.schema_version == "2.7"
    rewrite(bundle, lambda m: m.update(future=1))
    assert "version 2.7, newer than 2.0: pip install -U edgegen" in refusal(bundle)


HOSTILE_PATHS = {
    "/etc/passwd": "not relative",
    "//server/share": "not relative",
    "C:/x": "not relative",
    "c:x": "not relative",
    "../x": "leaves",
    "a/../../x": "leaves",
    "a\\b": "backslash",
    "a\0b": "NUL",
    "": "at least 1|>= 1",
    ".": "not a name",
    "a//b": "not a name",
    "a/": "not a name",
    "a/./b": "not a name",
    "ab:stream": "not a name",
    "con": "not a name",
    "a/NUL.txt": "not a name",
    "a. ": "not a name",
    "a.": "not a name",
    "caf\u00e9": "not a name",
    "a\nb": "not a name",
    "\u202ea": "not a name",
    "x" * 300: "not a name",
    "x/" * 400 + "x": "512",
    "Edgegen.JSON": "manifest itself",
}


@pytest.mark.parametrize("path", HOSTILE_PATHS, ids=ascii)
def test_a_path_that_could_leave_the_folder_is_refused(bundle: Path, path: str) -> None:
    rewrite(bundle, lambda m: m["files"][0].update(path=path))
    line = refusal(bundle, verify=False)
    assert any(said in line for said in HOSTILE_PATHS[path].split("|")), line


def test_paths_that_only_some_systems_tell_apart_are_refused(bundle: Path) -> None:
    rewrite(bundle, lambda m: m["files"].append({**m["files"][0]}))
    assert "listed twice" in refusal(bundle)

    def shout(said: dict[str, Any]) -> None:
        said["files"][-1]["path"] = said["files"][0]["path"].upper()

    rewrite(bundle, shout)
    assert "the same to some systems" in refusal(bundle)


def _set(*keys: Any, to: Any) -> Break:
    def change(said: Any) -> None:
        for key in keys[:-1]:
            said = said[key]
        said[keys[-1]] = to

    return change


VARIANT = ("components", "decode", "variants", 0)
PORT = (*VARIANT, "graph", "inputs", 0)
BREAKS: dict[str, tuple[Break, str]] = {
    "negative size": (_set("files", 0, "size", to=-1), ">= 0"),
    "size over 1 TiB": (_set("files", 0, "size", to=2**40 + 1), "<= 1099511627776"),
    "size of many digits": (_set("files", 0, "size", to=10**4000), "<= 1099511627776"),
    "size as a fraction": (_set("files", 0, "size", to=1.5), "Expected `int`"),
    "sizes summing over 1 TiB": (
        lambda m: [file.update(size=2**40) for file in m["files"]].clear(),
        "more than 1099511627776",
    ),
    "capitals in a hash": (_set("files", 0, "sha256", to="A" * 64), "matching regex"),
    "a hash with a line break": (_set("files", 0, "sha256", to="a" * 64 + "\n"), "sha256"),
    "no components": (_set("components", to={}), "length >= 1"),
    "a component without variants": (_set("components", "decode", "variants", to=[]), ">= 1"),
    "a graph that is not listed": (_set(*VARIANT, "file", to="graphs/x.onnx"), "not in files"),
    "weights that are not listed": (_set(*VARIANT, "weights", to=["w.bin"]), "not in files"),
    "weights elsewhere": (
        _set(*VARIANT, "weights", to=["tokenizers/source.json"]),
        "outside the folder",
    ),
    "a tokenizer that is not listed": (
        _set("tokenizers", "source", "path", to="t.json"),
        "not in files",
    ),
    "a tokenizer without a path": (_set("tokenizers", "source", "path", to=None), "has no path"),
    "an unknown type": (_set(*PORT, "dtype", to="object"), "unknown type"),
    "an absurd shape": (_set(*PORT, "shape", to=[2**30, 2**30]), "absurd shape"),
    "a zero that hides a shape": (_set(*PORT, "shape", to=[0, 2**62]), "absurd shape"),
    "a negative shape": (_set(*PORT, "shape", to=[-1]), "absurd shape"),
    "too many dimensions": (_set(*PORT, "shape", to=["B"] * 17), "17 dimensions"),
    "a dimension that is no name": (_set(*PORT, "shape", to=["B n"]), "no name or sum"),
    "a port without a name": (_set(*PORT, "name", to=""), "0 characters"),
    "a port named twice": (
        lambda m: m["components"]["decode"]["variants"][0]["graph"]["inputs"].append(
            m["components"]["decode"]["variants"][0]["graph"]["inputs"][0]
        ),
        "a port twice",
    ),
    "a cache of nothing": (_set(*VARIANT, "cache", to={"kind": "append"}), "without layers"),
    "a cache over 1 TiB": (
        _set(
            *VARIANT,
            "cache",
            to={"kind": "in_place", "layers": 2**20, "heads": 2**20, "head_dim": 64},
        ),
        "more than 1099511627776",
    ),
    "a cache of enormous rows": (
        _set(*VARIANT, "cache", to={"kind": "stateful", "layers": 1, "head_dim": 2**20 * 5}),
        "<= 1048576",
    ),
    "a cache of very many layers": (
        _set(*VARIANT, "cache", to={"kind": "stateful", "layers": 2**19, "head_dim": 64}),
        "more than 4194304 numbers a position",
    ),
    "an absurd capacity": (_set(*VARIANT, "buckets", to={"capacity": 2**60}), "<= 16777216"),
    "an empty bucket": (_set(*VARIANT, "buckets", to={"capacity": 0}), ">= 1"),
    "absurd positions": (_set("generation", "max_positions", to=2**40), "<= 16777216"),
    "an id outside the vocabulary": (_set("generation", "end", to=[32]), "generation.end holds 32"),
    "a negative id": (_set("generation", "end", to=[-1]), ">= 0"),
    "a draft of nothing": (_set("drafts", 0, "component", to="heads"), "no component"),
    "an unknown field": (_set("generation", "temperature", to=1), "unknown field"),
    "an unknown field with an escape": (_set("\x1b[31m\nx", to=1), "unknown field"),
    "a task that is not": (_set("task", to="chess"), "Invalid enum value"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_manifest_that_breaks_a_rule_is_refused(bundle: Path, name: str) -> None:
    change, said = BREAKS[name]
    rewrite(bundle, change)
    assert said in refusal(bundle)


def test_all_faults_are_named_at_once(bundle: Path) -> None:
    rewrite(bundle, _set("tokenizers", "source", "path", to="t.json"))
    (bundle / WEIGHTS).write_bytes(b"short")
    (bundle / "graphs/onnx-int8/encode.onnx").unlink()
    line = refusal(bundle)
    for said in (
        "t.json, which is not in files",
        "5 bytes, expected 256",
        "encode.onnx is missing",
    ):
        assert said in line


def test_very_many_faults_are_counted(bundle: Path) -> None:
    extra = [{"path": f"f{i}", "sha256": "0" * 64, "size": 1} for i in range(10_001)]
    rewrite(bundle, lambda m: m["files"].extend(extra))
    assert "10005 files are listed" in refusal(bundle)
    assert "more." in refusal(bundle)


def test_one_changed_bit_is_refused_by_verify_alone(bundle: Path) -> None:
    data = bytearray((bundle / WEIGHTS).read_bytes())
    data[100] ^= 1
    (bundle / WEIGHTS).write_bytes(data)
    assert f"{WEIGHTS} has sha256" in refusal(bundle)
    assert Bundle.open(bundle, verify=False).manifest.name == "tiny"


def test_large_files_are_hashed_too(tmp_path: Path) -> None:
    tiny_bundle.write(tmp_path / "b", content={WEIGHTS: bytes(3 * 2**20)})
    Bundle.open(tmp_path / "b")
    with (tmp_path / "b" / WEIGHTS).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    assert "damaged or altered" in refusal(tmp_path / "b")


@pytest.mark.parametrize("path", ["nothing", "b/edgegen.json", "b/graphs", "a\0b", "/"])
def test_what_is_no_bundle_folder_is_refused(bundle: Path, path: str) -> None:
    refusal(bundle.parent / path)


# Links and special files


@posix
@pytest.mark.parametrize("end", ["/etc/hostname", "../outside", "tokenizers/source.json", "x.bin"])
def test_a_listed_file_may_not_be_a_link(bundle: Path, end: str) -> None:
    (bundle / WEIGHTS).unlink()
    (bundle / WEIGHTS).symlink_to(end)
    assert f"{WEIGHTS} is a link" in refusal(bundle)


@posix
def test_a_listed_file_may_not_be_reached_through_a_link(bundle: Path, tmp_path: Path) -> None:
    shutil.move(bundle / "graphs", tmp_path / "graphs")
    (bundle / "graphs").symlink_to(tmp_path / "graphs")
    line = refusal(bundle)
    assert "graphs is a link out of the bundle" in line
    assert f"{WEIGHTS} is missing" in line


@posix
@pytest.mark.parametrize("end", ["/", "..", "../b2", "loop/../..", "graphs/../../b"])
def test_no_link_may_leave_the_folder_listed_or_not(bundle: Path, end: str) -> None:
    (bundle / "loop").symlink_to("loop")
    Bundle.open(bundle)
    (bundle / "extra").symlink_to(end)
    if end == "graphs/../../b":
        assert Bundle.open(bundle).path == bundle  # leads back to the bundle itself
        return
    assert "extra is a link out of the bundle" in refusal(bundle)


@posix
@pytest.mark.parametrize("place", [WEIGHTS, MANIFEST_NAME, "extra"])
@pytest.mark.parametrize("verify", [True, False])
def test_a_fifo_is_refused_without_waiting(bundle: Path, place: str, verify: bool) -> None:
    (bundle / place).unlink(missing_ok=True)
    os.mkfifo(bundle / place)
    assert "neither a file" in (line := refusal(bundle, verify)) or "regular file" in line


@posix
def test_a_file_that_becomes_a_fifo_after_the_listing_does_not_hang(bundle: Path) -> None:
    (bundle / WEIGHTS).unlink()
    os.mkfifo(bundle / WEIGHTS)
    with pytest.raises(OSError, match="not a regular file"):
        bundle_files.sha256(bundle / WEIGHTS)


@posix
def test_the_manifest_may_be_no_link_and_no_device(bundle: Path) -> None:
    (bundle / MANIFEST_NAME).unlink()
    (bundle / MANIFEST_NAME).symlink_to("/dev/zero")
    assert "a link, not a file" in refusal(bundle)


def test_beside_a_graph_every_file_is_listed(bundle: Path) -> None:
    (bundle / "README.md").write_text("mine")
    (bundle / "graphs/onnx-int8/.DS_Store").write_text("a file manager's")
    Bundle.open(bundle)
    (bundle / "graphs/onnx-int8/extra.bin").write_text("read by a graph, hashed by nobody")
    assert "extra.bin lies beside a graph and is not in files" in refusal(bundle)


@posix
def test_folders_without_end_are_refused(bundle: Path) -> None:
    (bundle / ("d/" * 40)).mkdir(parents=True)
    assert "folders deeper than 16" in refusal(bundle)


@posix
def test_names_that_are_not_text_are_refused_in_text(bundle: Path) -> None:
    os.close(os.open(os.fsencode(bundle) + b"/graphs/onnx-int8/\xff\n", os.O_CREAT))
    assert "lies beside a graph" in refusal(bundle)


# Writing


def test_a_bundle_replaces_a_bundle_and_leaves_nothing_else(bundle: Path) -> None:
    tiny_bundle.write(bundle, "second", {"tokenizers/more.json": b"{}"})
    assert Bundle.open(bundle).manifest.name == "second"
    tiny_bundle.write(bundle, "third")
    assert not (bundle / "tokenizers/more.json").exists()
    assert siblings(bundle) == ["b"]


def test_a_damaged_bundle_may_be_replaced(bundle: Path) -> None:
    (bundle / WEIGHTS).unlink()
    rewrite(bundle, lambda m: m.update(schema_version="9.9", new_field=1))
    tiny_bundle.write(bundle, "mended")
    assert Bundle.open(bundle).manifest.name == "mended"


def test_an_empty_folder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    tiny_bundle.write(tmp_path / "b")
    assert Bundle.open(tmp_path / "b").manifest.name == "tiny"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("thesis.tex", "no bundle"),
        ("thesis/", "no bundle"),
        ("edgegen.json", "no bundle's"),
    ],
)
def test_a_folder_of_other_things_is_never_replaced(tmp_path: Path, place: str, said: str) -> None:
    target = tmp_path / "b"
    target.mkdir()
    if place.endswith("/"):
        (target / place).mkdir()
    else:
        (target / place).write_text("years of work")
    with pytest.raises(ExportError, match=said):
        tiny_bundle.write(target)
    assert os.listdir(target) == [place.rstrip("/")]
    assert siblings(target) == ["b"]


def test_what_was_added_to_a_bundle_by_hand_is_never_deleted(bundle: Path) -> None:
    (bundle / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match=r"also holds notes\.txt"):
        tiny_bundle.write(bundle, "second")
    assert Bundle.open(bundle).manifest.name == "tiny"
    assert (bundle / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("path", ["/", "a\0b"])
def test_a_name_that_cannot_be_a_bundle_is_refused(path: str) -> None:
    with pytest.raises(ExportError):
        BundleWriter(path)


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("mine")
    with pytest.raises(ExportError, match="is a file"):
        tiny_bundle.write(tmp_path / "b")
    assert (tmp_path / "b").read_text() == "mine"


@posix
def test_a_link_to_a_bundle_stays_a_link(bundle: Path) -> None:
    (bundle.parent / "link").symlink_to("b")
    tiny_bundle.write(bundle.parent / "link", "second")
    assert (bundle.parent / "link").is_symlink()
    assert Bundle.open(bundle).manifest.name == "second"


@pytest.mark.parametrize("fault", [KeyboardInterrupt, RuntimeError, SystemExit, OSError])
def test_an_exception_leaves_nothing_behind(tmp_path: Path, fault: type[BaseException]) -> None:
    target = tmp_path / "not/yet/there"
    with pytest.raises(fault), BundleWriter(target) as writer:
        writer.add_file("a", b"a")
        raise fault
    assert os.listdir(tmp_path) == []


def steps_of(target: Path) -> list[str]:
    steps: list[str] = []
    with BundleWriter(target, on_step=steps.append) as writer:
        writer.add_file(WEIGHTS, b"new")
        for path in set(tiny_bundle.CONTENT) - {WEIGHTS}:
            writer.add_file(path, b"new")
        writer.finish(tiny_bundle.manifest())
    return steps


def test_ctrl_c_at_any_step_leaves_the_old_or_the_new_bundle(tmp_path: Path) -> None:
    target = tmp_path / "b"
    tiny_bundle.write(target)
    steps = steps_of(target)
    assert "old bundle aside" in steps
    for count in range(len(steps)):
        tiny_bundle.write(target)
        left = iter(range(count))

        def interrupt(step: str, left: Any = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt), BundleWriter(target, on_step=interrupt) as writer:
            for path in tiny_bundle.CONTENT:
                writer.add_file(path, b"new")
            writer.finish(msgspec.structs.replace(tiny_bundle.manifest(), name="second"))
        placed = count >= steps.index("new bundle in place")
        assert Bundle.open(target).manifest.name == ("second" if placed else "tiny")
        tiny_bundle.write(target)
        assert siblings(target) == ["b"]


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("function", ["os.mkdir", "os.fsync", "os.rename", "shutil.copyfileobj"])
def test_a_full_disk_is_one_line_and_the_old_bundle_stays(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    source = bundle / WEIGHTS

    def full(*_: Any, **__: Any) -> None:
        raise FULL

    with monkeypatch.context() as patch:
        patch.setattr(function, full)
        with pytest.raises(ExportError, match="free some space") as caught:
            tiny_bundle.write(bundle, "second") if function != "shutil.copyfileobj" else (
                _copy_into(bundle, source)
            )
    assert "\n" not in str(caught.value)
    assert Bundle.open(bundle).manifest.name == "tiny"
    assert siblings(bundle) == ["b"]


def _copy_into(target: Path, source: Path) -> None:
    with BundleWriter(target) as writer:
        writer.add_file(WEIGHTS, source)


def test_a_disk_that_fills_under_a_tool_is_one_line_too(bundle: Path) -> None:
    with pytest.raises(ExportError, match="free some space"), BundleWriter(bundle):
        raise FULL
    assert Bundle.open(bundle).manifest.name == "tiny"


@posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_truly_full_device_is_one_line(bundle: Path) -> None:
    with pytest.raises(ExportError, match="No space left"), BundleWriter(bundle) as writer:
        (writer.folder / "big").symlink_to("/dev/full")
        with (writer.folder / "big").open("wb", buffering=0) as file:
            file.write(b"x")
    assert Bundle.open(bundle).manifest.name == "tiny"


def test_copied_files_are_the_same_files(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(5000))
    with BundleWriter(tmp_path / "b") as writer:
        for path, data in tiny_bundle.CONTENT.items():
            writer.add_file(path, source if path == WEIGHTS else data)
        with pytest.raises(ExportError, match="File exists"):
            writer.add_file(WEIGHTS, b"again")
        with pytest.raises(ExportError, match="leaves the bundle"):
            writer.add_file("../x", b"")
        writer.finish(tiny_bundle.manifest())
    assert Bundle.open(tmp_path / "b").file(WEIGHTS).read_bytes() == source.read_bytes()


def test_a_writer_left_unfinished_says_so(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="before finish"), BundleWriter(tmp_path / "b"):
        pass
    with pytest.raises(RuntimeError, match="inside"):
        _ = BundleWriter(tmp_path / "b").folder
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"parameters": -1}, ">= 0"),
        ({"schema_version": "7.0"}, "version 7.0"),
        ({"name": "\udcff"}, "surrogates"),
        ({"vocabulary": 1}, "generation.end holds 1"),
        ({"components": {}}, "length >= 1"),
    ],
)
def test_a_manifest_that_would_not_open_is_not_written(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    wrong: Manifest = msgspec.structs.replace(tiny_bundle.manifest(), **change)
    with pytest.raises(ExportError, match=said), BundleWriter(tmp_path / "b") as writer:
        for path, data in tiny_bundle.CONTENT.items():
            writer.add_file(path, data)
        writer.finish(wrong)
    assert os.listdir(tmp_path) == []


def test_the_folder_rules_hold_for_what_tools_write(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"link; path b c"), BundleWriter(tmp_path / "b") as w:
        (w.folder / "a").symlink_to("/etc/passwd")
        (w.folder / "b c").write_text("")
        w.finish(tiny_bundle.manifest())


@posix
def test_a_living_writer_keeps_its_folder_and_a_dead_one_loses_it(tmp_path: Path) -> None:
    dead = bundle_swap.unfinished_of(tmp_path / "b")
    dead.mkdir()
    (dead / "half").write_text("")
    with BundleWriter(tmp_path / "b") as slow:
        assert not dead.exists()
        slow.add_file(WEIGHTS, b"slow")
        tiny_bundle.write(tmp_path / "b", "quick")
        for path in set(tiny_bundle.CONTENT) - {WEIGHTS}:
            slow.add_file(path, b"slow")
        slow.finish(msgspec.structs.replace(tiny_bundle.manifest(), name="slow"))
    assert Bundle.open(tmp_path / "b").manifest.name == "slow"
    assert siblings(tmp_path / "b") == ["b"]


def test_a_bundle_left_aside_is_put_back_by_whoever_comes_next(bundle: Path) -> None:
    backup = bundle_swap.backup_of(bundle)
    os.rename(bundle, backup)
    assert Bundle.open(bundle).manifest.name == "tiny"
    os.rename(bundle, backup)
    with pytest.raises(ExportError, match="before finish"), BundleWriter(bundle):
        pass
    assert Bundle.open(bundle).manifest.name == "tiny"
    assert siblings(bundle) == ["b"]


def test_a_bundle_left_aside_never_takes_the_place_of_a_standing_one(bundle: Path) -> None:
    shutil.copytree(bundle, bundle_swap.backup_of(bundle))
    rewrite(bundle, lambda m: m.update(name="standing"))
    assert Bundle.open(bundle).manifest.name == "standing"


def test_a_reader_between_the_two_renames_does_not_break_the_writer(bundle: Path) -> None:
    seen: list[str] = []

    def read(step: str) -> None:
        if step == "old bundle aside" and len(seen) < 2:
            seen.append(Bundle.open(bundle).manifest.name)

    with BundleWriter(bundle, on_step=read) as writer:
        for path in tiny_bundle.CONTENT:
            writer.add_file(path, b"new")
        writer.finish(msgspec.structs.replace(tiny_bundle.manifest(), name="second"))
    assert seen == ["tiny", "tiny"]
    assert Bundle.open(bundle).manifest.name == "second"
    assert siblings(bundle) == ["b"]


# The written spec


def test_the_published_schema_is_the_one_the_types_make(repository: Path) -> None:
    published = json.loads((repository / "docs/bundle.schema.json").read_bytes())
    assert published == json.loads(json.dumps(json_schema()))


def test_every_field_is_in_the_written_spec(repository: Path) -> None:
    spec = (repository / "docs/bundle.md").read_text(encoding="utf-8")
    fields = {
        field for kind in json_schema()["$defs"].values() for field in kind.get("properties", {})
    }
    assert len(fields) > 50
    assert [field for field in sorted(fields) if f"`{field}`" not in spec] == []


def test_the_manifest_reads_back_what_it_wrote() -> None:
    said = msgspec.structs.replace(tiny_bundle.manifest(), name='"\\\u00e9\U0001f600')
    assert read_manifest(said.to_json()) == said


@pytest.mark.parametrize("path", [*tiny_bundle.CONTENT, "a", "A/b-c_d+e=f@1,2~3.x", "..a/b", ".a"])
def test_plain_names_are_paths(path: str) -> None:
    assert path_fault(path) is None
