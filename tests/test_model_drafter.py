"""Laws of the draft model: the text never depends on it, whatever it is, knows or remembers."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from tiny_drafts import (
    END,
    VOCABULARY,
    WORDS,
    bundle,
    letters,
    noisy,
    shuffled_words,
    tiny_marian,
)
from tiny_families import CASES, tokenizer

import edgegen
from edgegen.errors import BundleError, CacheFull, InputError
from edgegen.export.checkpoint import Checkpoint
from edgegen.runtime.buffers import TRAIL
from edgegen.runtime.decoder import Decoder
from edgegen.runtime.drafters.base import Materials
from edgegen.runtime.drafters.model import ModelDrafter
from edgegen.runtime.options import GenerationOptions
from edgegen.runtime.pipeline import Pipeline

GREEDY = GenerationOptions(max_new_tokens=40, min_new_tokens=40)
ENDING = GenerationOptions(max_new_tokens=40, do_sample=True, temperature=1.3, top_k=50, seed=7)
SAMPLED = ENDING.with_changes(min_new_tokens=40)
RULED = SAMPLED.with_changes(repetition_penalty=1.3, no_repeat_ngram_size=2, suppress=(5, 6))
OPTIONS = (GREEDY, SAMPLED, RULED)
TEXTS = tuple(" ".join(WORDS[(i * i * 7 + i) % len(WORDS)] for i in range(n)) for n in (1, 9, 23))


def with_draft(options: GenerationOptions, k: int = 4, **changes: Any) -> GenerationOptions:
    return options.with_changes(draft="model", num_assistant_tokens=k, **changes)


def t5(**said: Any) -> Checkpoint:
    return CASES["t5-tied"].make(**said)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles of two targets, and what drafts for them."""
    at = tmp_path_factory.mktemp("drafts")
    words = tokenizer(end=True)
    bundle(at / "t5", t5(), words)
    bundle(at / "t5-noisy", noisy(t5(), 0.002), words)
    bundle(at / "t5-narrow", t5(d_model=32, num_decoder_layers=1), words)
    bundle(at / "t5-shuffled", t5(), shuffled_words())
    bundle(at / "t5-letters", t5(d_model=32, vocab_size=60), letters())
    bundle(at / "t5-padded", noisy(t5(vocab_size=VOCABULARY + 5), 0.02), words)
    ssru = tiny_marian()
    bundle(at / "ssru", ssru, words)
    bundle(at / "ssru-noisy", noisy(ssru, 0.05), words)
    bundle(at / "gemma", CASES["gemma3"].make(), tokenizer(end=False))
    bundle(at / "llama", CASES["llama-grouped"].make(), tokenizer(end=False))
    return at


def texts_of(
    folder: Path, target: str, draft: str, options: GenerationOptions, k: int = 4
) -> list[Any]:
    """Results with the draft, each checked against plain decoding of the same bundle."""
    results: list[Any] = []
    with edgegen.load(folder / target, draft_model=folder / draft) as pipeline:
        for text in TEXTS:
            plain = pipeline.generate(text, options)
            drafted = pipeline.generate(text, with_draft(options, k))
            assert drafted.tokens == plain.tokens
            assert drafted.text == plain.text
            assert drafted.lossless == "sample-identical"
            results.append(drafted)
    return results


DRAFTS = (
    ("t5", "t5", "same"),
    ("t5", "t5-noisy", "same"),
    ("t5", "t5-narrow", "same"),
    ("t5", "t5-shuffled", "mapped"),
    ("t5", "t5-padded", "mapped"),
    ("t5", "t5-letters", "realigned"),
    ("t5", "ssru", "mapped"),
    ("ssru", "ssru-noisy", "same"),
    ("ssru", "t5", "mapped"),
    ("gemma", "llama", "same"),
)


@pytest.mark.parametrize(("target", "draft", "way"), DRAFTS)
@pytest.mark.parametrize(
    "options", [*OPTIONS, ENDING], ids=["greedy", "sampled", "ruled", "ending"]
)
def test_the_text_never_depends_on_the_draft_model(
    folder: Path, target: str, draft: str, way: str, options: GenerationOptions
) -> None:
    results = texts_of(folder, target, draft, options)
    assert sum(one.timings.draft_tokens_proposed for one in results) > 0
    with edgegen.load(folder / target, draft_model=folder / draft) as pipeline:
        companion = pipeline.engine.companion
        assert companion is not None
        assert companion.translation.way == way


