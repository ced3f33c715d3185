"""BART's kin as their own classes decode: their rules, their tables, however they were saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from stepping import error
from tiny import checkpoint_of
from tiny_bart import KINDS, tiny_kin, tiny_kin_model
from tiny_families import CASES, END, PAD, UNKNOWN, VOCABULARY, write_bundle
from transformers import GenerationConfig

import edgegen
from edgegen.bundle import Bundle
from edgegen.devices import DeviceOptions, device_named
from edgegen.errors import CheckpointError
from edgegen.export.checkpoint import Checkpoint, Weight
from edgegen.export.families import family_of
from edgegen.export.families.bart import fairseq_waves, marian_waves
from edgegen.export.families.decoding import with_rules
from edgegen.export.reference import TorchReference, reference_of
from edgegen.export.stepper import Stepper, run
from edgegen.graph import HIDDEN

SPECIAL = {
    "decoder_start_token_id": UNKNOWN, "bos_token_id": UNKNOWN, "eos_token_id": END,
    "pad_token_id": PAD, "max_length": 18,
}  # fmt: skip
RULES: dict[str, dict[str, Any]] = {
    "none": {},
    "all": {
        "forced_bos_token_id": 7, "forced_eos_token_id": END, "min_length": 9,
        "no_repeat_ngram_size": 2, "encoder_no_repeat_ngram_size": 2, "repetition_penalty": 1.4,
        "bad_words_ids": [[PAD], [END], [5, 6], [40]],
    },
}  # fmt: skip


def prompts(count: int = 20) -> list[list[int]]:
    random = np.random.default_rng(3)
    return [
        [*(int(i) for i in random.integers(3, VOCABULARY, length)), END]
        for length in random.integers(1, 24, count)
    ]


def generated(kind: str, sources: list[list[int]], rules: dict[str, Any]) -> list[list[int]]:
    """What transformers' ``generate`` says, all sources in one call and padded on the right."""
    model = tiny_kin_model(kind)
    make: Any = GenerationConfig
    model.generation_config = make(**SPECIAL, **rules)
    width = max(map(len, sources))
    rows = torch.tensor([[*source, *[PAD] * (width - len(source))] for source in sources])
    mask = torch.tensor([[i < len(source) for i in range(width)] for source in sources]).long()
    found = model.generate(rows, attention_mask=mask, num_beams=1, do_sample=False)  # type: ignore[operator]
    texts = [row[1:] for row in found.tolist()]
    return [row[: row.index(END) + 1] if END in row else row for row in texts]


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("kind", KINDS)
def test_twenty_greedy_texts_are_those_of_generate(kind: str, rules: str, tmp_path: Path) -> None:
    checkpoint = replace(tiny_kin(kind), generation={**SPECIAL, **RULES[rules]})
    defaults = msgspec.structs.asdict(with_rules(family_of(checkpoint)[1].generation(), checkpoint))
    folder, sources = write_bundle(tmp_path / "b", kind, defaults=defaults), prompts()
    with edgegen.load(folder) as pipeline:
        found = [list(result.tokens) for result in pipeline.generate(sources)]
    truth = generated(kind, sources, RULES[rules])
    assert found == truth
    assert len({tuple(text) for text in truth}) > 5


def test_a_request_s_own_rules_win_over_the_bundle_s(tmp_path: Path) -> None:
    rules = {"min_new_tokens": 5, "no_repeat_ngram_size": 1, "repetition_penalty": 2.0}
    said = [write_bundle(tmp_path / "plain", "bart", defaults={"max_new_tokens": 12})]
    said += [write_bundle(tmp_path / "b", "bart", defaults={**rules, "max_new_tokens": 12})]
    none = edgegen.GenerationOptions(
        min_new_tokens=0, no_repeat_ngram_size=0, repetition_penalty=1.0
    )
    tokens: list[tuple[int, ...]] = []
    for folder, options in zip(said, (edgegen.GenerationOptions(), none), strict=True):
        with edgegen.load(folder) as pipeline:
            tokens.append(pipeline.generate(prompts(1)[0], options).tokens)
    assert tokens[0] == tokens[1]
    with edgegen.load(said[1]) as pipeline:
        ruled = pipeline.generate(prompts(1)[0]).tokens
    assert ruled != tokens[0] and len(set(ruled)) == len(ruled) == 12


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"max_length": 142, "min_length": 56}, {"max_new_tokens": 141, "min_new_tokens": 55}),
        ({"max_new_tokens": 9, "min_new_tokens": 3, "min_length": 8}, {"min_new_tokens": 3}),
        ({"max_length": 10000}, {"max_new_tokens": 544, "max_positions": 544, "max_source": 544}),
        ({"forced_bos_token_id": 4}, {"forced": ((0, 4),), "forced_end": -1}),
        ({"forced_eos_token_id": [9, 4]}, {"forced_end": 4}),
        ({"bad_words_ids": [[9], [END], [3, 4]]}, {"suppress": (9,), "bad_words_ids": ((3, 4),)}),
        ({"decoder_start_token_id": None, "bos_token_id": 5}, {"start": (5,)}),
    ],
)
def test_a_checkpoint_s_own_rules_are_the_bundle_s(
    said: dict[str, Any], expected: dict[str, Any]
) -> None:
    checkpoint = tiny_kin("bart", decoder_start_token_id=None)
    checkpoint = replace(checkpoint, generation=said)
    found = with_rules(family_of(checkpoint)[1].generation(), checkpoint)
    assert {name: getattr(found, name) for name in expected} == expected


