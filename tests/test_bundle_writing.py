"""Whatever stops a writer, the old bundle or the new one stands, and nothing else is touched."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tiny_bundle
from broken_bundle import WEIGHTS, posix, rewrite

from edgegen import bundle_swap
from edgegen.bundle import Bundle
from edgegen.bundle_writer import BundleWriter
from edgegen.errors import ExportError
from edgegen.manifest import Manifest


def siblings(bundle: Path) -> list[str]:
    return sorted(os.listdir(bundle.parent))


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
