"""Files that hold more or less than a class reads, and configurations of other weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from checkpoint_folders import bundle_of, exported, write_folder
from tiny_families import CASES
from tokenizers import Tokenizer

import edgegen
from edgegen.errors import CheckpointError

LLAMA = CASES["llama-grouped"].make()
# What the first T5 published holds beside its weights.
UNUSED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
FREQUENCIES = "model.layers.0.self_attn.rotary_emb.inv_freq"


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("t5-tied", {UNUSED: torch.zeros(32, 4)}),
        ("llama-grouped", {FREQUENCIES: torch.ones(8)}),
        ("vit-trocr", {"decoder.model.decoder.embed_positions._float_tensor": torch.zeros(1)}),
    ],
)
def test_weights_that_no_class_reads_are_left_alone(
    tmp_path: Path, name: str, more: dict[str, torch.Tensor]
) -> None:
    folder = write_folder(tmp_path / "model", CASES[name].make(), weights=more)
    prompts = {} if name != "vit-trocr" else {"prompts": ()}
    assert exported(folder, **prompts).parity[0].agreement == 1.0


def bare(name: str) -> str:
    return name.removeprefix("model.")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"weights": {"model.layers.0.lora": torch.ones(8)}}, "has none for model.layers.0.lora"),
        ({"renamed": bare}, "there is embed_tokens.weight and no model.embed_tokens.weight"),
        ({"config": {"num_hidden_layers": 5}}, "no 'model.layers.3.input_layernorm.weight'"),
        ({"config": {"num_hidden_layers": 2}}, r"has none for model.layers.2\S+, .* and 6 more"),
        ({"config": {"vocab_size": 200}}, r"tokens.weight is \[\d+, \d+\] and that of \w+ \[200, "),
        ({"config": {"hidden_size": None}}, "TypeError"),
        ({"config": {"rope_parameters": {"rope_type": "linear"}}}, "no 'factor'"),
        ({"generation": {"eos_token_id": "</s>"}}, "ValueError"),
    ],
)
def test_a_configuration_of_other_weights_is_one_line(
    tmp_path: Path, changed: dict[str, Any], told: str
) -> None:
    folder = write_folder(tmp_path / "model", LLAMA, **changed)
    with pytest.raises(CheckpointError, match=told):
        exported(folder)
    assert not bundle_of(folder).exists()


OLD_ROPE = {"rope_theta": 1e6, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
LONG = (" ".join(["ban dun fist gor kan bu lon mist de tan vur zon kist man pur"] * 3), "kan bu")


@pytest.mark.parametrize(
    ("name", "overrides", "config", "without"),
    [
        ("qwen3", {"use_sliding_window": True}, {"rope_theta": 1e6}, ("rope_parameters",)),
        ("gemma3", {}, {**OLD_ROPE, "rope_local_base_freq": 1e4}, ("rope_parameters",)),
        ("gemma3", {}, {"final_logit_softcapping": 2.0}, ()),
        ("llama-untied-stretched", {}, {"tie_word_embeddings": True}, ()),
        ("whisper", {"tie_word_embeddings": False}, {}, ()),
        ("whisper", {}, {"activation_function": "relu"}, ()),
        ("moonshine", {}, {}, ("decoder_hidden_act",)),
        ("smollm3", {}, {}, ("no_rope_layer_interval", "no_rope_layers")),
    ],
)
def test_what_a_configuration_says_or_leaves_out_is_read_as_transformers_does(
    tmp_path: Path,
    name: str,
    overrides: dict[str, Any],
    config: dict[str, Any],
    without: tuple[str, ...],
) -> None:
    folder = write_folder(
        tmp_path / "model", CASES[name].make(**overrides), config=config, without=without
    )
    spoken = name in ("whisper", "moonshine")
    found = exported(folder, **({"prompts": ()} if spoken else {"prompts": LONG}))
    assert found.parity[0].max_error < 1e-4


@pytest.mark.parametrize("name", ["t5gemma", "t5gemma2"])
def test_older_files_stretch_positions_in_one_key(tmp_path: Path, name: str) -> None:
    checkpoint = CASES[name].make()
    config: dict[str, Any] = {}
    for side in ("encoder", "decoder"):
        config[side] = {**checkpoint.config[side]}
        inner = config[side].get("text_config")
        if inner is not None:
            config[side]["text_config"] = inner = {**inner}
        said = config[side] if inner is None else inner
        said.pop("rope_parameters", None)
        said |= {"rope_theta": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}
    found = exported(write_folder(tmp_path / "model", checkpoint, config=config), prompts=LONG)
    assert found.parity[0].max_error < 1e-4


CLASSES: dict[str, tuple[Any, dict[str, int]]] = {
    "t5-tied": (transformers.T5ForConditionalGeneration, {"decoder_start_token_id": 0}),
    "llama-grouped": (transformers.LlamaForCausalLM, {"bos_token_id": 2}),
    "gpt2": (transformers.GPT2LMHeadModel, {"bos_token_id": 2}),
}


@pytest.mark.parametrize(
    "rules",
    [
        {"suppress_tokens": list(range(3, 150))},
        {"begin_suppress_tokens": list(range(3, 200))},
        {"bad_words_ids": [[i] for i in range(3, 200)]},
        {"min_new_tokens": 8, "eos_token_id": list(range(1, 283, 2))},
        {"forced_eos_token_id": 1, "max_new_tokens": 6},
        {"max_length": 12, "max_new_tokens": None},
    ],
)
@pytest.mark.parametrize("name", list(CLASSES))
def test_rules_of_a_checkpoint_hold_as_in_transformers(
    tmp_path: Path, name: str, rules: dict[str, Any]
) -> None:
    kind, ids = CLASSES[name]
    if "max_length" in rules and name != "t5-tied":
        pytest.skip("counts the prompt")
    said = {"eos_token_id": 1, "pad_token_id": 0, "max_new_tokens": 8, **ids, **rules}
    said = {key: value for key, value in said.items() if value is not None}
    # transformers' generate wants two stacks of one depth.
    depths = {"num_decoder_layers": 2} if name == "t5-tied" else {}
    folder = write_folder(tmp_path / "model", CASES[name].make(**depths), generation=said)
    exported(folder)
    text = "ban dun fist gor kan"
    prompt = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
    model = kind.from_pretrained(folder).eval()
    theirs = np.asarray(model.generate(torch.tensor([prompt]))[0]).tolist()
    with edgegen.load(bundle_of(folder)) as pipeline:
        ours = list(pipeline.generate(text).tokens)
    assert ours == theirs[1 if name == "t5-tied" else len(prompt) :]


def test_a_first_token_with_number_0_is_one(tmp_path: Path) -> None:
    rules = {"bos_token_id": 0, "pad_token_id": 0, "eos_token_id": 5}
    found = exported(write_folder(tmp_path / "gpt2", CASES["gpt2"].make(), generation=rules))
    assert (found.generation.start, found.generation.pad) == ((0,), 0)
