"""An export and a text on OpenVINO are nobody else's business: no process, no socket, no file."""

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
    given = {key: value for key, value in os.environ.items() if key != "CI"}
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
