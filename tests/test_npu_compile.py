"""Graphs of fixed sizes through Intel's own NPU compiler: compiled, not run.

`make npu-compile` asks for it; elsewhere it is skipped. A blob that came out says that every
construct of the graph is taken, and nothing of arithmetic or speed.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from npu_compiler import PLATFORMS, Compiled, Compiler, missing
from tiny_families import write_bundle

from edgegen.bundle import Bundle
from edgegen.export.options import StaticSizes
from edgegen.runtime.calibration import user_cache

ASKED = os.environ.get("EDGEGEN_NPU") == "required"
pytestmark = pytest.mark.skipif(not ASKED, reason="Intel's NPU compiler: make npu-compile runs it")
SIZES = StaticSizes(source=(20,), cache=(18,), tokens=(1, 6))
FAMILIES = (
    "t5-tied", "bart", "whisper", "marian-ssru", "llama-grouped", "gemma3", "t5gemma2", "vit-trocr",
)  # fmt: skip
WEIGHTS = ("fp16", "int8", "int4")
WIDE: dict[str, Any] = {"d_model": 256, "d_kv": 64, "d_ff": 1024}


@pytest.fixture(scope="module")
def compiler() -> Compiler:
    if reason := missing():
        pytest.fail(reason)
    return Compiler(user_cache() / "npu-compiler")


@cache
def bundle(family: str, weights: Any, wide: bool = False) -> Bundle:
    folder = Path(mkdtemp()) / "bundle"
    kinds: dict[str, Any] = {"formats": ("openvino",), "weight_format": weights, "static": SIZES}
    return Bundle.open(write_bundle(folder, family, **kinds, **(WIDE if wide else {})))


def compiled(compiler: Compiler, made: Bundle, platform: str, static: bool) -> list[Compiled]:
    """The graphs of fixed sizes, or those of any."""
    variants = [
        variant
        for name in ("encode", "decode")
        if name in made.manifest.components
        for variant in made.component(name).variants
        if variant.static is static
    ]
    files = [made.file(variant.file) for variant in variants]
    return compiler.compile(files, made.file(variants[0].weights[0]), platform)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_graph_of_fixed_sizes_compiles(compiler: Compiler, family: str, weights: str) -> None:
    found = compiled(compiler, bundle(family, weights), "4000", static=True)
    for one in found:
        print(f"{family} {weights} {one.graph}: {one.seconds:.2f} s, {one.size} bytes {one.reason}")
    assert {one.graph: one.reason for one in found if not one.size} == {}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_generation_of_the_hardware_is_compiled_for(
    compiler: Compiler, platform: str
) -> None:
    found = compiled(compiler, bundle("t5-tied", "int8"), platform, static=True)
    assert {one.graph: one.reason for one in found if not one.size} == {}


def test_graphs_of_any_size_are_refused_by_the_compiler(compiler: Compiler) -> None:
    for one in compiled(compiler, bundle("t5-tied", "int8"), "4000", static=False):
        print(f"{one.graph}: {one.reason}")
        assert one.size == 0 and one.reason


def test_narrow_weights_stay_narrow_in_the_blob(compiler: Compiler) -> None:
    """Codes of four bits do not become smaller than those of eight, in blocks of 32."""
    sizes = [
        sum(one.size for one in compiled(compiler, bundle("t5-tied", weights, True), "4000", True))
        for weights in WEIGHTS
    ]
    print(dict(zip(WEIGHTS, sizes, strict=True)))
    assert max(sizes[1:]) < 0.85 * sizes[0]
