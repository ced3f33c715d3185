"""CodeGen and CodeT5+ beyond what every family shows: packings, special tokens, prompts, uses."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stepping import TorchSession, error
from tiny_code import (
    MARKED,
    SPECIAL,
    Towers,
    code_tokenizer,
    tiny_codegen,
    tiny_codegen_model,
    tiny_codet5p,
)
from tiny_families import CASES, END, VOCABULARY, write_bundle
from tiny_sources import ids

import edgegen
from edgegen.bundle import Bundle
from edgegen.devices import DeviceOptions, device_named
from edgegen.errors import CheckpointError
from edgegen.export.build import export
from edgegen.export.checkpoint import Checkpoint, Weight
from edgegen.export.families import family_of
from edgegen.export.families.codegen import SLICES, SLICES_OF_CODEGEN2, CodeGen
from edgegen.export.families.t5 import T5
from edgegen.export.options import CacheKind, ExportOptions
from edgegen.export.reference import TorchReference, reference_of
from edgegen.export.stepper import run
from edgegen.runtime.options import GenerationOptions
from edgegen.runtime.pipeline import Pipeline

NEW = 24
PLAIN = GenerationOptions(draft="none", max_new_tokens=NEW)
PROMPTS = [ids(3 + 2 * seed % 17, seed) for seed in range(20)]


def full_greedy(
    logits: Callable[[list[int]], Any], prompt: Sequence[int], count: int = NEW
) -> list[int]:
    """Arg-max tokens by forwards over everything."""
    found: list[int] = []
    while len(found) < count and found[-1:] != [END]:
        found.append(int(logits([*prompt, *found])[-1].argmax()))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("code")


# ------------------------------------------------------------------------------- CodeGen


def test_codegen_writes_what_transformers_generates(folder: Path) -> None:
    model: Any = tiny_codegen_model()
    with edgegen.load(write_bundle(folder / "codegen", "codegen")) as pipeline:
        for prompt in PROMPTS:
            found = pipeline.generate(prompt, PLAIN).tokens
            made = model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                max_new_tokens=NEW,
                do_sample=False,
            )
            assert list(found) == made[0, len(prompt) :].tolist()


def in_eight_slices(checkpoint: Checkpoint) -> Checkpoint:
    """The same model as CodeGen2's 1B is published: more slices, its own code, the masks stored."""
    weights = dict(checkpoint.weights)
    for name, weight in checkpoint.weights.items():
        if not name.endswith("qkv_proj.weight"):
            continue
        width = weight.shape[1]
        parts = weight.read().reshape(SLICES, 3, -1, width).swapaxes(0, 1).reshape(3, -1, width)
        sliced = parts.reshape(3, SLICES_OF_CODEGEN2, -1, width).swapaxes(0, 1)
        weights[name] = Weight.of(np.ascontiguousarray(sliced.reshape(weight.shape)))
        weights[name.replace("qkv_proj.weight", "causal_mask")] = Weight.of(
            np.ones((1, 1, 640, 640))
        )
    config = {
        **checkpoint.config, "head_dim": 16,
        "auto_map": {"AutoModelForCausalLM": "modeling_codegen.CodeGenForCausalLM"},
    }  # fmt: skip
    return replace(checkpoint, config=config, weights=weights)


def test_codegen2_s_packing_and_stored_masks_change_nothing() -> None:
    published, plain = CodeGen(in_eight_slices(tiny_codegen())), CodeGen(tiny_codegen())
    assert not any("mask" in name for name in published.weights())
    tokens = ids(17)
    for reference in (TorchReference, reference_of):
        np.testing.assert_array_equal(
            reference(published).logits({}, tokens), reference(plain).logits({}, tokens)
        )


def test_the_tokenizer_s_own_end_of_text_wins_over_a_published_configuration() -> None:
    checkpoint = tiny_codegen(vocab_size=MARKED, eos_token_id=5)
    assert CodeGen(checkpoint).generation().end == (5,)
    named = CodeGen(replace(checkpoint, tokenizers={"source": code_tokenizer()})).generation()
    assert named.end == named.start == (VOCABULARY + SPECIAL.index("<|endoftext|>"),)


def test_heads_that_do_not_fill_the_slices_are_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match="6 heads"):
        checkpoint = tiny_codegen()
        CodeGen(replace(checkpoint, config={**checkpoint.config, "n_head": 6}))


# ---------------------------------------------------------------------- prefix-LM prompts


def prefix_logits(model: Any, tokens: Sequence[int], prefix: int) -> np.ndarray[Any, Any]:
    """transformers' model with the first rows visible to each other."""
    hidden = torch.full((len(tokens), len(tokens)), torch.finfo(torch.float32).min).triu(1)
    hidden[:prefix, :prefix] = 0
    with torch.no_grad():
        found = model(torch.tensor([list(tokens)]), attention_mask=hidden[None, None])
    return np.asarray(found.logits[0])


@pytest.fixture(scope="module")
def prefix_lm(folder: Path) -> Pipeline:
    return edgegen.load(write_bundle(folder / "prefix", "codegen-prefix-lm"))


