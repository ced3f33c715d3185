"""Every family in OpenVINO says what its torch body says, step by step and over a tree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from stepping import Steps, TorchSession, error
from tiny_families import CASES, write_bundle
from tiny_sources import ids, source_of

from edgegen import GenerationOptions, load
from edgegen.devices.device import DeviceOptions, Session
from edgegen.devices.ov_cpu import OvCpu
from edgegen.export.families import FAMILIES, family_of
from edgegen.export.families.encoder import EncoderFamily
from edgegen.export.formats import openvino
from edgegen.export.formats.caching import cache_of
from edgegen.export.options import ExportOptions
from edgegen.export.stepper import memory_of

QUICK = ("gpt2", "moonshine", "qwen2", "vit-trocr")
# Recurrent states are driven by their own test, encoders alone by theirs.
NAMES = [
    name
    for name, case in CASES.items()
    if case.family != "marian-ssru" and not issubclass(FAMILIES[case.family], EncoderFamily)
]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in NAMES]
)
def test_every_step_and_a_tree_say_what_torch_says(name: str, tmp_path: Path) -> None:
    family = family_of(CASES[name].make())[1]
    options = ExportOptions(model="tiny", output=tmp_path, formats=("openvino",))
    variants = openvino.write(family, tmp_path, options)
    found: dict[str, Session] = {
        part: OvCpu().compile(tmp_path / Path(variant.file).name, variant, DeviceOptions())
        for part, variant in variants.items()
    }
    torch: dict[str, Session] = {part: TorchSession(family, part) for part in variants}
    source: dict[str, Any] = source_of(family.shape)
    cache = cache_of(family, "decode", "append")
    steps, truth = (
        Steps(parts["decode"], memory_of(parts, source) if source else {}, cache)
        for parts in (found, torch)
    )
    start = list(family.generation().start)[:1] if family.shape.encoder else ids(1)
    for call in (start, ids(3, 1), ids(1, 2), ids(5, 3)):
        assert error(steps.feed(call), truth.feed(call)) <= 1e-3
    tree = [-1, 0, 0, 1, -1]
    assert error(steps.feed(ids(5, 4), tree), truth.feed(ids(5, 4), tree)) <= 1e-3


def test_a_folder_with_a_comma_is_one_folder(tmp_path: Path) -> None:
    """OpenVINO's converter takes a comma for the end of a path."""
    folder = write_bundle(tmp_path / "one, two" / "bundle", "t5-tied", formats=("openvino",))
    with load(folder, "ov-cpu") as pipeline:
        found = pipeline.generate([5, 6, 1], GenerationOptions(max_new_tokens=4, draft="none"))
    assert len(found.tokens) > 0
