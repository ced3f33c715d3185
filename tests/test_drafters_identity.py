"""Every drafter that needs no weights against plain decoding, on tiny models of every kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import Adversary
from tiny_families import VOCABULARY, write_bundle
from tiny_sources import shading

from edgegen.bundle import Bundle
from edgegen.devices import DeviceOptions, device_named
from edgegen.errors import ExportError, InputError
from edgegen.export.options import ExportOptions
from edgegen.runtime.budget import Fixed
from edgegen.runtime.drafters import DRAFTERS
from edgegen.runtime.drafters.base import Context, Drafter
from edgegen.runtime.drafters.suffix import Corpus
from edgegen.runtime.engine import Engine, Memory
from edgegen.runtime.generation import Step
from edgegen.runtime.layout import first_path
from edgegen.runtime.options import GenerationOptions
from edgegen.runtime.speculative import SpeculativeDecoding
from edgegen.runtime.verify import Draft

FAMILIES = (
    "t5-tied",
    "mt5",
    "bart",
    "whisper",
    "marian-ssru",
    "llama-grouped",
    "gemma3",
    "modernbert-decoder",
    "qwen2",
    "moonshine",
    "vit-trocr",
    "codegen-prefix-lm",
    "codet5p",
    "t5gemma2",
)
# Combinations of everything that proposes otherwise; "model" needs a bundle of its own.
COMBINED = ("suffix+recycling", "aggressive+lookup", "lookup+trigram+recycling")
NAMES = (*(name for name in DRAFTERS if name not in ("none", "auto", "model")), *COMBINED)
TREES = ("aggressive", "recycling", "trigram", "trigram-mcts", *COMBINED)
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"do_sample": True, "temperature": 0.8, "seed": 5},
}
NEW, SOURCES, NODES = 64, 9, 7
# A kind of decoder each; the others are sampled where there is time.
SAMPLED = ("t5-tied", "bart", "whisper", "marian-ssru", "llama-grouped", "gemma3")
CASES = [
    pytest.param(
        family, way, marks=pytest.mark.slow if way == "sampled" and family not in SAMPLED else ()
    )
    for family in FAMILIES
    for way in WAYS
]


def as_it_is(drafter: Drafter) -> Drafter:
    return drafter


class AsChain:
    """The first path of what another drafter proposes."""

    def __init__(self, drafter: Drafter) -> None:
        self.drafter = drafter

    def draft(self, context: Context, limit: int) -> Draft:
        found = self.drafter.draft(context, limit)
        return Draft.chain([found.tokens[node] for node in first_path(found)])

    def commit(self, length: int) -> None:
        self.drafter.commit(length)


class Bench:
    """An engine and the sources it has read."""

    def __init__(self, folder: Path, family: str, taps: tuple[str, ...] = ()) -> None:
        bundle = Bundle.open(write_bundle(folder, family, taps=taps))
        self.engine = Engine(bundle, device_named("ort-cpu"), DeviceOptions())
        self.engine.corpus = Corpus([ids(200, seed=99)])
        self.start = list(bundle.manifest.generation.start)
        self.openings = [self.opening(seed) for seed in range(SOURCES)]

    def opening(self, seed: int) -> tuple[Memory | None, list[int], list[int]]:
        """Memory, source and prompt."""
        source = ids(14, seed)
        if (speech := self.engine.manifest.speech) is not None:
            size = speech.window_samples if speech.padded else 9000 * (seed + 1)
            wave = np.sin(np.arange(size) * 0.01 * (seed + 1)).astype(np.float32)
            return self.engine.remember_samples(wave), [], self.start
        if (image := self.engine.manifest.image) is not None:
            shown = shading(3, image.height, image.width) * np.float32(seed + 1)
            return self.engine.remember_pixels(shown), [], self.start
        if "encode" in self.engine.variants:
            return self.engine.remember_ids([*source, 1]), source, self.start
        return None, [], source

    def steps(
        self,
        seed: int,
        options: GenerationOptions,
        wrap: Callable[[Drafter], Drafter] = as_it_is,
        shown: Sequence[int] | None = None,
    ) -> list[Step]:
        """``shown``: what drafters take for the source."""
        memory, source, prompt = self.openings[seed]
        decoder = self.engine.decoder(memory, options)
        made = self.engine.generation(decoder, options, prompt_length=len(prompt))
        assert isinstance(made, SpeculativeDecoding)
        made.drafter = wrap(made.drafter)
        return list(made.run(prompt, source if shown is None else shown))


def ids(count: int, seed: int) -> list[int]:
    """Ids of few kinds, so that there is something to look up."""
    return [int(i) for i in np.random.default_rng(seed).integers(3, 40, count)]


def text_of(steps: Sequence[Step]) -> list[int]:
    return [token for step in steps for token in step.tokens]


Benches = Callable[[str], Bench]


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> Benches:
    @cache
    def bench(family: str) -> Bench:
        return Bench(tmp_path_factory.mktemp("bundle") / "b", family)

    return bench


@pytest.mark.parametrize(("family", "way"), CASES)
def test_no_drafter_changes_a_token(family: str, way: str, benches: Benches) -> None:
    """8,500 tokens and more a case: trees and chains, greedy and sampled."""
    bench, compared = benches(family), 0
    options = GenerationOptions(max_new_tokens=NEW, min_new_tokens=NEW, **WAYS[way])
    for seed in range(SOURCES):
        plain = text_of(bench.steps(seed, options))
        assert len(plain) == NEW
        for name in NAMES:
            asked = options.with_changes(draft=name, num_assistant_tokens=NODES)
            for wrap in (as_it_is, AsChain)[: 1 + (name in TREES)]:
                steps = bench.steps(seed, asked, wrap)
                assert text_of(steps) == plain, (name, seed)
                # Tokens committed are those accepted and one of the target's own a call.
                assert all(len(step.tokens) == step.accepted + 1 for step in steps)
                assert all(step.drafted <= NODES for step in steps)
                compared += len(plain)
    assert compared >= 8500


@pytest.mark.parametrize("family", ["t5-tied", "marian-ssru", "whisper"])
@pytest.mark.parametrize("name", NAMES)
def test_every_drafter_copies_a_source_that_is_the_text(
    name: str, family: str, benches: Benches
) -> None:
    """Identity would be cheap if nothing were ever accepted."""
    bench = benches(family)
    options = GenerationOptions(max_new_tokens=NEW, min_new_tokens=NEW)
    plain = text_of(bench.steps(0, options))
    asked = options.with_changes(draft=name, num_assistant_tokens=NODES)
    steps = bench.steps(0, asked, shown=plain)
    assert text_of(steps) == plain
    assert len(steps) < 0.75 * NEW


@pytest.mark.parametrize("family", FAMILIES)
def test_nor_does_an_adversary_that_all_learn_from(family: str, benches: Benches) -> None:
    """Learning drafters see the rows of a stranger's random trees before they speak."""

    class Heckled:
        def __init__(self, drafter: Drafter) -> None:
            self.drafter, self.turn = drafter, 0
            self.heckler = Adversary(VOCABULARY, seed=3)

        def draft(self, context: Context, limit: int) -> Draft:
            self.turn += 1
            said = self.drafter.draft(context, limit)
            return self.heckler.draft(context, limit) if self.turn % 2 else said

        def commit(self, length: int) -> None:
            self.drafter.commit(length)

    bench = benches(family)
    options = GenerationOptions(max_new_tokens=NEW, min_new_tokens=NEW)
    plain = text_of(bench.steps(0, options))
    for name in ("recycling", "trigram", "suffix+recycling"):
        asked = options.with_changes(draft=name, num_assistant_tokens=NODES)
        assert text_of(bench.steps(0, asked, Heckled)) == plain


