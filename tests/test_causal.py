"""Llama-likes: the whole text transformers writes, and configurations old and new."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_families import CASES, END, PAD, VOCABULARY, write_bundle

from edgegen.errors import CheckpointError
from edgegen.export.checkpoint import Checkpoint, Origin
from edgegen.export.families import family_of
from edgegen.export.families.causal import STYLES, Causal
from edgegen.export.reference import TransformersReference
from edgegen.runtime.opening import load
from edgegen.runtime.options import GenerationOptions

NEW = 24


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "mistral", "smollm3", "gemma"])
def test_twenty_prompts_give_the_tokens_transformers_generates(name: str, tmp_path: Path) -> None:
    checkpoint = CASES[name].make()
    model: Any = TransformersReference(family_of(checkpoint)[1]).model
    random, texts = np.random.default_rng(11), set[tuple[int, ...]]()
    options = GenerationOptions(max_new_tokens=NEW)
    with load(write_bundle(tmp_path / "b", name)) as pipeline:
        for length in range(1, 21):
            prompt = [int(i) for i in random.integers(3, VOCABULARY, length)]
            found = pipeline.generate(prompt, options).tokens
            wanted = model.generate(
                torch.tensor([prompt]), max_new_tokens=NEW, do_sample=False, pad_token_id=PAD,
                eos_token_id=END, attention_mask=torch.ones(1, length, dtype=torch.long),
            )  # fmt: skip
            assert list(found) == wanted[0, length:].tolist()
            texts.add(found)
    assert len(texts) > 15  # a model that says one thing to everything would agree too


def locals_of(model_type: str, **said: Any) -> str:
    """A letter a layer: w for a window, u for no rotation, . for neither."""
    checkpoint = CASES["llama-grouped"].make()
    config = {
        k: v for k, v in checkpoint.config.items() if k not in ("layer_types", "no_rope_layers")
    }
    config |= {"model_type": model_type, "num_hidden_layers": 4, "sliding_window": 7, **said}
    family = Causal(replace(checkpoint, config=config))
    found = [family.attention(i) for i in range(4)]
    assert {one.window for one in found} <= {0, 7}
    return "".join("w" * bool(one.window) + "u" * (one.rope is None) or "." for one in found)


@pytest.mark.parametrize(
    ("model_type", "said", "layers"),
    [
        ("llama", {}, "...."),
        ("mistral", {}, "wwww"),
        ("mistral", {"sliding_window": None}, "...."),
        ("qwen2", {"use_sliding_window": False, "max_window_layers": 1}, "...."),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 1}, ".www"),
        ("qwen3", {"layer_types": ["full_attention"] * 4, "use_sliding_window": True}, "...."),
        ("smollm3", {"no_rope_layer_interval": 2}, ".u.u"),
        ("smollm3", {"no_rope_layers": [1, 0, 0, 1]}, ".uu."),
        ("smollm3", {"no_rope_layers": [1, 0, 1, 1], "use_sliding_window": True}, ".wu.."),
        ("gemma3_text", {"sliding_window_pattern": 2}, "w.w."),
    ],
)
def test_configurations_old_and_new_say_which_layers_see_a_window(
    model_type: str, said: dict[str, Any], layers: str
) -> None:
    assert locals_of(model_type, **said) == layers


def test_every_style_has_a_tiny_checkpoint() -> None:
    made = {case.make().model_type for case in CASES.values() if case.family == "causal"}
    assert made == set(STYLES) - {"ministral"}  # computed as mistral


def test_gemma_means_the_approximate_gelu_by_either_name() -> None:
    """Its first releases say ``gelu`` (transformers, models/gemma/configuration_gemma.py)."""
    checkpoint = CASES["gemma"].make()
    for name in ("gelu", "gelu_pytorch_tanh"):
        config = {**checkpoint.config, "hidden_act": name}
        assert Causal(replace(checkpoint, config=config)).activation == "gelu_tanh"


@pytest.mark.parametrize(
    ("model_type", "said"),
    [("qwen3_moe", {"num_experts": 128}), ("mixtral", {"num_local_experts": 8})],
)
def test_a_mixture_of_experts_is_refused_in_one_line(model_type: str, said: dict[str, Any]) -> None:
    origin = Origin(source="tiny", kind="memory")
    config = {"model_type": model_type, **said}
    checkpoint = Checkpoint(config=config, weights={}, tokenizers={}, origin=origin)
    with pytest.raises(
        CheckpointError, match=rf"^{model_type}: a mixture of \d+ experts.*dense"
    ) as e:
        family_of(checkpoint)
    assert "\n" not in str(e.value)
