"""No link leads out of a bundle, nothing in it is waited for, no graph has a stranger beside it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from broken_bundle import WEIGHTS, posix, refusal

from edgegen import bundle_files
from edgegen.bundle import Bundle
from edgegen.bundle_rules import MANIFEST_NAME


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