def test_ends_and_limits_inside_a_path_cut_there(benches: Benches) -> None:
    bench = benches("t5-tied")
    plain = text_of(bench.steps(1, GenerationOptions(max_new_tokens=NEW, min_new_tokens=NEW)))
    for length in (1, 2, 5, 13, NEW - 1):
        for name in NAMES:
            options = GenerationOptions(
                max_new_tokens=length, min_new_tokens=length, draft=name, num_assistant_tokens=16
            )
            steps = bench.steps(1, options)
            assert text_of(steps) == plain[:length]
            assert steps[-1].cut.reason == "length"


def test_rows_are_what_the_target_said_of_each_node(benches: Benches) -> None:
    """Row 0 chose the next token of the root, row 1+i that of node i, as fed plainly."""
    bench, seen = benches("t5-tied"), 0
    options = GenerationOptions(max_new_tokens=NEW, min_new_tokens=NEW)
    memory, source, prompt = bench.openings[0]

    class Witness(Adversary):
        def draft(self, context: Context, limit: int) -> Draft:
            nonlocal seen
            if context.rows is not None:
                rows, draft = context.rows, context.rows.draft
                assert rows.logits.shape == (1 + len(draft), VOCABULARY)
                for node in range(-1, len(draft)):
                    path = [draft.tokens[i] for i in draft.path_to(node)]
                    fed = [*context.tokens[: rows.root + 1], *path]
                    decoder = bench.engine.decoder(memory)
                    alone = decoder.forward(fed, first_row=len(fed) - 1).logits[0]
                    np.testing.assert_allclose(rows.logits[1 + node], alone, atol=1e-4)
                    seen += 1
            return super().draft(context, limit)

    decoder = bench.engine.decoder(memory)
    made = bench.engine.generation(decoder, options, prompt_length=len(prompt))
    assert isinstance(made, SpeculativeDecoding)
    made.drafter, made.budget = Witness(VOCABULARY), Fixed(4)
    assert len(text_of(list(made.run(prompt, source)))) == NEW
    assert seen > NEW


