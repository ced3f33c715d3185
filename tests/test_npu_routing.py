"""The way of a text through OpenVINO's NPU device, on a CPU: routing only, nothing of an NPU's
arithmetic, speed or compiler.

OpenVINO's NPU plugin can hand whole graphs to other devices (its NPUW layer). Told to hand all to
the CPU it needs no driver, so what edgegen's device says to the plugin, asks of it and makes of
its answers is run as on an NPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from test_static import ids, text
from tiny_families import write_bundle

from edgegen.bundle import Bundle
from edgegen.devices import DeviceOptions, device_named
from edgegen.devices.device import Device
from edgegen.devices.ov_npu import OvNpu
from edgegen.errors import CacheFull, InputError
from edgegen.export.options import StaticSizes
from edgegen.manifest import Variant
from edgegen.runtime.engine import Engine

SIZES = StaticSizes(source=(8, 20), cache=(18, 48), tokens=(1, 6))
LENGTHS, NEW = (3, 7, 20), 30
HANDED_ON = {"NPU_USE_NPUW": "YES", "NPUW_DEVICES": "CPU", "NPUW_ONLINE_PIPELINE": "NONE"}
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"draft": "none"},
    "seeded": {"draft": "none", "do_sample": True, "temperature": 0.9, "seed": 7},
    "lookup": {"draft": "lookup"},
    "tree": {"draft": "recycling"},
}


class Routed(OvNpu):
    """The NPU device but for its arithmetic and its driver."""

    def missing(self) -> str | None:
        return None

    def describe(self) -> dict[str, str]:
        return {}

    def properties(
        self, variant: Variant, options: DeviceOptions, capabilities: list[str]
    ) -> dict[str, Any]:
        return {**HANDED_ON, "INFERENCE_PRECISION_HINT": "f32"}


@cache
def bundle(weights: Any) -> Bundle:
    folder = Path(mkdtemp()) / weights
    made = write_bundle(
        folder, "t5-tied", formats=("openvino",), weight_format=weights, static=SIZES
    )
    return Bundle.open(made)


def opened(weights: str, device: Device) -> Engine:
    return Engine(bundle(weights), device, DeviceOptions(), static=True)


@pytest.fixture(scope="module", params=["fp16", "int8", "int4"])
def engines(request: pytest.FixtureRequest) -> Iterator[tuple[Engine, Engine]]:
    """Through the NPU's device and on the CPU's own."""
    pytest.importorskip("openvino")
    routed = opened(request.param, Routed())
    cpu = opened(request.param, device_named("ov-cpu"))
    yield routed, cpu
    routed.close()
    cpu.close()


@pytest.mark.parametrize("way", WAYS)
def test_texts_routed_through_the_npu_device_are_the_cpu_s(
    engines: tuple[Engine, Engine], way: str
) -> None:
    """Through both sizes of the source and of the cache."""
    routed, cpu = engines
    for length in LENGTHS:
        found = text(routed, length, NEW, **WAYS[way])
        assert found == text(cpu, length, NEW, **WAYS[way])
        assert len(found) > 18


def test_every_graph_says_it_is_the_npu_s(engines: tuple[Engine, Engine]) -> None:
    for part in ("encode", "decode"):
        placed = engines[0].session(part).placement()
        assert placed.home == "NPU" and set(placed.places) == {"NPU"}
        assert placed.places["NPU"] > 20


def test_past_the_largest_sizes_the_way_out_is_named(engines: tuple[Engine, Engine]) -> None:
    routed = engines[0]
    with pytest.raises(InputError, match="--static source="):
        routed.remember_ids([*ids(30, 0), 1])
    with pytest.raises(CacheFull, match="--static cache="):
        text(routed, 5, 80, draft="none")