def test_rules_come_from_one_file_alone() -> None:
    checkpoint = tiny_kin("bart")
    assert family_of(checkpoint)[1].generation().forced_end == END
    apart = replace(checkpoint, generation={"max_length": 9})
    assert family_of(apart)[1].generation().forced_end == -1


# ------------------------------------------------------------------- other backends


@pytest.mark.parametrize("kind", KINDS)
def test_openvino_says_what_the_checkpoint_says_also_of_a_padded_source(
    kind: str, tmp_path: Path
) -> None:
    bundle = Bundle.open(write_bundle(tmp_path / "b", kind, formats=("openvino",)))
    variants = {name: part.variants[0] for name, part in bundle.manifest.components.items()}
    device, source, tokens = device_named("ov-cpu"), prompts(3)[2], [UNKNOWN, *prompts(5)[4][:7]]
    sessions = {
        name: device.compile(bundle.file(variant.file), variant, DeviceOptions())
        for name, variant in variants.items()
    }
    truth = reference_of(family_of(tiny_kin(kind))[1]).logits({"input_ids": source}, tokens)
    for padding in (0, 4):
        ids = np.array([[*source, *[PAD] * padding]], np.int64)
        mask = np.zeros(ids.shape, np.float32)
        mask[:, len(source) :] = HIDDEN
        memory = run(sessions["encode"], {"input_ids": ids, "source_mask": mask})
        stepper = Stepper(
            sessions["decode"], variants["decode"], {**memory, "source_mask": mask}, 16
        )
        rows = [stepper.decode(tokens[:3]), *(stepper.decode([token]) for token in tokens[3:])]
        assert error(np.concatenate(rows), truth) <= 1e-3


# ----------------------------------------------------------------------- tables


@cache
def _logits(kind: str) -> Any:
    return TorchReference(family_of(tiny_kin(kind))[1]).logits({"input_ids": [5, 6, END]}, [2, 9])


def bare(weights: dict[str, Weight]) -> dict[str, Weight]:
    """Without the head, as ``BartModel`` is saved, and with what old files held besides."""
    found = {
        name.removeprefix("model."): weight
        for name, weight in weights.items()
        if name.startswith("model.") and "embed_tokens" not in name
    }
    version = Weight.of(np.ones(1, np.float32))
    return {**found, "encoder.version": version, "final_logits_bias": weights["final_logits_bias"]}


def computed(weights: dict[str, Weight]) -> dict[str, Weight]:
    """Without tables that can be computed, and tied ones once, as files of today are."""
    return {
        name: weight
        for name, weight in weights.items()
        if "embed_" not in name and name != "lm_head.weight"
    }


@pytest.mark.parametrize(
    ("kind", "saved"),
    [("bart", bare), ("blenderbot-small", bare), ("marian", computed), ("pegasus", computed)],
)
def test_however_it_was_saved_it_says_the_same(
    kind: str, saved: Callable[[dict[str, Weight]], dict[str, Weight]]
) -> None:
    checkpoint = tiny_kin(kind)
    family = family_of(replace(checkpoint, weights=saved(dict(checkpoint.weights))))[1]
    found = TorchReference(family).logits({"input_ids": [5, 6, END]}, [2, 9])
    np.testing.assert_array_equal(found, _logits(kind))
    assert error(reference_of(family).logits({"input_ids": [5, 6, END]}, [2, 9]), found) <= 1e-5


def two_vocabularies() -> Checkpoint:
    said = {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 150}
    return checkpoint_of(tiny_kin_model("marian", **said))


