"""Keys and values inside OpenVINO: the same texts as with them outside, whatever is drafted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stepping import error
from tiny_families import CASES, tokenizer, write_bundle

from edgegen.bundle import Bundle
from edgegen.devices import DeviceOptions, device_named
from edgegen.errors import ExportError
from edgegen.export.build import gate
from edgegen.export.families import family_of
from edgegen.export.formats import openvino
from edgegen.export.options import CACHES as ALL_CACHES
from edgegen.export.options import ExportOptions
from edgegen.export.stepper import Stepper
from edgegen.runtime.decoder import Decoder
from edgegen.runtime.engine import Engine, Memory
from edgegen.runtime.options import GenerationOptions

FAMILIES = ("t5-tied", "whisper", "llama-grouped", "gemma3", "t5gemma2")
CACHES = ALL_CACHES["openvino"]
DRAFTERS = ("lookup", "suffix", "recycling", "trigram", "aggressive+lookup")
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"do_sample": True, "temperature": 0.8, "seed": 5},
}
NEW = 32


class Text:
    """An engine that runs one kind of cache, and a source it has read."""

    def __init__(self, bundle: Bundle, kind: str) -> None:
        self.engine = Engine(bundle, device_named("ov-cpu"), DeviceOptions())
        variants = bundle.component("decode").variants
        (self.variant,) = (one for one in variants if one.cache.kind == kind)
        self.engine.parts.variants["decode"] = self.variant
        self.source = [int(i) for i in np.random.default_rng(0).integers(3, 40, 14)]
        self.prompt = list(bundle.manifest.generation.start)
        self.memory: Memory | None = None
        if bundle.manifest.speech is not None:
            wave = np.sin(np.arange(480000) * 0.01).astype(np.float32)
            self.memory = self.engine.remember_samples(wave)
        elif "encode" in self.engine.variants:
            self.memory = self.engine.remember_ids([*self.source, 1])
        else:
            self.prompt = self.source

    def decoder(self) -> Decoder:
        return self.engine.decoder(self.memory)

    def written(self, options: GenerationOptions) -> list[int]:
        made = self.engine.generation(self.decoder(), options, prompt_length=len(self.prompt))
        return [token for step in made.run(self.prompt, self.source) for token in step.tokens]


Texts = Callable[[str, str], Text]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    @cache
    def bundle(name: str) -> Bundle:
        folder = tmp_path_factory.mktemp("bundle") / "b"
        return Bundle.open(write_bundle(folder, name, formats=("openvino",), caches=CACHES))

    return bundle


@pytest.fixture(scope="module")
def texts(bundles: Callable[[str], Bundle]) -> Texts:
    @cache
    def text(name: str, kind: str) -> Text:
        return Text(bundles(name), kind)

    return text


def rows(decoder: Decoder, tokens: Sequence[int], parents: Sequence[int] | None = None) -> Any:
    return decoder.forward(tokens, parents).logits.copy()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", FAMILIES)
def test_no_drafter_changes_a_token_of_a_stateful_decoder(
    family: str, way: str, texts: Texts
) -> None:
    """Chains and trees against plain decoding, and that against keys and values outside."""
    options = GenerationOptions(max_new_tokens=NEW, min_new_tokens=NEW, **WAYS[way])
    plain = texts(family, "stateful").written(options)
    assert plain == texts(family, "append").written(options)
    assert len(plain) == NEW
    for name in DRAFTERS:
        asked = options.with_changes(draft=name, num_assistant_tokens=6)
        assert texts(family, "stateful").written(asked) == plain, name


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_kept_is_kept_in_its_order_even_twice(family: str, texts: Texts) -> None:
    """A tree's path, cut once more before the next call, and a rewind to nothing."""
    text = texts(family, "stateful")
    found, plain = text.decoder(), text.decoder()
    rows(found, [5, 9, 7])
    found.keep(3)
    rows(found, [11, 12, 13, 14], [-1, 0, 0, 2])
    found.keep(3, [3, 5, 6])  # 11, 13, 14
    found.keep(5)  # not 14
    rows(plain, [5, 9, 7, 11, 13])
    plain.keep(5)
    assert error(rows(found, [21, 22]), rows(plain, [21, 22])) <= 1e-5
    found.keep(0)
    assert error(rows(found, [5]), rows(text.decoder(), [5])) <= 1e-5


