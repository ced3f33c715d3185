"""A row of a decode call is the same bits alone and among others: the whole step, norms and
attention included."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_families import VOCABULARY, write_bundle

from edgegen.bundle import Bundle
from edgegen.devices import DeviceOptions, device_named
from edgegen.runtime.decoder import Decoder
from edgegen.runtime.engine import Engine

MOST, PAST = 33, 9
DEVICES = {"onnx": "ort-cpu", "openvino": "ov-cpu"}
# OpenVINO makes kernels for each: what is left of four, eight and sixteen rows, and whole ones.
SIZES = {"onnx": (*range(1, 17), 20, 24, 32, MOST), "openvino": (2, 5, 7, 8, 16, MOST)}
# Widths are multiples of 32, so that every matrix is held in blocks; one model is wide enough for
# threads to share a product.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("t5-tied", {}),
    "t5-wide": ("t5-tied", {"d_model": 256, "d_kv": 64, "d_ff": 1024}),
    "whisper": ("whisper", {"decoder_ffn_dim": 96}),
    "llama-grouped": ("llama-grouped", {}),
    "gemma3": ("gemma3", {}),
    "marian-ssru": ("marian-ssru", {"decoder_ffn_dim": 96}),
}
NAMES = {"onnx": tuple(MODELS), "openvino": ("t5-wide", "whisper", "gemma3", "marian-ssru")}
INTEGER = "int8, products of integers"  # where blocks may be wide
Rows = NDArray[np.float32]


class Model:
    """A bundle on its format's CPU device, and a source it has read."""

    def __init__(self, bundle: Bundle, device: str, threads: int) -> None:
        self.engine = Engine(bundle, device_named(device), DeviceOptions(threads=threads))
        self.memory = None
        if bundle.manifest.speech is not None:
            wave = np.sin(np.arange(480000) * 0.01).astype(np.float32)
            self.memory = self.engine.remember_samples(wave)
        elif "encode" in self.engine.variants:
            self.memory = self.engine.remember_ids([5, 9, 77, 120, 33, 18, 1])

    def decoder(self) -> Decoder:
        """With rows that stand, fed one at a time as plain decoding feeds them."""
        decoder = self.engine.decoder(self.memory)
        stand(decoder, drawn(PAST, seed=1))
        return decoder

    def alone(self, path: list[int]) -> Rows:
        """Logits of each token of the path, fed one at a time."""
        return stand(self.decoder(), path)


def stand(decoder: Decoder, tokens: Sequence[int]) -> Rows:
    """Feed them one at a time, as plain decoding does; the logits of each."""
    rows = list[Rows]()
    for token in tokens:
        rows.append(decoder.forward([token]).logits[0].copy())
        decoder.keep(decoder.length + 1)
    return np.stack(rows)


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="ONNX Runtime's kernels for x86"
)
def test_rows_turned_by_an_odd_share_of_a_head_are_the_same_far_into_a_text(tmp_path: Path) -> None:
    """Six waves a row are no whole number of lanes: from position 99 on their last bits changed
    with where a row stood in its call, unseen by a gate that looks at the first fifty."""
    folder = write_bundle(tmp_path / "b", "codegen-prefix-lm", weight_format="int8")
    model = Model(Bundle.open(folder), "ort-cpu", 1)
    decoder, text = model.engine.decoder(), drawn(260, seed=3)
    calls: list[tuple[int, Rows]] = []
    alone: list[Rows] = []
    for at, token in enumerate(text):
        if at and at % 5 == 0 and at + 16 <= len(text):
            calls.append((at, decoder.forward(text[at : at + 16]).logits.copy()))
            decoder.keep(at)
        alone.append(decoder.forward([token]).logits[0].copy())
        decoder.keep(at + 1)
    model.engine.close()
    assert all(np.array_equal(rows, np.stack(alone[at : at + 16])) for at, rows in calls)


def drawn(count: int, seed: int) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).integers(3, VOCABULARY, count)]


Models = Callable[[str, str, str, int], Model]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    @cache
    def bundle(name: str, form: str, weight_format: Any) -> Bundle:
        folder = tmp_path_factory.mktemp("bundle") / "b"
        case, said = MODELS[name]
        asked: dict[str, Any] = {"formats": (form,), "weight_format": weight_format, **said}
        if weight_format == INTEGER:
            asked |= {"weight_format": "int8", "group_size": 128, "integer": ("decode",)}
        return Bundle.open(write_bundle(folder, case, **asked))

    @cache
    def model(name: str, form: str, weight_format: str, threads: int) -> Model:
        return Model(bundle(name, form, weight_format), DEVICES[form], threads)

    return model


def same_bits(model: Model) -> None:
    """Asserts that rows are those of one at a time: a chain, and a tree whose first path is laid
    first."""
    spine = drawn(MOST, seed=2)
    alone, decoder = model.alone(spine), model.decoder()
    for n in (*range(1, 18), 24, MOST):
        together = decoder.forward(spine[:n]).logits
        np.testing.assert_array_equal(together, alone[:n], err_msg=f"chain of {n}")
        depth = n // 2
        parents = [*range(-1, depth - 1), *([depth - 1] * (n - depth))]
        rows = decoder.forward(spine[:n], parents).logits
        np.testing.assert_array_equal(rows[:depth], alone[:depth], err_msg=f"tree of {n}")


@pytest.mark.skipif(
    platform.machine() != "x86_64", reason="elsewhere the parity gate says whether rows are equal"
)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("form", "name", "weight_format"),
    [
        (form, name, weight_format)
        for form, names in NAMES.items()
        for name in names
        for weight_format in ("fp32", "int8", "int4", *[INTEGER] * (form == "onnx"))
    ],
)
def test_rows_are_the_same_bits_alone_and_among_up_to_thirty_two(
    form: str, name: str, weight_format: str, threads: int, models: Models
) -> None:
    """A chain, and a tree whose first path is laid first, beside strangers."""
    model = models(name, form, weight_format, threads)
    spine = drawn(MOST, seed=2)
    alone, decoder = model.alone(spine), model.decoder()
    for n in SIZES[form]:
        together = decoder.forward(spine[:n]).logits
        np.testing.assert_array_equal(together, alone[:n], err_msg=f"chain of {n}")
        for depth in {1, n // 2, n - 1} - {0, n}:
            strangers = drawn(n - depth, seed=n + depth)
            random = np.random.default_rng(n)
            parents = [
                *range(-1, depth - 1),
                *(int(random.integers(-1, i)) for i in range(depth, n)),
            ]
            rows = decoder.forward([*spine[:depth], *strangers], parents).logits
            what = f"path of {depth} in {n}"
            np.testing.assert_array_equal(rows[:depth], alone[:depth], err_msg=what)
