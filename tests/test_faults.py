"""What fails on purpose gives the right text elsewhere, or one line, and leaks nothing."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_placement import PLAIN, TEXT, frail, opened
from tiny_families import write_bundle

import edgegen
from edgegen.bundle import Bundle
from edgegen.devices.machine import resident_bytes
from edgegen.devices.ort_cpu import OrtCpu
from edgegen.errors import DeviceError

MB = 2**20


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("faults") / "t5", "t5-tied")


@pytest.fixture(scope="module")
def expected(bundle: Path) -> edgegen.Result:
    with edgegen.load(bundle) as pipeline:
        return pipeline.generate(TEXT, PLAIN)


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "not here": ({"missing": "no driver; install it"}, "no driver"),
    "no encoder": ({"compiling": True, "graphs": ("encode",)}, "cannot compile"),
    "no decoder": ({"compiling": True, "graphs": ("decode",)}, "cannot compile"),
    "at a step": ({"at_call": 3}, "call 3"),
    "a timeout": ({"at_call": 2, "words": "timed out after 10 s"}, "timed out"),
    "lost for good": ({"at_call": 5, "lost": True}, "was lost"),
    "a wrong shape": ({"wrong_shape": True}, "expected"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_one_line_alone_and_the_right_text_with_a_fallback(
    fault: str, bundle: Path, expected: edgegen.Result
) -> None:
    faults, words = FAULTS[fault]
    with (
        pytest.raises(DeviceError, match=words) as caught,
        opened(bundle, frail(Bundle.open(bundle), **faults)) as pipeline,
    ):
        pipeline.generate(TEXT, PLAIN)
    assert "fake" in str(caught.value) and "\n" not in str(caught.value)
    with opened(bundle, frail(Bundle.open(bundle), **faults), OrtCpu()) as pipeline:
        found = pipeline.generate(TEXT, PLAIN)
    assert (found.text, found.tokens) == (expected.text, expected.tokens)
    assert found.fallbacks
    assert all(words in one.reason and one.to == "ort-cpu" for one in found.fallbacks)


def test_a_device_that_comes_back_serves_the_next_request_and_a_lost_one_does_not(
    bundle: Path, expected: edgegen.Result
) -> None:
    for lost in (False, True):
        device = frail(Bundle.open(bundle), at_call=3, lost=lost)
        with opened(bundle, device) as pipeline:
            with pytest.raises(DeviceError):
                pipeline.generate(TEXT, PLAIN)
            if lost:
                with pytest.raises(DeviceError, match="was lost"):
                    pipeline.generate(TEXT, PLAIN)
            else:
                assert pipeline.generate(TEXT, PLAIN).tokens == expected.tokens


# ------------------------------------------------------------ loaded and closed, again and again


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def grown(cycle: Callable[[], None], cycles: int) -> tuple[int, int]:
    """Bytes that each quarter of the cycles in the second half added, and file descriptors that
    both did. What stays is added by either; an allocator takes a piece more now and then."""

    def held_after(count: int) -> int:
        for _ in range(count):
            cycle()
        gc.collect()
        found = resident_bytes()
        assert found is not None
        return found

    held, files = [held_after(cycles // 2)], descriptors()
    held += [held_after(cycles // 4), held_after(cycles // 4)]
    return min(held[1] - held[0], held[2] - held[1]), descriptors() - files


def cycles_of(bundle: Path, expected: edgegen.Result) -> dict[str, Callable[[], None]]:
    whole = Bundle.open(bundle)
    fake = frail(whole)

    def onnxruntime() -> None:
        with edgegen.load(bundle) as pipeline:
            assert pipeline.generate(TEXT, PLAIN).tokens == expected.tokens

    def faked() -> None:
        with opened(bundle, fake) as pipeline:
            assert pipeline.generate(TEXT, PLAIN).tokens == expected.tokens

    def failing() -> None:
        fails = type(fake)(fake.functions, type(fake.faults)(at_call=3))
        fails.limits = fake.limits
        with opened(bundle, fails, OrtCpu()) as pipeline:
            assert pipeline.generate(TEXT, PLAIN).fallbacks

    return {"onnxruntime": onnxruntime, "fake": faked, "failing": failing}


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux's /proc")
@pytest.mark.parametrize("which", ["onnxruntime", "fake", "failing"])
@pytest.mark.parametrize("cycles", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_loading_and_closing_leaves_neither_memory_nor_files_behind(
    cycles: int, which: str, bundle: Path, expected: edgegen.Result
) -> None:
    memory, files = grown(cycles_of(bundle, expected)[which], cycles)
    assert files == 0
    # A model that stays would be 0.4 MB a cycle; what allocators round up does not grow with them.
    assert memory < 4 * MB
