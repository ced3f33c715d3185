"""Heads of more than 128 numbers: scores are summed in other parts from some count of keys on, so a
call with a draft ends there, and its rows are those of calls of one, bit for bit."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from fakes import Oracle
from numpy.typing import NDArray
from test_rows import Model, drawn, stand
from tiny_families import CASES, tokenizer, write_bundle

from edgegen.bundle import Bundle
from edgegen.export.families import family_of
from edgegen.export.options import CacheKind, ExportOptions
from edgegen.export.parity import CALLS, Gate, calls_looked_at
from edgegen.manifest import Cache
from edgegen.runtime.budget import Fixed
from edgegen.runtime.decoder import Scores
from edgegen.runtime.sampling import Greedy
from edgegen.runtime.speculative import SpeculativeDecoding
from edgegen.runtime.stopping import Stopping
from edgegen.runtime.verify import MatchVerifier

# First rows of another way to sum, by head size: up to 16, 32 and 64 keys, of which attention's
# companion is one.
EDGES = {128: (), 256: (63,), 320: (31, 63), 640: (15, 31, 63)}
# Rows enough for tiles of 51 or 102 keys, the largest heads' on caches of 1 and 2 MB.
MOST = 140
x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="edges are those of its kernels")
Bundles = Callable[..., Bundle]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    @cache
    def made(name: str, head: int, kind: CacheKind = "in_place") -> Bundle:
        folder = tmp_path_factory.mktemp("wide") / "b"
        return Bundle.open(write_bundle(folder, name, caches=(kind,), **said(name, head)))

    return made


def said(name: str, head: int) -> dict[str, Any]:
    short = {"sliding_window": 4096} if name == "gemma3" else {}
    # Scores of common size: larger ones give all to one key, whatever the last bits of the others.
    return {"head_dim": head, "query_pre_attn_scalar": head, **short}


def edges_of(bundle: Bundle) -> tuple[int, ...]:
    return bundle.manifest.components["decode"].variants[0].cache.edges


def test_only_wide_heads_are_looked_at_around_a_count_of_keys() -> None:
    narrow = Cache(kind="in_place", layers=1, heads=1, head_dim=128)
    assert calls_looked_at(narrow, 0) == CALLS
    wide = calls_looked_at(replace_edges(narrow, (63,)), first=20)
    passing = [(at, n) for at, calls in wide.items() for n in calls if at < 43 < at + n]
    assert passing and CALLS.items() <= wide.items()


@pytest.mark.parametrize("head", EDGES)
def test_a_bundle_says_where_calls_end(head: int, bundles: Bundles) -> None:
    assert edges_of(bundles("gemma3", head)) == EDGES[head]


@x86
@pytest.mark.parametrize(
    ("name", "head", "kind"),
    [
        ("gemma", 256, "in_place"),  # no window: masks are wider than rows
        ("gemma3", 256, "in_place"),
        ("gemma3", 256, "append"),
        ("gemma3", 320, "in_place"),
        ("gemma3", 640, "in_place"),
        ("t5gemma", 256, "in_place"),
    ],
)
def test_rows_are_the_same_bits_up_to_an_edge_and_from_it_on(
    name: str, head: int, kind: CacheKind, bundles: Bundles
) -> None:
    bundle = bundles(name, head, kind)
    model, tokens = Model(bundle, "ort-cpu", threads=1), drawn(MOST, seed=2)
    alone, decoder = model.alone(tokens), model.decoder()
    begun, passed = decoder.length, set[int]()
    for at in range(MOST - 8):
        calls = {n: decoder.drafts(1) >= n - 1 for n in (2, 5, 8)}
        for n, allowed in calls.items():
            rows = decoder.forward(tokens[at : at + n]).logits
            same = np.array_equal(rows, alone[at : at + n])
            assert same or not allowed, f"{n} rows behind {begun + at}"
            passed |= {
                edge for edge in edges_of(bundle) if not same and begun + at < edge < begun + at + n
            }
        stand(decoder, tokens[at : at + 1])
    assert passed == {edge for edge in edges_of(bundle) if edge > begun}  # none is said for nothing


@x86
def test_rows_of_a_source_before_the_text_are_counted(bundles: Bundles) -> None:
    bundle = bundles("t5gemma2", 256)
    model, tokens = Model(bundle, "ort-cpu", threads=1), drawn(MOST, seed=2)
    assert model.memory is not None
    source = model.memory.feeds["cross_key_0"].shape[2]
    alone, decoder = model.alone(tokens), model.decoder()
    at = edges_of(bundle)[0] - source - decoder.length - 4
    stand(decoder, tokens[:at])
    assert decoder.drafts(1) == 3
    np.testing.assert_array_equal(decoder.forward(tokens[at : at + 4]).logits, alone[at : at + 4])
    rows = decoder.forward(tokens[at : at + 5]).logits
    assert not np.array_equal(rows, alone[at : at + 5])


@x86
@pytest.mark.parametrize(("name", "head"), [("gemma3", 256), ("gemma3", 320), ("t5gemma2", 256)])
def test_the_gate_finds_rows_equal_and_would_not_without_edges(
    name: str, head: int, bundles: Bundles, tmp_path: Path
) -> None:
    bundle = bundles(name, head)
    checkpoint = CASES[name].make(**said(name, head))
    made = replace(checkpoint, tokenizers={"source": tokenizer(False)})
    gate = Gate(family_of(made)[1], ExportOptions(model="tiny", output=tmp_path))
    parts = {name: one.variants[0] for name, one in bundle.manifest.components.items()}
    assert gate.check(bundle.path, parts).rows_error == 0
    decode = parts["decode"]
    bare = msgspec.structs.replace(decode, cache=replace_edges(decode.cache, ()))
    assert 0 < gate.check(bundle.path, {**parts, "decode": bare}).rows_error < 1e-4


@x86
def test_drafts_end_at_an_edge_and_change_no_bit(bundles: Bundles) -> None:
    """A text of a hundred tokens, all of them drafted."""
    model = Model(bundles("gemma3", 256), "ort-cpu", threads=1)
    prompt = drawn(5, seed=3)
    plain = told(model, prompt, [], 100)
    text = [*prompt, *(token for token, _ in plain)]
    drafted = told(model, prompt, text, 100)
    for (token, row), (again, same) in zip(plain, drafted, strict=True):
        assert token == again
        np.testing.assert_array_equal(row, same)


def told(
    model: Model, prompt: list[int], known: list[int], new: int
) -> list[tuple[int, NDArray[np.float32]]]:
    """Tokens and the rows that chose them; ``known`` is what a drafter knows of the text."""
    decoder = model.engine.decoder(model.memory)
    seen: list[Any] = []
    forward = decoder.forward

    def watched(*args: Any, **said: Any) -> Scores:
        scores = forward(*args, **said)
        seen.append(scores.logits.copy())
        return scores

    decoder.forward = watched  # type: ignore[method-assign]
    generation = SpeculativeDecoding(
        target=decoder,
        sampler=Greedy(),
        filters=(),
        stopping=Stopping(ends=frozenset(), max_new_tokens=new),
        verifier=MatchVerifier(),
        drafter=Oracle(known),
        budget=Fixed(12),
    )
    found: list[tuple[int, NDArray[np.float32]]] = []
    for step in generation.run(prompt):
        found += zip(step.tokens, seen[-1], strict=False)
    assert len(seen) == new or len(seen) < new / 8
    return found


def replace_edges(record: Cache, edges: tuple[int, ...]) -> Cache:
    return msgspec.structs.replace(record, edges=edges)
