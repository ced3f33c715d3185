"""The command line in a process of its own: what it loads, pipes, Ctrl-C, a full disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import ONE_LINE, TEXT

EDGEGEN = [sys.executable, "-m", "edgegen"]


def test_help_loads_no_library_that_computes() -> None:
    code = (
        "import sys, edgegen.cli\n"
        "for words in [[], ['run'], ['export'], ['profile']]:\n"
        "    assert edgegen.cli.main([*words, '--help']) == 0\n"
        "heavy = {'numpy', 'onnxruntime', 'openvino', 'tokenizers', 'torch', 'msgspec'}\n"
        "print(*heavy & {name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stderr.strip() in ("", "msgspec")


def test_a_reader_that_stops_early_is_no_error(tiny_t5_bundle: Path) -> None:
    command = [*EDGEGEN, "run", str(tiny_t5_bundle), "--max-new-tokens", "2"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"ba\n" * 2000)
        process.stdin.flush()
        assert process.stdout.readline()
        process.stdout.close()
        process.stdin.close()
        said = process.stderr.read()
        assert process.wait(timeout=60) == 1
    assert said == b""


def test_a_line_is_answered_before_the_next_is_given(tiny_t5_bundle: Path) -> None:
    command = [*EDGEGEN, "run", str(tiny_t5_bundle), "--max-new-tokens", "2"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(3):
            process.stdin.write(b"ba bin\n")
            process.stdin.flush()
            assert process.stdout.readline().endswith(b"\n")
        process.stdin.close()
        assert process.wait(timeout=60) == 0


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_says_nothing_and_ends_with_130(tiny_t5_bundle: Path) -> None:
    command = [*EDGEGEN, "run", str(tiny_t5_bundle), "--max-new-tokens", "2"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=heed_ctrl_c,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"ba\n")
        process.stdin.flush()
        assert process.stdout.readline()
        time.sleep(0.2)  # it waits for the next line
        process.send_signal(signal.SIGINT)
        try:
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert said == b""


def heed_ctrl_c() -> None:
    """A suite started in the background ignores Ctrl-C, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_one_line(tiny_t5_bundle: Path) -> None:
    command = [*EDGEGEN, "run", str(tiny_t5_bundle), TEXT, "--max-new-tokens", "2"]
    with open("/dev/full", "wb") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 2
    assert ONE_LINE.fullmatch(result.stderr)