def test_source_and_target_may_have_vocabularies_of_their_own() -> None:
    family = family_of(two_vocabularies())[1]
    assert family.shape.vocabulary == 150
    source, tokens = {"input_ids": [280, 270, END]}, [UNKNOWN, 149, 3]
    truth = reference_of(family).logits(source, tokens)
    assert error(TorchReference(family).logits(source, tokens), truth) <= 1e-5


def test_an_output_table_of_its_own_is_used() -> None:
    checkpoint = tiny_kin("bart")
    own = Weight.of(checkpoint.weights["lm_head.weight"].read()[::-1])
    family = family_of(replace(checkpoint, weights={**checkpoint.weights, "lm_head.weight": own}))[
        1
    ]
    source = {"input_ids": [5, 6, END]}
    truth = reference_of(family).logits(source, [2, 9])
    assert error(TorchReference(family).logits(source, [2, 9]), truth) <= 1e-5
    assert error(_logits("bart"), truth) > 0.1


def test_a_learned_table_that_is_not_there_is_named() -> None:
    checkpoint = tiny_kin("bart")
    name = "model.encoder.embed_positions.weight"
    weights = {key: weight for key, weight in checkpoint.weights.items() if key != name}
    with pytest.raises(CheckpointError, match=name):
        family_of(replace(checkpoint, weights=weights))[1].weights()


def test_an_activation_that_is_not_there_is_answered_with_the_nearest() -> None:
    checkpoint = tiny_kin("bart")
    config = {**checkpoint.config, "activation_function": "gelu_newer"}
    with pytest.raises(CheckpointError, match="did you mean 'gelu_new'"):
        family_of(replace(checkpoint, config=config))


def test_waves_are_those_of_transformers_bit_for_bit() -> None:
    from transformers.models.m2m_100.modeling_m2m_100 import M2M100SinusoidalPositionalEmbedding
    from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

    table: Any = MarianSinusoidalPositionalEmbedding(700, 48)
    marian = table.create_weight()
    np.testing.assert_array_equal(marian_waves(700, 48, 0), marian.numpy())
    fairseq = M2M100SinusoidalPositionalEmbedding.get_embedding(702, 48, 1)
    np.testing.assert_array_equal(fairseq_waves(700, 48, 1), fairseq.numpy()[2:])


@pytest.mark.parametrize("early", [True, "never"])
def test_a_checkpoint_s_own_rules_of_beams_hold_where_beams_are_asked_for(
    early: Any, tmp_path: Path
) -> None:
    rules: dict[str, Any] = {"length_penalty": -1.5, "early_stopping": early}
    checkpoint = replace(tiny_kin("bart"), generation={**SPECIAL, **rules, "num_beams": 5})
    defaults = with_rules(family_of(checkpoint)[1].generation(), checkpoint)
    assert (defaults.length_penalty, defaults.early_stopping) == (-1.5, early)
    said = [write_bundle(tmp_path / "plain", "bart", defaults={"max_new_tokens": 12})]
    said += [write_bundle(tmp_path / "b", "bart", defaults={**rules, "max_new_tokens": 12})]
    asked = edgegen.GenerationOptions(num_beams=4, num_return_sequences=4)
    neither = asked.with_changes(length_penalty=1.0, early_stopping=False)
    ways = [asked.with_changes(**rules), asked, asked, neither]
    found: list[list[Any]] = []
    for folder, options in zip((said[0], said[1], said[0], said[1]), ways, strict=True):
        with edgegen.load(folder) as pipeline:
            found.append([pipeline.generate(source, options).hypotheses for source in prompts(6)])
    assert found[0] == found[1] != found[2] == found[3]
    with edgegen.load(said[1]) as pipeline:  # the five beams it would have are not taken over
        assert pipeline.generate(prompts(1)[0]).hypotheses == ()


@pytest.mark.parametrize("name", ["t5-tied", "bart", "marian", "gemma3", "whisper"])
def test_a_checkpoint_s_rules_of_repetition_hold_in_every_family(name: str) -> None:
    """transformers applies them to greedy text too."""
    said = {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3}
    checkpoint = CASES[name].make()
    checkpoint = replace(checkpoint, generation={**checkpoint.generation, **said})
    defaults = with_rules(family_of(checkpoint)[1].generation(), checkpoint)
    assert (defaults.repetition_penalty, defaults.no_repeat_ngram_size) == (1.3, 3)
    rules = edgegen.GenerationOptions().rules(defaults)
    assert (rules.repetition_penalty, rules.no_repeat_ngram_size) == (1.3, 3)