def test_a_prefix_lm_s_text_is_that_of_a_forward_over_everything(prefix_lm: Pipeline) -> None:
    model, causal = tiny_codegen_model(), 0
    for prompt in PROMPTS:
        found = list(prefix_lm.generate(prompt, PLAIN).tokens)
        assert found == full_greedy(partial(prefix_logits, model, prefix=len(prompt)), prompt)
        causal += found == full_greedy(lambda tokens: prefix_logits(model, tokens, 1), prompt)
    assert causal < len(PROMPTS) / 2


@pytest.mark.parametrize("draft", ["lookup", "suffix+recycling"])
def test_drafts_leave_a_prefix_lm_s_text_alone(prefix_lm: Pipeline, draft: str) -> None:
    drafted = PLAIN.with_changes(draft=draft, num_assistant_tokens=4)
    for prompt in PROMPTS[:8]:
        twice = [*prompt, *prompt]
        found = prefix_lm.generate(twice, drafted)
        assert found.tokens == prefix_lm.generate(twice, PLAIN).tokens


def test_a_long_prefix_comes_in_one_call(prefix_lm: Pipeline) -> None:
    prompt = ids(560, seed=3)
    options = PLAIN.with_changes(max_new_tokens=4)
    result = prefix_lm.generate(prompt, options)
    assert result.timings.steps[0].rows == 560
    model = tiny_codegen_model()
    truth = full_greedy(lambda tokens: prefix_logits(model, tokens, 560), prompt, 4)
    assert list(result.tokens) == truth


def test_a_late_prompt_token_reaches_early_rows_and_a_later_token_none(
    prefix_lm: Pipeline,
) -> None:
    def first_row(tokens: Sequence[int]) -> np.ndarray[Any, Any]:
        decoder = prefix_lm.engine.decoder()
        decoder.tie(6)
        return np.array(decoder.forward(tokens).logits[0])

    text = ids(9)
    late, behind = [*text], [*text]
    late[5], behind[6] = text[5] + 1, text[6] + 1
    assert error(first_row(late), first_row(text)) > 1e-2
    np.testing.assert_array_equal(first_row(behind), first_row(text))


# ------------------------------------------------------------------------------- CodeT5+


@pytest.mark.parametrize("same_width", [False, True])
@pytest.mark.parametrize("length", [1, 11])
def test_codet5p_is_the_published_computation(same_width: bool, length: int) -> None:
    said: dict[str, Any] = {"n_embd": 128, "n_head": 8} if same_width else {}
    checkpoint, source, tokens = tiny_codet5p(**said), ids(length, seed=4), ids(17)
    assert ("enc_to_dec_proj.weight" in checkpoint.weights) is not same_width
    truth = Towers(checkpoint).logits(source, tokens).numpy()
    found = TorchReference(family_of(checkpoint)[1]).logits({"input_ids": source}, tokens)
    assert error(found, truth) <= 1e-5


def test_codet5p_reads_a_source_twice_and_writes_the_published_tokens(folder: Path) -> None:
    towers = Towers(tiny_codet5p())
    with edgegen.load(write_bundle(folder / "codet5p", "codet5p")) as pipeline:
        assert pipeline.bundle.manifest.generation.prompt_from_source
        for prompt in PROMPTS:
            found = pipeline.generate(prompt, PLAIN).tokens
            truth = full_greedy(partial(towers.logits, prompt), prompt)
            assert list(found) == truth


def test_the_decoder_alone_is_the_codegen_it_was_made_of(folder: Path) -> None:
    checkpoint = tiny_codet5p()
    frozen = {
        name.removeprefix("decoder."): weight
        for name, weight in checkpoint.weights.items()
        if name.startswith("decoder.") and "crossattention" not in name
    }
    config = {**checkpoint.config["decoder"], "model_type": "codegen"}
    codegen = CodeGen(replace(checkpoint, config=config, weights=frozen))
    alone = family_of(checkpoint)[1]
    alone.task = "text-generation"
    tokens = ids(17)
    np.testing.assert_array_equal(
        TorchReference(alone).logits({}, tokens), TorchReference(codegen).logits({}, tokens)
    )
    path = write_bundle(folder / "alone", "codet5p", task="text-generation")
    towers = Towers(checkpoint)
    with edgegen.load(path) as pipeline:
        assert set(pipeline.bundle.manifest.components) == {"decode"}
        for prompt in PROMPTS[:5]:
            found = pipeline.generate(prompt, PLAIN).tokens
            assert list(found) == full_greedy(lambda tokens: towers.logits(None, tokens), prompt)


