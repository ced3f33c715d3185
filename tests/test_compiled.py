"""Compiled graphs kept between starts: found again, never believed when damaged, made when not."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from tiny_families import write_bundle

import edgegen
from edgegen.bundle import Bundle
from edgegen.devices import DeviceOptions
from edgegen.devices.compiled import NEW, SEAL, kept, key_of
from edgegen.devices.openvino import compile_session
from edgegen.devices.ov_cpu import OvCpu
from edgegen.devices.ov_npu import OvNpu
from edgegen.errors import DeviceError

SHORT = edgegen.GenerationOptions(max_new_tokens=6)
KEY = {"graph": "a", "driver": "1"}


class Compiler:
    """Writes what it compiles, and counts how often it had to."""

    def __init__(self) -> None:
        self.made = 0

    def make(self, folder: Path) -> str:
        self.made += 1
        (folder / "deep").mkdir()
        (folder / "deep" / "graph.blob").write_bytes(b"compiled" * 100)
        return "compiled" * 100

    def read(self, folder: Path) -> str:
        return (folder / "deep" / "graph.blob").read_text()

    def start(self, root: Path, key: dict[str, str] | None = None) -> str:
        return kept(root, key or KEY, self.make, self.read)


def entry(root: Path) -> Path:
    (found,) = (root / "compiled").iterdir()
    return found


def test_what_was_compiled_is_found_by_the_next_start(tmp_path: Path) -> None:
    compiler = Compiler()
    assert len({compiler.start(tmp_path) for _ in range(3)}) == 1
    assert compiler.made == 1
    assert sorted(file.name for file in entry(tmp_path).iterdir()) == ["deep", SEAL]


@pytest.mark.parametrize("change", [{"graph": "b"}, {"driver": "2"}, {"threads": "4"}])
def test_another_graph_driver_or_option_is_compiled_anew(
    change: dict[str, str], tmp_path: Path
) -> None:
    compiler = Compiler()
    compiler.start(tmp_path)
    compiler.start(tmp_path, {**KEY, **change})
    assert compiler.made == 2


def test_the_key_is_the_content_of_graph_and_weights(tmp_path: Path) -> None:
    graph, weights = tmp_path / "graph", tmp_path / "weights"
    graph.write_bytes(b"g")
    weights.write_bytes(b"w")
    first = key_of(graph, [weights], device="d")
    assert key_of(graph, [weights], device="d") == first
    assert key_of(graph, [weights], device="e") != first
    weights.write_bytes(b"v")
    os.utime(weights, ns=(1, 1))
    assert key_of(graph, [weights], device="d") != first


def flip(folder: Path) -> None:
    file = folder / "deep" / "graph.blob"
    content = bytearray(file.read_bytes())
    content[50] ^= 1
    file.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped bit": flip,
    "cut": lambda folder: os.truncate(folder / "deep" / "graph.blob", 40),
    "empty": lambda folder: (folder / "deep" / "graph.blob").write_bytes(b""),
    "a file gone": lambda folder: (folder / "deep" / "graph.blob").unlink(),
    "a file more": lambda folder: (folder / "other").write_bytes(b"x"),
    "no seal": lambda folder: (folder / SEAL).unlink(),
    "half a seal": lambda folder: os.truncate(folder / SEAL, 30),
    "another's seal": lambda folder: (folder / SEAL).write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_never_read_and_is_made_anew(damage: str, tmp_path: Path) -> None:
    compiler = Compiler()
    told = compiler.start(tmp_path)
    DAMAGES[damage](entry(tmp_path))

    def refuse(folder: Path) -> str:
        raise AssertionError(f"{folder} was read")

    assert kept(tmp_path, KEY, compiler.make, refuse) == told
    assert compiler.start(tmp_path) == told
    assert compiler.made == 2


def test_an_entry_the_driver_refuses_is_made_anew(tmp_path: Path) -> None:
    compiler = Compiler()
    compiler.start(tmp_path)

    def refuse(folder: Path) -> str:
        raise DeviceError("made by another driver.")

    kept(tmp_path, KEY, compiler.make, refuse)
    assert compiler.made == 2
    compiler.start(tmp_path)
    assert compiler.made == 2


def test_a_failure_to_compile_leaves_nothing(tmp_path: Path) -> None:
    def broken(folder: Path) -> str:
        (folder / "half").write_bytes(b"half")
        raise DeviceError("no.")

    with pytest.raises(DeviceError, match=r"^no\.$"):
        kept(tmp_path, KEY, broken, Compiler().read)
    assert not list((tmp_path / "compiled").iterdir())


def test_a_device_that_writes_nothing_leaves_nothing(tmp_path: Path) -> None:
    assert kept(tmp_path, KEY, lambda folder: "in memory", Compiler().read) == "in memory"
    assert not list((tmp_path / "compiled").iterdir())


@pytest.mark.parametrize("where", ["seal", "mkdtemp"])
def test_a_full_disk_is_one_line(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(f"edgegen.devices.compiled.{where}", full)
    with pytest.raises(DeviceError, match="No space left on device; name a folder") as caught:
        Compiler().start(tmp_path)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "compiled").iterdir())


def test_a_place_that_is_no_folder_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(DeviceError, match=r"file: .*--cache-dir"):
        Compiler().start(file)


def test_what_a_killed_process_left_goes_after_a_day(tmp_path: Path) -> None:
    old, new = (tmp_path / "compiled" / f"{NEW}{name}" for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir(parents=True)
    os.utime(old, (0, 0))
    Compiler().start(tmp_path)
    assert (old.exists(), new.exists()) == (False, True)


def test_of_two_processes_that_compile_at_once_the_first_entry_stands(tmp_path: Path) -> None:
    inner, outer = Compiler(), Compiler()

    def raced(folder: Path) -> str:
        inner.start(tmp_path)
        return outer.make(folder)

    assert kept(tmp_path, KEY, raced, outer.read) == inner.start(tmp_path)
    assert (inner.made, outer.made) == (1, 1)


# ------------------------------------------------------------ in a pipeline


def test_only_devices_that_compile_slowly_use_the_usual_cache(tmp_path: Path) -> None:
    usual = DeviceOptions(cache_dir=tmp_path, cache="slow")
    assert usual.cache_of(OvNpu.limits) == tmp_path
    assert usual.cache_of(OvCpu.limits) is None
    assert replace(usual, cache="every").cache_of(OvCpu.limits) == tmp_path
    assert DeviceOptions().cache_of(OvNpu.limits) is None


def test_auto_is_the_user_s_cache(
    tiny_t5_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with edgegen.load(tiny_t5_bundle, cache_dir="auto") as pipeline:
        options = pipeline.engine.parts.options
    assert (options.cache_dir, options.cache) == (tmp_path / "edgegen", "slow")


def test_a_text_is_the_same_from_a_warm_a_cold_and_a_damaged_cache(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "t5", "t5-tied", formats=("openvino",))
    cache = tmp_path / "cache"

    def text() -> Any:
        with edgegen.load(folder, "ov-cpu", cache_dir=cache) as pipeline:
            return pipeline.generate("the cat", SHORT).tokens

    with edgegen.load(folder, "ov-cpu") as pipeline:
        expected = pipeline.generate("the cat", SHORT).tokens
    assert text() == expected
    blobs = {file: file.read_bytes() for file in cache.rglob("*.blob")}
    assert len(blobs) >= 2
    assert text() == expected
    assert {file: file.read_bytes() for file in cache.rglob("*.blob")} == blobs
    for file, content in blobs.items():
        file.write_bytes(content[: len(content) // 2])
    assert text() == expected
    assert all(len(file.read_bytes()) == len(blobs[file]) for file in blobs)


class Core:
    """An OpenVINO that counts how many graphs it compiles at once, and has none to give."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def read_model(self, *_: object) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        sleep(0.02)

    def compile_model(self, *_: object) -> None:
        sleep(0.02)
        self.now -= 1
        raise RuntimeError("enough")


def test_openvino_compiles_a_graph_at_a_time(tmp_path: Path) -> None:
    """It puts the process's locale aside while it writes what it compiled (in ``cache_dir``): of
    two at once one put the other's stand-in back, and all that was read from then on was ASCII."""
    bundle = Bundle.open(write_bundle(tmp_path / "t5", "t5-tied", formats=("openvino",)))
    variant, core = bundle.component("decode").variants[0], Core()

    def compiled() -> None:
        with pytest.raises(DeviceError, match="enough"):
            compile_session(
                core, bundle.file(variant.file), variant, "ov-cpu", "CPU", {}, {}, None,
                prepare=lambda model, variant: None, alone=False,
            )  # fmt: skip

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(compiled) for _ in range(4)]:
            done.result()
    assert core.most == 1
