"""Heads of more than 128 numbers: scores are summed in other parts from some count of keys on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from test_rows import Model, drawn
from tiny_families import CASES, tokenizer, write_bundle

from edgegen.bundle import Bundle
from edgegen.export.families import family_of
from edgegen.export.options import ExportOptions
from edgegen.export.parity import CALLS, Gate, rows_looked_at

HEAD = 256


def test_only_wide_heads_are_looked_at_in_calls_that_pass_64_keys() -> None:
    assert rows_looked_at(128)[1] == CALLS
    most, sizes = rows_looked_at(HEAD)
    passing = [(at, n) for at, calls in sizes.items() for n in calls if at < 62 and at + n > 64]
    assert passing and all(at + n <= most for at, n in passing)


def test_the_gate_finds_what_such_calls_change(tmp_path: Path) -> None:
    """Where a call that passes 64 keys gives other bits, the bundle does not say its rows are the
    same: drafts are then decided with a margin."""
    bundle = Bundle.open(write_bundle(tmp_path / "b", "gemma3", head_dim=HEAD))
    made = replace(CASES["gemma3"].make(head_dim=HEAD), tokenizers={"source": tokenizer(False)})
    _, family = family_of(made)
    assert family.shape.head_dim == HEAD
    parts = {name: one.variants[0] for name, one in bundle.manifest.components.items()}
    found = Gate(family, ExportOptions(model="tiny", output=tmp_path)).check(bundle.path, parts)
    model, tokens = Model(bundle, "ort-cpu", threads=1), drawn(72, seed=2)
    decoder = model.decoder()
    for token in tokens[:48]:
        decoder.forward([token])
        decoder.keep(decoder.length + 1)
    assert decoder.length < 62 and decoder.length + 24 > 64
    differ = not np.array_equal(model.alone(tokens)[48:], decoder.forward(tokens[48:]).logits)
    assert found.rows_error > 0 or not differ
    assert found.rows_error < 1e-4
