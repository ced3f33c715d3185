"""An export and a text are nobody else's business: no process, no socket, no file."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep

import pytest

from edgegen.unreported import REPORTER, unreported

WATCH = """
import sys, time
from pathlib import Path

told = []
WATCHED = ("os.fork", "subprocess.Popen", "socket.connect", "socket.getaddrinfo")
sys.addaudithook(lambda event, _: told.append(event) if event in WATCHED else None)
"""
OURS = """
sys.path.insert(0, sys.argv[1])
from tiny_families import write_bundle

from edgegen.bundle import Bundle
from edgegen.devices import DeviceOptions, device_named
from edgegen.runtime.engine import Engine

path = write_bundle(Path(sys.argv[2]), "t5-tied", formats=("openvino",), weight_format="int8")
engine = Engine(Bundle.open(path), device_named("ov-cpu"), DeviceOptions())
engine.decoder(engine.remember_ids([5, 9, 1])).forward([0])
engine.close()
print(*told)
"""
# The engine tells from threads of its own, which Python does not see: its files do.
ON_ONNX_RUNTIME = """
sys.path.insert(0, sys.argv[1])
from tiny_families import write_bundle

import edgegen

with edgegen.load(write_bundle(Path(sys.argv[2]), "t5-tied")) as pipeline:
    pipeline.generate([5, 9, 1])
time.sleep(2)
print(*told)
"""
BY_ITSELF = """
import onnxruntime

onnxruntime.InferenceSession
for _ in range(100):
    if list(Path.home().rglob("*onnxruntime*")):
        break
    time.sleep(0.1)
print(*told)
"""
THEIRS = """
import openvino

for _ in range(600):
    if told:
        break
    time.sleep(0.1)
print(*told)
"""


def watched(program: str, tmp_path: Path) -> tuple[list[str], list[str]]:
    """What the system was asked for, and what lies in the user's home afterwards."""
    home = tmp_path / "home"
    home.mkdir()
    nowhere = {"HOME": str(home), "http_proxy": "http://127.0.0.1:9"}
    ours = ("CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
    given = {key: value for key, value in os.environ.items() if key not in ours}
    done = subprocess.run(
        [sys.executable, "-c", WATCH + program, str(Path(__file__).parent), str(tmp_path / "b")],
        env={**given, **nowhere, "https_proxy": nowhere["http_proxy"]},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1].split(), [path.name for path in home.rglob("*")]


def test_nothing_is_told_of_an_export_nor_of_a_text(tmp_path: Path) -> None:
    assert watched(OURS, tmp_path) == ([], [])


def test_nothing_is_told_of_a_text_on_onnx_runtime(tmp_path: Path) -> None:
    assert watched(ON_ONNX_RUNTIME, tmp_path) == ([], [])


def test_onnx_runtime_by_itself_would_have_been_seen(tmp_path: Path) -> None:
    _, files = watched(BY_ITSELF, tmp_path)
    if not any("onnxruntime" in name for name in files):
        pytest.skip("this build of ONNX Runtime has no reporter")
    assert "deviceid" in files


def test_a_choice_of_the_user_s_about_onnx_runtime_stays() -> None:
    program = "import os, edgegen; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for said, left in ((None, "1"), ("0", "0")):
        given = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
        given |= {} if said is None else {"ORT_DISABLE_TELEMETRY": said}
        done = subprocess.run(
            [sys.executable, "-c", program], env=given, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == left


def test_a_library_that_tells_would_have_been_seen(tmp_path: Path) -> None:
    """One imported as others do forks to tell: else the test above would prove nothing."""
    told, files = watched(THEIRS, tmp_path)
    assert "os.fork" in told and "stats" in files


def test_threads_that_import_at_once_do_not_take_it_from_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, REPORTER)

    def barred(_: int) -> bool:
        with unreported():
            sleep(0)  # another thread's turn
            return REPORTER in sys.modules

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(barred, range(4000)))
    assert REPORTER not in sys.modules
