"""A GPU through WebGPU and Vulkan: the CPU's tokens, and every node where it is claimed to run.

`make webgpu` runs this on Mesa's Vulkan driver for CPUs: the provider's own shaders, no GPU, and
nothing about speed. ONNX Runtime's profile of the very runs that wrote a text is the proof, since
its record of assignments misses nodes that it fused.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from test_static import text
from tiny_families import write_bundle

from edgegen.bundle import Bundle
from edgegen.devices import DeviceOptions, device_named, onnxruntime
from edgegen.errors import DeviceError
from edgegen.export.options import StaticSizes
from edgegen.runtime.engine import Engine

DEVICE = device_named("ort-webgpu")
MISSING = DEVICE.missing()
# Where the proof is asked for, what is missing fails; elsewhere it is skipped.
REQUIRED = os.environ.get("EDGEGEN_WEBGPU") == "required"
pytestmark = pytest.mark.skipif(
    MISSING is not None and not REQUIRED, reason=f"software Vulkan: {MISSING}"
)
SIZES = StaticSizes(source=(8, 20), cache=(18, 48), tokens=(1, 6))
GPU, CPU = "WebGpuExecutionProvider", "CPUExecutionProvider"
# How far apart two positions are, bounded: integers, which ONNX Runtime keeps off GPUs.
LEFT = {"Reshape": 2, "Sub": 1, "Max": 1, "Min": 1, "Add": 1}
LENGTHS, NEW = (3, 7, 20), 30
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"draft": "none"},
    "seeded": {"draft": "none", "do_sample": True, "temperature": 0.9, "seed": 7},
    "lookup": {"draft": "lookup"},
    "tree": {"draft": "recycling"},
}


@dataclass(kw_only=True)
class Profile:
    """One graph's nodes: by provider, the operator and the kinds of number it gave, by name."""

    nodes: dict[str, dict[str, tuple[str, frozenset[str]]]] = field(
        default_factory=dict[str, dict[str, tuple[str, frozenset[str]]]]
    )

    @classmethod
    def read(cls, file: Path) -> Profile:
        made = cls()
        for event in json.loads(file.read_text()):
            told = event.get("args", {})
            if event.get("cat") == "Node" and told.get("provider"):
                kinds = frozenset(kind for one in told["output_type_shape"] for kind in one)
                found = made.nodes.setdefault(told["provider"], {})
                found[event["name"]] = (told["op_name"], kinds)
        return made

    def counts(self, provider: str) -> dict[str, int]:
        return dict(Counter(op for op, _ in self.nodes.get(provider, {}).values()))


@dataclass(kw_only=True)
class Proof:
    """Texts by way, and the profiles of the sessions that wrote them by file."""

    texts: dict[str, list[list[int]]]
    profiles: dict[str, Profile]


def texts(engine: Engine) -> dict[str, list[list[int]]]:
    return {
        name: [text(engine, length, NEW, **way) for length in LENGTHS] for name, way in WAYS.items()
    }


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("webgpu") / "t5"
    return Bundle.open(write_bundle(folder, "t5-tied", static=SIZES))


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Iterator[Engine]:
    """Only ``Limits.cpu_ops`` may be left to the CPU: ``DeviceOptions`` forbids all else."""
    try:
        found = Engine(bundle, DEVICE, DeviceOptions(), static=True)
        found.parts.open(found.opened_first)
    except DeviceError as error:
        if REQUIRED:
            raise
        pytest.skip(f"software Vulkan: {error}")
    yield found
    found.close()


@pytest.fixture(scope="module")
def proof(bundle: Bundle, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Proof:
    """The texts of an engine whose sessions write down what they run, and where."""
    prefix = str(tmp_path_factory.mktemp("profiles") / "run")
    plain_options, made = onnxruntime.session_options, list[onnxruntime.OrtSession]()

    def options(*said: Any) -> Any:
        settings = plain_options(*said)
        settings.enable_profiling = True
        settings.profile_file_prefix = f"{prefix}{len(made)}"
        return settings

    class Profiled(onnxruntime.OrtSession):
        def __init__(self, *said: Any) -> None:
            super().__init__(*said)
            made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime, "session_options", options)
        patch.setattr(onnxruntime, "OrtSession", Profiled)
        profiled = Engine(bundle, DEVICE, DeviceOptions(), static=True)
        found = texts(profiled)
        files = {one.file.name: Path(one.inference.end_profiling()) for one in made}
    profiled.close()
    return Proof(texts=found, profiles={name: Profile.read(file) for name, file in files.items()})


def test_texts_through_webgpu_are_the_cpu_s_token_for_token(bundle: Bundle, proof: Proof) -> None:
    cpu = Engine(bundle, device_named("ort-cpu"), DeviceOptions())
    assert proof.texts == texts(cpu)
    cpu.close()


def test_encode_runs_wholly_through_webgpu(proof: Proof) -> None:
    profiles = [one for name, one in proof.profiles.items() if name.startswith("encode")]
    assert len(profiles) == len(SIZES.source)
    for profile in profiles:
        assert set(profile.nodes) == {GPU}
        assert len(profile.nodes[GPU]) > 50


def test_decode_leaves_the_cpu_only_named_arithmetic_on_positions(proof: Proof) -> None:
    profiles = [one for name, one in proof.profiles.items() if name.startswith("decode")]
    assert len(profiles) > len(SIZES.cache)
    for profile in profiles:
        assert set(profile.nodes) == {GPU, CPU}
        assert profile.counts(CPU) == LEFT
        assert {kinds for _, kinds in profile.nodes[CPU].values()} == {frozenset({"int64"})}
        assert len(profile.nodes[GPU]) > 100
        assert profile.counts(GPU)["MatMul"] > 10


def mapped() -> set[str]:
    """Files of this process's memory."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {Path(line.split()[-1]).name for line in lines if "/" in line}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Vulkan drivers as Linux has them")
def test_the_adapter_is_a_vulkan_driver_s_and_without_one_there_is_no_text(
    bundle: Bundle, engine: Engine, tmp_path: Path
) -> None:
    assert engine.session("encode").device == DEVICE.name
    drivers = {name for name in mapped() if "vulkan" in name or "libnvidia-gl" in name}
    print(f"Vulkan: {', '.join(sorted(drivers))}")
    assert any(name.startswith("libvulkan.so") for name in drivers)
    assert any(not name.startswith("libvulkan.so") for name in drivers)

    none = str(tmp_path / "no_driver.json")
    command = [sys.executable, "-m", "edgegen", "run", str(bundle.path), "--static", "ba"]
    hidden = {"VK_DRIVER_FILES": none, "VK_ICD_FILENAMES": none}
    for environment, status in (({}, 0), (hidden, 2)):
        ran = subprocess.run(
            [*command, "--device", DEVICE.name, "--draft", "none", "--max-new-tokens", "4"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == status, ran.stderr
    assert "ort-webgpu runs no node of encode" in " ".join(ran.stderr.split())
    assert not ran.stdout.startswith("ba")


def test_a_graph_whose_matrices_would_be_the_cpu_s_is_refused_by_operator(
    bundle: Bundle, engine: Engine
) -> None:
    """A float table that is multiplied transposed: the provider has no such kernel."""
    dynamic = next(one for one in bundle.component("decode").variants if not one.static)
    with pytest.raises(DeviceError, match=r"decode\.onnx to the CPU \(1 FusedMatMul\)"):
        DEVICE.compile(bundle.file(dynamic.file), dynamic, DeviceOptions())
