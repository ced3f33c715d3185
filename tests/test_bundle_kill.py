"""Wherever a writer is killed, the bundle that was there or the new one stands, whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_bundle

from edgegen.bundle import Bundle
from edgegen.errors import BundleError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills forked writers")


def killed_everywhere(scenario: str, folder: Path) -> list[Path]:
    """The targets of writers killed at each step in turn; the last one was not killed."""
    script = Path(__file__).with_name("killed_writer.py")
    run = subprocess.run(
        [sys.executable, str(script), scenario, str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    ended = run.stdout.split()
    assert ended[-1] == "done"
    assert set(ended[:-1]) == {"killed"}
    return [folder / name / "b" for name in sorted(os.listdir(folder), key=int)]


def names_at(targets: list[Path]) -> list[str]:
    return [Bundle.open(target).manifest.name for target in targets]


def assert_nothing_is_left_after_one_more_write(targets: list[Path]) -> None:
    for target in targets:
        tiny_bundle.write(target, "next")
        assert Bundle.open(target).manifest.name == "next"
        assert os.listdir(target.parent) == ["b"]


@pytest.mark.parametrize(("scenario", "steps"), [("replace", 40), ("recover", 40), ("truncate", 5)])
def test_a_kill_leaves_the_old_bundle_or_the_new_one(
    tmp_path: Path, scenario: str, steps: int
) -> None:
    targets = killed_everywhere(scenario, tmp_path)
    assert len(targets) > steps
    absent = [target for target in targets if not target.exists()]
    assert bool(absent) == (scenario != "truncate")  # some kills fell between the two renames
    names = names_at(targets)
    assert names == sorted(names, reverse=True)  # "old" up to a step, "new" from there on
    assert set(names) == {"old", "new"}
    assert_nothing_is_left_after_one_more_write(targets)


def test_a_kill_without_an_old_bundle_leaves_none_or_the_new_one(tmp_path: Path) -> None:
    targets = killed_everywhere("fresh", tmp_path)
    assert len(targets) > 20
    standing = [target for target in targets if target.exists()]
    assert standing == targets[len(targets) - len(standing) :]
    assert set(names_at(standing)) == {"new"}
    for target in targets[: -len(standing)]:
        with pytest.raises(BundleError, match="no such folder"):
            Bundle.open(target)
    assert_nothing_is_left_after_one_more_write(targets)
