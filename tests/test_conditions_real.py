"""A real model's likeliest texts are none at all or repeat themselves; under a condition none do.

The comparison is that of bench/conditions.py, which prints every text.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from edgegen import GenerationOptions, load
from edgegen.export.build import export
from edgegen.export.options import ExportOptions

bench: Any = import_module("conditions")
pytestmark = [pytest.mark.real, pytest.mark.slow]


def test_empty_and_repetitive_texts_of_a_chat_model_fall_to_none(tmp_path: Path) -> None:
    model = ExportOptions(
        model="pypi:smollm2-135m", output=tmp_path / "b", weight_format="int8", parity=False
    )
    export(model)
    sums = GenerationOptions(num_beams=8, length_penalty=0.0, max_new_tokens=16)
    means = GenerationOptions(num_beams=4, max_new_tokens=32)
    sentences = bench.SENTENCES.read_text(encoding="utf-8").splitlines()
    with load(tmp_path / "b") as pipeline:
        for options, texts, fault in (
            (sums, sentences[:54], "not-empty"),
            (means, bench.beginnings(learning=False)[:54], "not-repetitive"),
        ):
            under = options.with_changes(condition="not-empty+not-repetitive")
            found = bench.compare(pipeline, texts, {"plain": options, "condition": under})
            assert sum(fault in one.faults for one in found["plain"]) >= 5
            assert not any(one.faults for one in found["condition"])
            assert all(one.score > float("-inf") for one in found["condition"])
