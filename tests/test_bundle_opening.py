"""A bundle whose large files are hashed while it is already being compiled."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_bundle

import edgegen
from edgegen import bundle_hashes
from edgegen.bundle import Bundle
from edgegen.errors import BundleError, DeviceError, EdgegenError
from edgegen.runtime.engine import Engine
from edgegen.runtime.text import TextTask

WEIGHTS, TOKENIZER = "graphs/onnx-int8/weights.bin", "tokenizers/source.json"
LARGE = 3 * 2**20


def damage(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.seek(-1, os.SEEK_END)
        last = opened.read(1)
        opened.seek(-1, os.SEEK_END)
        opened.write(bytes([last[0] ^ 1]))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "b"
    tiny_bundle.write(folder, content={WEIGHTS: bytes(LARGE)})
    return folder


def test_a_damaged_small_file_is_refused_before_anything_reads_it(bundle: Path) -> None:
    small = next(file for file in Bundle.open(bundle).manifest.files if file.size < 2**20)
    damage(bundle / small.path)
    read = False
    with pytest.raises(BundleError, match="damaged or altered"), Bundle.opening(bundle):
        read = True
    assert not read


def test_a_large_file_that_is_parsed_is_checked_before_too(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    tiny_bundle.write(folder, content={TOKENIZER: b"{}" + b" " * LARGE})
    damage(folder / TOKENIZER)
    read = False
    with pytest.raises(BundleError, match=TOKENIZER), Bundle.opening(folder):
        read = True
    assert not read


def test_all_damaged_files_are_named_at_once(bundle: Path) -> None:
    files = Bundle.open(bundle).manifest.files
    small = next(file for file in files if file.size < 2**20)
    large = next(file for file in files if file.size >= 2**20)
    for file in (small, large):
        damage(bundle / file.path)
    with pytest.raises(BundleError) as caught:
        Bundle.open(bundle)
    assert small.path in str(caught.value) and large.path in str(caught.value)


def test_damage_explains_what_failed_inside(bundle: Path) -> None:
    large = next(file for file in Bundle.open(bundle).manifest.files if file.size >= 2**20)
    with (
        pytest.raises(DeviceError, match="cannot compile"),
        Bundle.opening(bundle),
    ):
        raise DeviceError("cannot compile")
    damage(bundle / large.path)
    with (
        pytest.raises(BundleError, match=f"{large.path} has sha256"),
        Bundle.opening(bundle),
    ):
        raise DeviceError("cannot compile")


def test_an_interrupt_inside_is_not_kept_waiting(bundle: Path) -> None:
    damage(bundle / WEIGHTS)
    with pytest.raises(KeyboardInterrupt), Bundle.opening(bundle):
        raise KeyboardInterrupt


def test_load_gives_no_pipeline_of_damaged_weights(tiny_t5_bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_t5_bundle, copy)
    damage(next((copy / "graphs").rglob("weights.data")))
    with pytest.raises(BundleError, match="damaged or altered"):
        edgegen.load(copy)
    edgegen.load(copy, verify=False).close()


@pytest.mark.parametrize("fault", ["weights", "corpus", "draft model", "task"])
def test_what_was_opened_is_closed_where_a_load_fails(
    fault: str, tiny_t5_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, closed, compiled = tmp_path / "copy", list[Engine](), list[str]()
    shutil.copytree(tiny_t5_bundle, copy)
    close = Engine.close

    def seen(engine: Engine) -> None:
        compiled.extend(engine.compile_seconds)
        closed.append(engine)
        close(engine)

    def fails(*_: object) -> None:
        raise DeviceError("no task")

    given: dict[str, Any] = {}
    monkeypatch.setattr(Engine, "close", seen)
    if fault == "weights":  # hashed while graphs compile, as large files are
        monkeypatch.setattr(bundle_hashes, "LARGE", 1)
        damage(next((copy / "graphs").rglob("weights.data")))
    elif fault == "task":
        monkeypatch.setattr(TextTask, "__init__", fails)
    else:
        given = {fault.replace(" ", "_"): tmp_path / "none"}
    with pytest.raises(EdgegenError):
        edgegen.load(copy, **given)
    assert len(closed) == 1
    # What is named amiss is told before anything compiles.
    assert bool(compiled) == (fault in {"weights", "task"})
