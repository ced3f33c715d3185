"""Caches forget what was rejected: after any commits they hold what a fresh prefill would.

In place, append and stateful hold keys and values, recurrent one state a layer; each is tried on
the backend that has it, ONNX Runtime or OpenVINO.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pytest
from stepping import error
from tiny_families import VOCABULARY, write_bundle

from edgegen.bundle import Bundle
from edgegen.devices import DeviceOptions, device_named
from edgegen.errors import BundleError, CacheFull
from edgegen.export.options import CacheKind, Format
from edgegen.runtime.buffers import FIRST_CAPACITY
from edgegen.runtime.cache import open_cache
from edgegen.runtime.decoder import Decoder
from edgegen.runtime.engine import Engine, Memory

DEVICES: dict[Format, str] = {"onnx": "ort-cpu", "openvino": "ov-cpu"}
Key = tuple[str, Format, CacheKind | Literal["recurrent"]]
KINDS: tuple[Key, ...] = (
    ("t5-tied", "onnx", "in_place"),
    ("llama-grouped", "onnx", "in_place"),
    ("gemma3", "onnx", "in_place"),
    ("t5-tied", "onnx", "append"),
    ("llama-grouped", "onnx", "append"),
    ("gemma3", "onnx", "append"),
    ("marian-ssru", "onnx", "recurrent"),
    ("t5-tied", "openvino", "append"),
    ("gemma3", "openvino", "append"),
    ("t5-tied", "openvino", "stateful"),
    ("llama-grouped", "openvino", "stateful"),
    ("gemma3", "openvino", "stateful"),
    ("whisper", "openvino", "stateful"),
    ("marian-ssru", "openvino", "recurrent"),
)
Engines = Callable[[Key], Engine]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Engines:
    @cache
    def engine(key: Key) -> Engine:
        name, form, kind = key
        folder = tmp_path_factory.mktemp("bundle") / "b"
        caches: tuple[CacheKind, ...] = () if kind == "recurrent" else (kind,)
        # Whisper's table of positions must hold the texts of these tests.
        said: dict[str, Any] = {"max_target_positions": 256} if name == "whisper" else {}
        bundle = Bundle.open(write_bundle(folder, name, formats=(form,), caches=caches, **said))
        return Engine(bundle, device_named(DEVICES[form]), DeviceOptions())

    return engine


@pytest.fixture(params=KINDS, ids=lambda key: "-".join(key))
def engine(request: pytest.FixtureRequest, engines: Engines) -> Engine:
    found = engines(request.param)
    assert found.variants["decode"].cache.kind == request.param[2]
    return found


def fresh(engine: Engine, limit: int = 0) -> Decoder:
    memory = remembered(engine)
    feeds = None if memory is None else memory.feeds
    return Decoder(engine.session("decode"), engine.variants["decode"], feeds, limit)


@cache
def remembered(engine: Engine) -> Memory | None:
    if "features" in engine.variants:
        return engine.remember_samples(np.sin(np.arange(480000) * 0.01).astype(np.float32))
    if "encode" in engine.variants:
        return engine.remember_ids([5, 9, 77, 120, 1])
    return None


def ids(count: int, seed: int = 0) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).integers(3, VOCABULARY, count)]


def grown(decoder: Decoder, turns: int, seed: int) -> list[int]:
    """Random trees, of each of which a random path stands. Returns the text that stands."""
    random = np.random.default_rng(seed)
    text: list[int] = []
    for _ in range(turns):
        count = int(random.integers(1, 9))
        tokens = [int(i) for i in random.integers(3, VOCABULARY, count)]
        parents = [-1, *(int(random.integers(-1, i)) for i in range(1, count))]
        chain = bool(random.integers(0, 3) == 0)
        parents = list(range(-1, count - 1)) if chain else parents
        base = decoder.length
        decoder.forward(tokens, None if chain else parents)
        path: list[int] = []
        node = int(random.integers(-1, count))  # -1: nothing stands
        while node >= 0:
            path.insert(0, node)
            node = parents[node]
        decoder.keep(base, [base + i for i in path])
        text += [tokens[i] for i in path]
        assert decoder.length == len(text)
    return text


@pytest.mark.parametrize("seed", range(4))
def test_after_any_commits_a_cache_is_what_a_fresh_prefill_leaves(
    engine: Engine, seed: int
) -> None:
    worn, plain = fresh(engine), fresh(engine)
    text = grown(worn, 40, seed)
    assert len(text) > FIRST_CAPACITY // 2
    plain.forward(text)
    plain.keep(len(text))
    probe, parents = ids(5, seed=99), [-1, 0, -1, 2, 2]
    found = np.array(worn.forward(probe, parents).logits)
    assert error(found, np.array(plain.forward(probe, parents).logits)) <= 1e-5


def test_a_text_outgrows_its_first_buffers(engine: Engine) -> None:
    """64 rows, 128, 256: what stood before a move stands after it."""
    tokens = ids(2 * FIRST_CAPACITY + 20)
    steps, whole = fresh(engine), fresh(engine)
    rows: list[np.ndarray[tuple[int], np.dtype[np.float32]]] = []
    for token in tokens:
        rows.append(steps.forward([token]).logits[0].copy())
        steps.keep(steps.length + 1)
    assert steps.length == len(tokens)
    assert error(np.stack(rows), np.array(whole.forward(tokens).logits)) <= 1e-5


def test_nothing_kept_is_nothing_written(engine: Engine) -> None:
    decoder, plain = fresh(engine), fresh(engine)
    decoder.forward(ids(6))
    decoder.keep(0)
    assert decoder.length == 0
    found = np.array(decoder.forward([7]).logits)
    assert error(found, np.array(plain.forward([7]).logits)) <= 1e-5


@pytest.mark.parametrize("first", [1, 40, 64])
def test_a_full_cache_says_so_in_one_line_and_keeps_what_it_has(engine: Engine, first: int) -> None:
    decoder, plain = fresh(engine, limit=64), fresh(engine)
    tokens = ids(65)
    decoder.forward(tokens[:first])
    decoder.keep(first)
    with pytest.raises(CacheFull) as caught:
        decoder.forward(tokens[first:])
    line = str(caught.value)
    assert "65" in line and "64" in line and "\n" not in line
    assert decoder.length == first
    if first < 64:  # the last position can be used
        decoder.forward(tokens[first:63])
        decoder.keep(63)
        found = np.array(decoder.forward([tokens[63]]).logits)
        assert error(found, np.array(plain.forward(tokens[:64]).logits)[-1:]) <= 1e-5


def test_decoders_of_one_session_do_not_see_each_other(engine: Engine) -> None:
    one, other, alone = fresh(engine), fresh(engine), fresh(engine)
    text, noise = ids(20), ids(20, seed=5)
    rows: list[np.ndarray[tuple[int], np.dtype[np.float32]]] = []
    for token, stranger in zip(text, noise, strict=True):
        rows.append(one.forward([token]).logits[0].copy())
        one.keep(one.length + 1)
        other.forward([stranger])
        other.keep(other.length + 1)
    assert error(np.stack(rows), np.array(alone.forward(text).logits)) <= 1e-5


@pytest.mark.parametrize("first_row", [0, 3, 5])
def test_rows_asked_for_are_the_last_ones(engine: Engine, first_row: int) -> None:
    tokens: Sequence[int] = ids(6)
    every = np.array(fresh(engine).forward(tokens).logits)
    some = np.array(fresh(engine).forward(tokens, first_row=first_row).logits)
    assert some.shape == (6 - first_row, VOCABULARY)
    assert error(some, every[first_row:]) <= 1e-5


def test_a_kind_of_another_version_is_refused(engines: Engines) -> None:
    engine = engines(("t5-tied", "onnx", "in_place"))
    variant = engine.variants["decode"]
    strange = msgspec.structs.replace(
        variant, cache=msgspec.structs.replace(variant.cache, kind="paged")
    )
    with pytest.raises(BundleError, match="paged"):
        open_cache(strange, engine.session("decode").request())


def test_a_bundle_s_files_are_untouched_by_use(engines: Engines) -> None:
    engine = engines(("t5-tied", "onnx", "in_place"))
    grown(fresh(engine), 5, 1)
    folder: Path = engine.bundle.path
    assert Bundle.open(folder).manifest == engine.manifest
