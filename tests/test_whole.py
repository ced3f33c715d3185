"""Files that are written whole or not at all: a disk that is full costs the new one only."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from made_up_profiles import TWO, made_up, request, step

from edgegen.cli import main
from edgegen.errors import InputError
from edgegen.profiles import Profile
from edgegen.profiles.study import Settings, Study
from edgegen.profiles.study.acceptance import recorded
from edgegen.runtime.placement import FORMAT, Plan, write_plan
from edgegen.whole import write_whole

LARGE = made_up(*(request(step(1), repetition=at) for at in range(200)))


@contextmanager
def room(size: int) -> Generator[None]:
    """No file grows beyond ``size`` bytes, as on a disk that is full: half of it is written."""
    resource = pytest.importorskip("resource")
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, was[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)


def test_a_file_is_replaced_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "a"
    for data in (b"old", b"new"):
        write_whole(file, data)
        assert file.read_bytes() == data
    assert [*tmp_path.iterdir()] == [file]


def test_what_does_not_fit_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"old")
    with room(1000), pytest.raises(OSError):
        write_whole(file, b"new" * 1000)
    assert file.read_bytes() == b"old" and [*tmp_path.iterdir()] == [file]


def test_an_interruption_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"old")

    def interrupted(part: Path, path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(file, b"new")
    assert file.read_bytes() == b"old" and [*tmp_path.iterdir()] == [file]


def test_a_link_stays_one_and_its_file_is_replaced(tmp_path: Path) -> None:
    file, link = tmp_path / "there" / "a", tmp_path / "link"
    file.parent.mkdir()
    link.symlink_to(file)
    for data in (b"first", b"second"):  # the first time it leads to nothing
        write_whole(link, data)
        assert link.is_symlink() and file.read_bytes() == data


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    end = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_whole(pipe, b"new")
        assert os.read(end, 10) == b"new" and pipe.is_fifo()
    finally:
        os.close(end)


# ------------------------------------------------------------------ who writes so


def profile(path: Path) -> None:
    LARGE.save(path)


def study(path: Path) -> None:
    why = {"no-such-place": "far" * 1000}
    Study(
        created="", machine=LARGE.machine, settings=Settings(), acceptance=recorded(), skipped=why
    ).save(path)


def plan(path: Path) -> None:
    found = Plan(
        format=FORMAT, bundle="", machine="", drivers={}, threads=1, exact=True, goal="ttft",
        source_tokens=1, new_tokens=1, devices={}, precision={}, draft="none",
        memory_limit_mb=None, forecast={}, reasons=("far" * 1000,), measured=(),
    )  # fmt: skip
    write_plan(found, path)


@pytest.mark.parametrize("write", [profile, study, plan])
def test_results_that_do_not_fit_leave_the_old_ones_and_say_which(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    file = tmp_path / "old.json"
    file.write_bytes(b"old")
    with room(1000), pytest.raises(InputError, match=r"old\.json: cannot be written") as caught:
        write(file)
    assert "\n" not in str(caught.value)
    assert file.read_bytes() == b"old" and [*tmp_path.iterdir()] == [file]
    write(file)
    assert msgspec.json.decode(file.read_bytes()) and [*tmp_path.iterdir()] == [file]


def test_a_saved_profile_outlives_a_full_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large, old, small = tmp_path / "large.json", tmp_path / "old.json", made_up(*TWO)
    LARGE.save(large)
    small.save(old)
    with room(1000):
        assert main(["profile", str(large), "--save", str(old)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "old.json: cannot be written" in line
    assert Profile.load(old) == small and {*tmp_path.iterdir()} == {large, old}
