"""Layers with a window keep what it can see, and say what they would with everything."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import msgspec
import numpy as np
import pytest
import tiny_modernbert
from numpy.typing import NDArray
from stepping import error
from tiny_families import VOCABULARY, write_bundle

from edgegen.bundle import Bundle
from edgegen.bundle_rules import manifest_faults
from edgegen.devices import DeviceOptions, device_named
from edgegen.errors import CacheFull
from edgegen.export.families import family_of
from edgegen.export.options import Format
from edgegen.export.reference import reference_of
from edgegen.export.stepper import Stepper
from edgegen.manifest import Cache
from edgegen.runtime.buffers import TRAIL, Buffers, stride_of
from edgegen.runtime.decoder import Decoder
from edgegen.runtime.engine import Engine
from edgegen.runtime.options import GenerationOptions

Floats = NDArray[np.float32]
DEVICES: dict[Format, str] = {"onnx": "ort-cpu", "openvino": "ov-cpu"}
KEYS: tuple[tuple[str, Format], ...] = (
    ("modernbert-decoder", "onnx"),
    ("modernbert-decoder", "openvino"),
    ("gemma3", "onnx"),
)
WINDOW = 5
# Narrow heads move by 1024 rows at a time; the models here have heads of 64.
WIDE = {"hidden_size": 128, "num_attention_heads": 2}
STRIDE = stride_of(64)
LONG = 3 * STRIDE + 40
Engines = Callable[[tuple[str, Format]], Engine]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Engines:
    @cache
    def engine(key: tuple[str, Format]) -> Engine:
        name, form = key
        said: dict[str, Any] = {**WIDE, "max_position_embeddings": 4096}
        said |= {"head_dim": 64} if name == "gemma3" else {}
        folder = tmp_path_factory.mktemp("bundle") / "b"
        bundle = Bundle.open(write_bundle(folder, name, formats=(form,), **said))
        return Engine(bundle, device_named(DEVICES[form]), DeviceOptions())

    return engine


@pytest.fixture(params=KEYS, ids=lambda key: "-".join(key))
def engine(request: pytest.FixtureRequest, engines: Engines) -> Engine:
    return engines(request.param)


def ids(count: int, seed: int = 0) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).integers(3, VOCABULARY, count)]


def fed(decoder: Decoder, tokens: Sequence[int], sizes: Sequence[int]) -> Floats:
    """Logits of all rows, fed so many at a time over and over."""
    rows: list[Floats] = []
    at = turn = 0
    while at < len(tokens):
        part = tokens[at : at + sizes[turn % len(sizes)]]
        rows.append(decoder.forward(part).logits.copy())
        decoder.keep(decoder.length + len(part))
        at, turn = at + len(part), turn + 1
    return np.concatenate(rows)


def buffers(decoder: Decoder) -> list[Buffers]:
    found: list[Buffers] = decoder._cache._all  # type: ignore[attr-defined]  # pyright: ignore
    return found


def whole(engine: Engine) -> Decoder:
    """A decoder whose layers keep every row."""
    variant = engine.variants["decode"]
    every = msgspec.structs.replace(variant.cache, window=0)
    every_row = msgspec.structs.replace(variant, cache=every)
    return Decoder(engine.session("decode"), every_row)


def test_a_long_text_says_what_it_would_with_every_row_held(engine: Engine) -> None:
    tokens = ids(LONG)
    short, every = engine.decoder(), whole(engine)
    rows = fed(short, tokens, (1, 7, 3))
    assert buffers(short)[0].start == 3 * STRIDE - STRIDE
    assert error(rows, fed(every, tokens, (512,))) <= 1e-5


def test_the_text_is_the_checkpoint_s_own(engines: Engines) -> None:
    engine = engines(("modernbert-decoder", "onnx"))
    checkpoint = tiny_modernbert.decoder(**WIDE, max_position_embeddings=4096)
    truth = reference_of(family_of(checkpoint)[1]).logits({}, ids(LONG))
    assert error(fed(engine.decoder(), ids(LONG), (1, 5)), truth) <= 1e-4


@pytest.mark.skipif(platform.machine() != "x86_64", reason="elsewhere the gate says which it is")
@pytest.mark.parametrize("name", ["modernbert-decoder", "gemma3"])
def test_rows_have_the_same_bits_wherever_a_window_moved(name: str, engines: Engines) -> None:
    engine = engines((name, "onnx"))
    tokens = ids(LONG)
    plain = fed(engine.decoder(), tokens, (1,))
    for sizes in ((5, 2, 9), (33,)):
        np.testing.assert_array_equal(fed(engine.decoder(), tokens, sizes), plain)


@pytest.mark.parametrize("seed", range(2))
def test_trees_over_a_moving_window_leave_what_a_fresh_prefill_does(
    engine: Engine, seed: int
) -> None:
    random = np.random.default_rng(seed)
    worn, text = engine.decoder(), ids(STRIDE + TRAIL - 3, seed)
    fed(worn, text, (64,))
    for _ in range(30):
        count = int(random.integers(2, 17))
        tokens = ids(count, int(random.integers(1000)))
        parents = [-1, *(int(random.integers(-1, i)) for i in range(1, count))]
        base, node = worn.length, count - 1
        worn.forward(tokens, parents)
        path: list[int] = []
        while node >= 0:
            path.insert(0, node)
            node = parents[node]
        worn.keep(base, [base + i for i in path])
        text += [tokens[i] for i in path]
    assert buffers(worn)[0].start == STRIDE
    fresh = whole(engine)
    fed(fresh, text, (512,))
    probe, parents = ids(5, seed=99), [-1, 0, -1, 2, 2]
    found = worn.forward(probe, parents).logits.copy()
    assert error(found, fresh.forward(probe, parents).logits) <= 1e-5


def test_a_cache_goes_back_as_far_as_it_says_and_refuses_the_rest(engine: Engine) -> None:
    decoder, tokens = engine.decoder(), ids(LONG)
    fed(decoder, tokens, (64,))
    start = buffers(decoder)[0].start
    assert decoder.reach(LONG - TRAIL) == LONG - TRAIL
    assert decoder.reach(start) == 0
    with pytest.raises(CacheFull, match="window") as caught:
        decoder.keep(start)
    assert "\n" not in str(caught.value) and decoder.length == LONG
    decoder.keep(LONG - TRAIL)
    again = fed(decoder, tokens[LONG - TRAIL :], (1,))
    every = whole(engine)
    assert error(again, fed(every, tokens, (512,))[LONG - TRAIL :]) <= 1e-5
    decoder.keep(0)
    assert decoder.length == 0
    assert error(fed(decoder, tokens[:9], (9,)), fed(whole(engine), tokens[:9], (9,))) <= 1e-5


@pytest.mark.parametrize("draft", ["lookup", "suffix+recycling", "trigram"])
def test_no_drafter_changes_a_token_of_a_long_text(draft: str, engines: Engines) -> None:
    engine = engines(("modernbert-decoder", "onnx"))
    prompt = [*ids(30), *ids(30), *ids(STRIDE)]
    texts: list[list[int]] = []
    for name in ("none", draft):
        options = GenerationOptions(draft=name, max_new_tokens=STRIDE + 60)
        run = engine.generation(engine.decoder(), options, prompt_length=len(prompt))
        texts.append([token for step in run.run(prompt) for token in step.tokens])
    assert len(texts[0]) > 3 * WINDOW and texts[0] == texts[1]


@pytest.mark.parametrize("form", DEVICES)
def test_the_ports_are_right_for_a_runtime_that_holds_no_row_too_many(
    form: Format, engines: Engines
) -> None:
    engine = engines(("modernbert-decoder", form))
    stepper = Stepper(engine.session("decode"), engine.variants["decode"], {}, recent=WINDOW + 6)
    tokens = ids(60)
    rows = np.concatenate([stepper.decode(tokens[at : at + 3]) for at in range(0, 60, 3)])
    assert error(rows, fed(whole(engine), tokens, (60,))) <= 1e-5


def test_memory_at_8192_positions() -> None:
    """Ettin's 150M decoder: 22 layers, every third global, a window of 64; one of its 12 heads."""
    local = [i for i in range(22) if i % 3]
    record = Cache(kind="in_place", layers=22, heads=1, head_dim=64, spare=1, window=64)
    short = Buffers(record, local, limit=8192, time_axis=3, window=64)
    every = Buffers(record, range(22), limit=8192, time_axis=3)
    rest = Buffers(record, [i for i in range(22) if not i % 3], limit=8192, time_axis=3)
    for one in (short, every, rest):
        for length in (*range(512, 4097, 512), *range(4105, 8193, 8)):
            one.reserve(length)
            one.keep(length, ())
    held = short.array.nbytes + rest.array.nbytes
    assert every.array.nbytes == 2 * 22 * 64 * 4 * 8193
    assert short.array.shape[3] == 64 + TRAIL + 256 + 64 + 1
    assert 0.35 < held / every.array.nbytes < 0.41


@pytest.mark.parametrize(
    ("said", "word"),
    [({"window_layers": (0, 9)}, "does not have"), ({"window": 0}, "none to go by")],
)
def test_windows_that_cannot_be_are_refused(
    said: dict[str, Any], word: str, engines: Engines
) -> None:
    manifest = engines(("modernbert-decoder", "onnx")).manifest
    decode = manifest.components["decode"]
    variant = decode.variants[0]
    bad = msgspec.structs.replace(variant, cache=msgspec.structs.replace(variant.cache, **said))
    components = {"decode": msgspec.structs.replace(decode, variants=(bad,))}
    faults = manifest_faults(msgspec.structs.replace(manifest, components=components))
    assert any(word in fault for fault in faults)