def test_a_row_that_was_cut_off_comes_back_only_when_it_is_fed(texts: Texts) -> None:
    """Rows behind the length are gone with the next call, though the state still held them."""
    text = texts("t5-tied", "stateful")
    found, plain = text.decoder(), text.decoder()
    rows(found, [5, 9, 7, 11])
    found.keep(1)
    rows(found, [30])
    found.keep(2)
    rows(plain, [5, 30])
    plain.keep(2)
    assert error(rows(found, [8]), rows(plain, [8])) <= 1e-5
    assert error(rows(found, [8]), rows(text.decoder(), [5, 9, 8])[-1:]) > 1e-3


def test_both_kinds_share_one_weight_file_and_append_is_preferred(
    bundles: Callable[[str], Bundle], tmp_path: Path
) -> None:
    both = bundles("t5-tied")
    alone = Bundle.open(write_bundle(tmp_path / "b", "t5-tied", formats=("openvino",)))
    append, stateful = both.component("decode").variants
    assert (append.cache.kind, stateful.cache.kind) == CACHES
    assert append.weights == stateful.weights and append.file != stateful.file
    grown = both.file(append.weights[0]).stat().st_size
    assert grown <= alone.file(append.weights[0]).stat().st_size + 4096
    limits = device_named("ov-cpu").limits
    chosen = Engine(both, device_named("ov-cpu"), DeviceOptions()).variants["decode"]
    assert chosen.cache.kind == min(CACHES, key=limits.caches.index)


def test_its_only_cache_port_names_the_rows_that_stand(bundles: Callable[[str], Bundle]) -> None:
    append, stateful = bundles("gemma3").component("decode").variants
    ports = {str(port) for port in stateful.graph.inputs}
    assert "kept int64[past]" in ports
    assert ports - {"kept int64[past]"} < {str(port) for port in append.graph.inputs}
    assert [port.name for port in stateful.graph.outputs] == ["logits"]


def test_the_gate_s_own_reader_steps_it_as_it_steps_append(texts: Texts) -> None:
    found = [
        Stepper(text.engine.session("decode"), text.variant, text.memory.feeds)
        for text in (texts("t5-tied", kind) for kind in ("stateful", "append"))
        if text.memory is not None
    ]
    for tokens, parents, stand in (
        ([0, 5], None, True),
        ([9, 8, 7], [-1, 0, 0], False),
        ([9, 7], None, True),
        ([4], None, True),
    ):
        one, other = (stepper.decode(tokens, parents, stand) for stepper in found)
        assert error(one, other) <= 1e-5


def test_recurrent_decoders_and_onnx_have_none(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"no keys and values; leave --cache out"):
        write_bundle(tmp_path / "b", "marian-ssru", formats=("openvino",), caches=("stateful",))
    with pytest.raises(ExportError, match=r"cache stateful \(use --format openvino"):
        ExportOptions(model="tiny", output=tmp_path, caches=("stateful",))
    with pytest.raises(ExportError, match=r"caches append, append \(use each once\)"):
        ExportOptions(model="tiny", output=tmp_path, caches=("append", "append"))


class Checked:
    """Stands for a writer: the gate reads graphs from its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder


def test_the_gate_checks_every_kind_and_reports_the_worst(tmp_path: Path) -> None:
    words = {"source": tokenizer(end=True)}
    checkpoint = replace(CASES["t5-tied"].make(), tokenizers=words)
    family = family_of(checkpoint)[1]
    options = ExportOptions(
        model="tiny", output=tmp_path, formats=("openvino",), caches=("stateful", "append"),
        parity_prompts=("ban din", "fon"),
    )  # fmt: skip
    variants = openvino.write(family, tmp_path / "graphs" / "openvino-fp32", options)
    assert [variants[key].cache.kind for key in ("decode", "decode+append")] == [*reversed(CACHES)]
    told: list[str] = []
    (parity,) = gate(family, options, [variants], Checked(tmp_path), told.append)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert not parity.skipped and parity.agreement == 1.0 and parity.max_error <= 1e-3
    exact = {variants[key].precision.rows == "bit" for key in ("decode", "decode+append")}
    assert exact == {True} or parity.rows_error > 0