@pytest.mark.parametrize("family", ["t5-tied", "marian-ssru"])
def test_top_ids_of_the_graph_and_of_the_host_draft_alike(
    family: str, tmp_path: Path, benches: Benches
) -> None:
    tapped, host = Bench(tmp_path / "b", family, ("topk",)), benches(family)
    options = GenerationOptions(
        max_new_tokens=NEW, min_new_tokens=NEW, draft="recycling", num_assistant_tokens=NODES
    )
    for seed in range(SOURCES):
        here, there = tapped.steps(seed, options), host.steps(seed, options)
        assert [step.tokens for step in here] == [step.tokens for step in there]
        assert [step.drafted for step in here] == [step.drafted for step in there]
    assert "decode+topk" in tapped.engine.compile_seconds
    assert "decode" not in tapped.engine.compile_seconds  # nobody asked for the plain graph
    assert "decode+topk" not in host.engine.variants


def test_a_tapped_bundle_is_plain_where_no_one_wants_the_tap(tmp_path: Path) -> None:
    tapped = Bench(tmp_path / "b", "t5-tied", ("topk",))
    tapped.steps(0, GenerationOptions(max_new_tokens=4, draft="lookup"))
    assert "decode+topk" not in tapped.engine.compile_seconds
    weights = {variant.weights for variant in tapped.engine.variants.values()}
    assert len(weights) == 1


def test_an_unknown_tap_or_one_nobody_can_make_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="unknown tap 'hiden'"):
        ExportOptions(model="tiny", output=tmp_path, taps=("hiden",))
    with pytest.raises(ExportError, match="taps are made in ONNX graphs only"):
        ExportOptions(model="tiny", output=tmp_path, taps=("topk",), formats=("openvino",))


def test_a_store_is_a_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="draft_store must be a Path or None, got 5"):
        GenerationOptions(draft_store=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["recycling", "trigram", "suffix+trigram"])
def test_what_was_learned_is_kept_by_bundle_and_changes_no_token(
    name: str, tmp_path: Path, benches: Benches
) -> None:
    bench = benches("t5-tied")
    options = GenerationOptions(max_new_tokens=NEW, min_new_tokens=NEW)
    plain = text_of(bench.steps(0, options))
    asked = options.with_changes(
        draft=name, num_assistant_tokens=NODES, draft_store=tmp_path / "store"
    )
    calls: list[int] = []
    for _ in range(3):
        steps = bench.steps(0, asked)
        assert text_of(steps) == plain
        calls.append(len(steps))
    files = list((tmp_path / "store").rglob("*.npz"))
    assert [file.stem for file in files] == [name.rpartition("+")[2]]
    assert calls[-1] <= calls[0]
