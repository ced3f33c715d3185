"""Real graphs whose rows agree up to rounding: what that would change, and that it does not."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import msgspec
import numpy as np
import pytest
from tiny_families import write_bundle

from edgegen.bundle import Bundle
from edgegen.commands.outputs import times_of
from edgegen.devices import DeviceOptions, device_named
from edgegen.manifest import Parity
from edgegen.profiles.record import StepRecord
from edgegen.runtime.engine import Engine
from edgegen.runtime.generation import Step
from edgegen.runtime.options import GenerationOptions
from edgegen.runtime.result import Pass, Timings
from edgegen.runtime.speculation import SAFETY, TIPPED, noise_of
from edgegen.runtime.stopping import Cut

DRAFTERS = ("lookup", "recycling", "trigram")
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"do_sample": True, "temperature": 0.5, "seed": 5},
}
NEW, SOURCES = 64, 12


class Rounded:
    """A tiny T5 in blocks of 128, which take no companion row, and the rows error seen on it."""

    def __init__(self, bundle: Bundle) -> None:
        self.engine = Engine(bundle, device_named("ort-cpu"), DeviceOptions())
        self.prompt = list(bundle.manifest.generation.start)
        self.sources = [drawn(14, seed) for seed in range(SOURCES)]
        self.memories = [self.engine.remember_ids([*source, 1]) for source in self.sources]
        self.rows_error = max(self.error(index) for index in range(SOURCES))
        decode = self.engine.variants["decode"]
        seen = Parity(
            format=decode.format,
            weight_format=decode.precision.weight_format,
            rows_error=self.rows_error,
        )
        self.engine.manifest = msgspec.structs.replace(self.engine.manifest, parity=(seen,))

    def error(self, index: int) -> float:
        """As the parity gate has it: several rows of one call against one a call."""
        tokens, memory = drawn(12, 99 + index), self.memories[index]
        together = self.engine.decoder(memory).forward(tokens).logits.copy()
        decoder, apart = self.engine.decoder(memory), list[Any]()
        for token in tokens:
            apart.append(decoder.forward([token]).logits[0].copy())
            decoder.keep(decoder.length + 1)
        return float(np.abs(together - np.stack(apart)).max() / np.abs(apart).max())

    def steps(
        self, index: int, options: GenerationOptions, *, margin: bool = True
    ) -> Sequence[Step]:
        decoder = self.engine.decoder(self.memories[index])
        with taken_for_equal(self.engine, not margin):
            made = self.engine.generation(decoder, options, prompt_length=len(self.prompt))
        return list(made.run(self.prompt, self.sources[index]))


@contextmanager
def taken_for_equal(engine: Engine, equal: bool = True) -> Generator[None]:
    """Loops made inside believe that rows are equal bit for bit, and watch no margin."""
    variant = engine.variants["decode"]
    precision = msgspec.structs.replace(variant.precision, rows="bit" if equal else "rounding")
    engine.parts.variants["decode"] = msgspec.structs.replace(variant, precision=precision)
    try:
        yield
    finally:
        engine.parts.variants["decode"] = variant


def drawn(count: int, seed: int) -> list[int]:
    """Ids of few kinds, so that there is something to look up."""
    return [int(i) for i in np.random.default_rng(seed).integers(3, 40, count)]


def text_of(steps: Sequence[Step]) -> list[int]:
    return [token for step in steps for token in step.tokens]


@pytest.fixture(scope="module")
def rounded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Rounded]:
    @cache
    def model(weight_format: Any) -> Rounded:
        folder = tmp_path_factory.mktemp("bundle") / "b"
        # Deep enough that rounding shows in one greedy text of four, whatever the processor.
        said: dict[str, Any] = {"d_model": 128, "d_kv": 32, "d_ff": 256, "num_decoder_layers": 6}
        return Rounded(
            Bundle.open(
                write_bundle(folder, "t5-tied", weight_format=weight_format, group_size=128, **said)
            )
        )

    return model


@pytest.mark.parametrize("weight_format", ["int8", "int4"])
def test_without_the_margin_rounding_shows_in_the_text_and_with_it_never(
    weight_format: str, rounded: Callable[[str], Rounded]
) -> None:
    model = rounded(weight_format)
    assert model.rows_error > 0
    differ = reruns = 0
    for way in WAYS.values():
        options = GenerationOptions(max_new_tokens=NEW, min_new_tokens=NEW, **way)
        assert noise_of(model.engine, options) >= model.rows_error
        for index in range(SOURCES):
            plain = text_of(model.steps(index, options))
            for name in DRAFTERS:
                asked = options.with_changes(draft=name, num_assistant_tokens=6)
                differ += text_of(model.steps(index, asked, margin=False)) != plain
                steps = model.steps(index, asked)
                assert text_of(steps) == plain, name
                reruns += sum(step.reruns for step in steps)
    assert differ > 0
    assert reruns > 0


def test_a_bundle_whose_rows_are_equal_computes_nothing_again(
    rounded: Callable[[str], Rounded],
) -> None:
    engine = rounded("int8").engine
    assert noise_of(engine, GenerationOptions()) > 0
    with taken_for_equal(engine):
        assert noise_of(engine, GenerationOptions()) == 0.0


@pytest.mark.parametrize(("format", "weight_format"), [("onnx", "int8"), ("openvino", "fp32")])
def test_activations_in_codes_may_move_more_than_was_seen(
    rounded: Callable[[str], Rounded], format: str, weight_format: str
) -> None:
    """The gate's calls may have tipped no code over; floats move by what was seen."""
    engine = rounded("int8").engine
    variant, manifest = engine.variants["decode"], engine.manifest
    held: dict[str, Any] = {"format": format, "weight_format": weight_format}
    precision = msgspec.structs.replace(variant.precision, weight_format=weight_format)
    seen = Parity(**held, rows_error=1e-7)
    engine.manifest = msgspec.structs.replace(manifest, parity=(seen,))
    engine.parts.variants["decode"] = msgspec.structs.replace(
        variant, format=format, precision=precision
    )
    try:
        least = TIPPED if format == "onnx" else 1e-7
        assert noise_of(engine, GenerationOptions()) == SAFETY * least
    finally:
        engine.manifest, engine.parts.variants["decode"] = manifest, variant


def test_users_are_told_of_reruns_and_flips() -> None:
    step = Step(
        tokens=(5, 6, 7, 8), drafted=4, accepted=3, rows=5, draft_seconds=0.0,
        decode_seconds=0.01, seconds=0.01, cut=Cut(4), reruns=2, flips=1,
    )  # fmt: skip
    told = times_of(Timings(passes=(Pass(steps=(step,)),), wall_seconds=0.1))
    assert (told["reruns"], told["flips"], told["flip_rate"]) == (2, 1, 0.25)


def test_a_profile_of_before_there_were_reruns_is_read_as_having_none() -> None:
    old = msgspec.json.encode([[5], 0, 0, 1, 0.0, 0.01, 0.01])
    record = msgspec.json.decode(old, type=StepRecord)
    assert (record.reruns, record.flips) == (0, 0)