@pytest.mark.parametrize("name", ["t5", "ssru", "gemma"])
@pytest.mark.parametrize("options", OPTIONS, ids=["greedy", "sampled", "ruled"])
@pytest.mark.parametrize("k", [1, 4, 9])
def test_a_target_that_drafts_for_itself_is_accepted_whole(
    folder: Path, name: str, options: GenerationOptions, k: int
) -> None:
    """Sampled texts too: both sides choose with the same noise."""
    for result in texts_of(folder, name, name, options, k):
        steps = result.timings.steps
        assert all(step.accepted == step.drafted for step in steps)
        assert all(step.drafted == k for step in steps[: len(result.tokens) // (k + 1) - 1])
        assert result.timings.draft_tokens_accepted + len(steps) == len(result.tokens)


@pytest.mark.parametrize(
    ("target", "draft"), [("t5", "t5-noisy"), ("ssru", "ssru-noisy"), ("t5", "t5-shuffled")]
)
def test_drafts_of_a_model_that_is_nearly_the_target_are_often_accepted(
    folder: Path, target: str, draft: str
) -> None:
    words = shuffled_bundle(folder) if draft == "t5-shuffled" else folder / draft
    with edgegen.load(folder / target, draft_model=words) as pipeline:
        results = [pipeline.generate(text, with_draft(GREEDY)) for text in TEXTS]
    accepted = sum(result.timings.draft_tokens_accepted for result in results)
    assert accepted > 0.3 * sum(result.timings.draft_tokens_proposed for result in results)


def shuffled_bundle(folder: Path) -> Path:
    """The target itself, its rows moved to the places of the shuffled vocabulary's ids."""
    moved = folder / "t5-moved"
    if moved.exists():
        return moved
    ours = tokenizers.Tokenizer.from_buffer(tokenizer(end=True).data).get_vocab()
    theirs = tokenizers.Tokenizer.from_buffer(shuffled_words().data).get_vocab()
    order = np.arange(VOCABULARY)
    for word, at in ours.items():
        order[theirs[word]] = at
    checkpoint = t5()
    weights = dict(checkpoint.weights)
    for name, weight in weights.items():
        if weight.shape[0] == VOCABULARY:
            weights[name] = type(weight).of(np.asarray(weight.read())[order])
    return bundle(moved, replace(checkpoint, weights=weights), shuffled_words())


def test_the_same_model_under_other_ids_is_accepted_whole(folder: Path) -> None:
    """Every id is translated there and back, the source's too."""
    with edgegen.load(folder / "t5", draft_model=shuffled_bundle(folder)) as pipeline:
        for text in TEXTS:
            result = pipeline.generate(text, with_draft(GREEDY))
            assert all(step.accepted == step.drafted for step in result.timings.steps)


def test_a_draft_made_for_the_target_reads_its_encoder(folder: Path, tmp_path: Path) -> None:
    """The first two of three decoder layers: no encoder of its own, the target's memory."""
    whole = t5(num_decoder_layers=3)
    target = bundle(tmp_path / "target", whole)
    first = replace(whole, config={**whole.config, "num_decoder_layers": 2})
    draft = bundle(tmp_path / "draft", first, made_for=target)
    with edgegen.load(target, draft_model=draft) as pipeline:
        companion = pipeline.engine.companion
        assert companion is not None
        assert companion.shared
        assert list(companion.engine.compile_seconds) == ["decode"]
        for options in OPTIONS:
            plain = pipeline.generate(TEXTS[1], options)
            drafted = pipeline.generate(TEXTS[1], with_draft(options))
            assert drafted.tokens == plain.tokens
            assert drafted.timings.draft_tokens_proposed > 0
    same = bundle(tmp_path / "same", whole, made_for=target)
    with edgegen.load(target, draft_model=same) as pipeline:
        result = pipeline.generate(TEXTS[1], with_draft(GREEDY))
        assert all(step.accepted == step.drafted for step in result.timings.steps)
    with pytest.raises(InputError, match="shares the encoder of another target"):
        edgegen.load(folder / "ssru", draft_model=draft)
    narrow = bundle(tmp_path / "narrow", t5(d_kv=8), made_for=target)
    with pytest.raises(BundleError, match="share the encoder"):
        edgegen.load(target, draft_model=narrow)


@pytest.mark.parametrize("name", ["t5", "ssru"])
def test_a_confident_draft_stops_early_and_changes_nothing(folder: Path, name: str) -> None:
    with edgegen.load(folder / name, draft_model=folder / name) as pipeline:
        free = pipeline.generate(TEXTS[1], with_draft(GREEDY))
        sure = with_draft(GREEDY, assistant_confidence_threshold=1.0)
        cautious = pipeline.generate(TEXTS[1], sure)
    assert cautious.tokens == free.tokens
    assert all(step.drafted <= 1 for step in cautious.timings.steps)


@pytest.mark.parametrize("name", ["t5", "ssru"])
def test_drawn_drafts_repeat_with_their_seed_and_say_their_class(folder: Path, name: str) -> None:
    options = with_draft(SAMPLED, verifier="rejection")
    with edgegen.load(folder / name, draft_model=folder / name) as pipeline:
        one, other = pipeline.generate(TEXTS[1], options), pipeline.generate(TEXTS[1], options)
        assert one.lossless == "distribution-identical"
        assert one.tokens == other.tokens
        # p and q are equal, so nothing is ever rejected.
        assert all(step.accepted == step.drafted for step in one.timings.steps)


def test_speech_is_drafted_from_the_same_samples(folder: Path, tmp_path: Path) -> None:
    target = CASES["whisper"].make()
    random = np.random.default_rng(0)
    sound = random.normal(size=16000, scale=0.1).astype(np.float32)
    bundle(tmp_path / "target", target, tokenizer(end=False))
    bundle(tmp_path / "draft", noisy(target, 0.01), tokenizer(end=False))
    with edgegen.load(tmp_path / "target", draft_model=tmp_path / "draft") as pipeline:
        for options in OPTIONS:
            plain, drafted = (pipeline.generate(sound, o) for o in (options, with_draft(options)))
            assert drafted.tokens == plain.tokens
            assert drafted.timings.draft_tokens_accepted > 0
    with pytest.raises(InputError, match="takes a text, the target takes 480000 samples"):
        edgegen.load(tmp_path / "target", draft_model=folder / "t5")


def test_a_recurrent_cache_goes_back_to_the_very_state(folder: Path) -> None:
    with edgegen.load(folder / "ssru") as pipeline:
        engine = pipeline.engine
        memory = engine.remember_ids([9, 5, 7, END])
        text = [-1, *(3 + 7 * at % 40 for at in range(4 * TRAIL))]

        def after(decoder: Decoder, tokens: Sequence[int]) -> list[Any]:
            rows: list[Any] = []
            for token in tokens:
                rows.append(decoder.forward([token]).logits.copy())
                decoder.keep(decoder.length + 1)
            return rows

        decoder = engine.decoder(memory)
        rows = after(decoder, text[:9])
        for length in (5, 1, 0):
            assert decoder.reach(length) == length
            decoder.keep(length)
            again = after(decoder, text[length:9])
            assert all(np.array_equal(*pair) for pair in zip(again, rows[length:], strict=True))
        after(decoder, text[9:])
        assert decoder.reach(len(text) - TRAIL + 1) == len(text) - TRAIL + 1
        lost = len(text) - 2 * TRAIL
        assert decoder.reach(lost) == 0
        with pytest.raises(CacheFull, match="only the last"):
            decoder.keep(lost)
        decoder.keep(0)
        again = after(decoder, text[:9])
        assert all(np.array_equal(*pair) for pair in zip(again, rows, strict=True))


def test_a_draft_model_that_is_missing_or_cannot_serve_is_refused_in_one_line(
    folder: Path,
) -> None:
    with (
        edgegen.load(folder / "t5") as pipeline,
        pytest.raises(InputError, match="draft_model=FOLDER"),
    ):
        pipeline.stream(TEXTS[0], with_draft(GREEDY))
    with pytest.raises(InputError, match="draft_model=FOLDER"):
        ModelDrafter.make(Materials(ends=frozenset([END]), vocabulary=9))
    with pytest.raises(InputError, match="takes a prompt, the target takes a text"):
        edgegen.load(folder / "t5", draft_model=folder / "llama")
    with pytest.raises(InputError, match="threads must be at least 1, got 0"):
        edgegen.load(folder / "t5", draft_model=folder / "t5", draft_threads=0)
    with pytest.raises(BundleError, match="no such folder"):
        edgegen.load(folder / "t5", draft_model=folder / "nothing")
    with pytest.raises(InputError, match="assistant_confidence_threshold"):
        GenerationOptions(assistant_confidence_threshold=2.0)


def test_closing_a_stream_or_the_pipeline_frees_both_models(folder: Path) -> None:
    pipeline = edgegen.load(folder / "t5", draft_model=folder / "t5-noisy")
    companion = pipeline.engine.companion
    assert companion is not None
    opened: list[weakref.ref[Decoder]] = []
    for engine in (pipeline.engine, companion.engine):
        watch(engine, opened)
    stream = pipeline.stream(TEXTS[1], with_draft(GREEDY))
    next(stream)
    gc.collect()
    assert sum(ref() is not None for ref in opened) == 2
    stream.close()
    gc.collect()
    assert [ref() for ref in opened] == [None, None]
    pipeline.close()
    with pytest.raises(InputError, match="closed"):
        companion.engine.session("decode")


def watch(engine: Any, opened: list[Any]) -> None:
    make = engine.decoder

    def decoder(*given: Any) -> Any:
        found = make(*given)
        opened.append(weakref.ref(found))
        return found

    engine.decoder = decoder


def test_one_pipeline_drafts_for_several_threads(folder: Path) -> None:
    with edgegen.load(folder / "t5", draft_model=folder / "t5-noisy") as pipeline:
        expected = [pipeline.generate(text, GREEDY).tokens for text in TEXTS]
        found: dict[int, list[tuple[int, ...]]] = {}

        def work(at: int, pipeline: Pipeline = pipeline) -> None:
            found[at] = [pipeline.generate(text, with_draft(GREEDY)).tokens for text in TEXTS]

        threads = [threading.Thread(target=work, args=(at,)) for at in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [found[at] for at in range(4)] == [expected] * 4