def test_the_encoder_alone_embeds_and_carries_no_decoder(folder: Path) -> None:
    path = write_bundle(folder / "embeds", "codet5p", task="feature-extraction")
    bundle = Bundle.open(path)
    variant = bundle.component("encode").variants[0]
    session = device_named("ort-cpu").compile(bundle.file(variant.file), variant, DeviceOptions())
    source = ids(11, seed=4)
    feeds: dict[str, Any] = {
        "input_ids": np.array([source]), "source_mask": np.zeros((1, 11), np.float32),
    }  # fmt: skip
    found = run(session, feeds)
    rows = Towers(tiny_codet5p()).encoded(source).numpy()
    assert error(found["hidden"][0], rows) <= 1e-5
    assert error(found["embedding"][0], rows.mean(0)) <= 1e-5
    weights = tiny_codet5p().weights
    encoder = sum(w.read().nbytes for name, w in weights.items() if name.startswith("encoder."))
    assert bundle.size == pytest.approx(encoder, rel=0.3)
    assert bundle.manifest.encoding is not None and bundle.manifest.encoding.width == 64


def test_every_use_is_padded_like_the_others() -> None:
    family = family_of(tiny_codet5p())[1]
    family.task = "feature-extraction"
    source, session = ids(7, seed=2), TorchSession(family, "encode")
    plain = {"input_ids": np.array([source]), "source_mask": np.zeros((1, 7), np.float32)}
    padded = {
        "input_ids": np.array([[*source, 0, 0, 0]]),
        "source_mask": np.array([[*[0.0] * 7, *[-3e4] * 3]], np.float32),
    }
    one, other = session.request().run(plain), session.request().run(padded)
    assert error(other["embedding"], one["embedding"]) <= 1e-5
    assert error(other["hidden"][:, :7], one["hidden"]) <= 1e-5


def test_codet5p_without_cross_attention_is_refused_by_name() -> None:
    checkpoint = tiny_codet5p()
    left = {n: w for n, w in checkpoint.weights.items() if "crossattention" not in n}
    with pytest.raises(CheckpointError, match="crossattention"):
        family_of(replace(checkpoint, weights=left))


def test_the_smaller_codet5p_are_t5_with_roberta_s_ends() -> None:
    """Their configuration: begin 1, end 2, pad 0, and the decoder starts with pad."""
    config: dict[str, Any] = {
        "model_type": "t5", "vocab_size": 40, "d_model": 8, "d_kv": 4, "num_heads": 2,
        "num_layers": 1, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
        "decoder_start_token_id": 0,
    }  # fmt: skip
    weights = {"shared.weight": Weight.of(np.zeros((40, 8)))}
    said = T5(replace(tiny_codegen(), config=config, weights=weights)).generation()
    assert (said.start, said.end, said.pad) == ((0,), (2,), 0)


# ---------------------------------------------------------------------------- published files


def saved(checkpoint: Checkpoint, folder: Path) -> Path:
    """A transformers folder as CodeGen's kin are published: masks among the weights."""
    folder.mkdir()
    state = {name: torch.from_numpy(w.read()) for name, w in checkpoint.weights.items()}
    mask = torch.tril(torch.ones(64, 64, dtype=torch.uint8))[None, None]
    for name in [name for name in state if name.endswith("attn.qkv_proj.weight")]:
        state[name.replace("qkv_proj.weight", "causal_mask")] = mask
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(dict(checkpoint.config)))
    (folder / "tokenizer.json").write_bytes(code_tokenizer().data)
    return folder


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("codegen-prefix-lm", None),
        ("codet5p", None),
        ("codet5p", "text-generation"),
        ("codet5p", "feature-extraction"),
    ],
)
def test_published_files_pass_the_gate_in_both_formats(
    tmp_path: Path, name: str, task: str | None
) -> None:
    made = CASES[name].make(vocab_size=MARKED)
    options = ExportOptions(
        model=str(saved(made, tmp_path / "published")),
        output=tmp_path / "bundle",
        formats=("onnx", "openvino"),
        parity_prompts=(" ba ben dor", " da"),
        task=task,
    )
    manifest = export(options)
    assert manifest.task == (task or family_of(made)[1].task)
    unread: dict[str | None, tuple[str, ...]] = {
        "feature-extraction": ("decoder.", "enc_to_dec_proj."),
        "text-generation": ("encoder.", ".crossattention.", "enc_to_dec_proj."),
    }
    assert manifest.parameters == sum(
        weight.read().size
        for name, weight in made.weights.items()
        if not any(part in name for part in unread.get(task, ()))
    )
    # Of vectors it is a cosine, which rounding moves; of texts a share of tokens.
    whole = pytest.approx(1, abs=1e-6) if task == "feature-extraction" else 1
    for parity in manifest.parity:
        assert parity.agreement == whole and parity.max_error <= 1e-5


@pytest.mark.parametrize(
    ("name", "cache"), [("codegen-prefix-lm", "append"), ("codet5p", "stateful")]
)
def test_openvino_writes_the_same_text(tmp_path: Path, name: str, cache: CacheKind) -> None:
    path = write_bundle(tmp_path / "ov", name, formats=("openvino",), caches=(cache,))
    onnx = write_bundle(tmp_path / "onnx", name)
    with edgegen.load(path, device="ov-cpu") as there, edgegen.load(onnx) as here:
        for prompt in (ids(6, 1), ids(6, 2)):
            assert there.generate(prompt, PLAIN).tokens == here.generate(prompt, PLAIN).tokens
