"""Checkpoints of every family under random weights, and whole bundles of them with a tokenizer.

Depths, head counts and lengths are unequal on purpose, so that no test passes by mixing them up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import tokenizers
import torch
from tiny import checkpoint_of, tiny_t5_model
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedModel,
    T5ForConditionalGeneration,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from edgegen.bundle_writer import BundleWriter
from edgegen.export.build import manifest_of
from edgegen.export.checkpoint import Checkpoint, Origin, TokenizerFiles, Weight
from edgegen.export.families import family_of
from edgegen.export.options import ExportOptions, Format, WeightFormat
from edgegen.export.sources.marian import _shapes  # pyright: ignore[reportPrivateUsage]
from edgegen.manifest import GenerationDefaults, Tokenizer

PAD, END, UNKNOWN = 0, 1, 2
WORDS = [a + b + c for a in "bdfgklmnprstvz" for b in "aeiou" for c in ("", "n", "r", "st")]
VOCABULARY = 3 + len(WORDS)  # <pad>, </s>, <unk>, words

Make = Callable[..., Checkpoint]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A tiny checkpoint of a family. ``make`` takes the configuration's own words."""

    family: str
    make: Make


def _t5(**overrides: Any) -> Make:
    def make(**said: Any) -> Checkpoint:
        model = tiny_t5_model(**{"vocab_size": VOCABULARY, **overrides, **said})
        return checkpoint_of(stirred(model, tied=overrides.get("tie_word_embeddings", True)))

    return make


def tiny_mt5(**overrides: Any) -> Checkpoint:
    """More encoder than decoder; heads times their width is not the model's width."""
    said: dict[str, Any] = {
        "vocab_size": VOCABULARY, "d_model": 64, "d_kv": 32, "d_ff": 96, "num_layers": 3,
        "num_decoder_layers": 1, "num_heads": 4, "decoder_start_token_id": PAD,
        **overrides,
    }  # fmt: skip
    config = MT5Config(**said)
    torch.manual_seed(1)
    return checkpoint_of(stirred(MT5ForConditionalGeneration(config), tied=False))


def stirred(
    model: T5ForConditionalGeneration | MT5ForConditionalGeneration, *, tied: bool = True
) -> PreTrainedModel:
    """A T5 as initialised repeats its input for ever: let layers weigh more than embeddings."""
    if (
        not tied
    ):  # transformers ties them whatever the configuration says, as long as none is loaded
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    table = model.state_dict()["shared.weight"]
    for tensor in {tensor.data_ptr(): tensor for tensor in model.state_dict().values()}.values():
        is_table = tensor.data_ptr() == table.data_ptr()
        tensor.mul_(0.2 if is_table else 1.8 if tensor.ndim > 1 else 1.0)
    return model


def tiny_llama(**overrides: Any) -> Checkpoint:
    """Three query heads share a key head."""
    said: dict[str, Any] = {
        "vocab_size": VOCABULARY, "hidden_size": 96, "intermediate_size": 160,
        "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16,
        "tie_word_embeddings": True, "bos_token_id": UNKNOWN, "eos_token_id": END,
        "pad_token_id": PAD, "initializer_range": 0.3, **overrides,
    }  # fmt: skip
    config = LlamaConfig(**said)
    torch.manual_seed(2)
    return checkpoint_of(with_norms(LlamaForCausalLM(config)))


LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip


def tiny_llama3(**overrides: Any) -> Checkpoint:
    """A head of its own for each query, an output table of its own, biases, stretched rotations."""
    return tiny_llama(**{
        "tie_word_embeddings": False, "num_key_value_heads": 6, "rope_parameters": LLAMA3,
        "attention_bias": True, "num_hidden_layers": 2, **overrides,
    })  # fmt: skip


def tiny_gemma3(**overrides: Any) -> Checkpoint:
    """Six local layers with a window of five, one global."""
    said: dict[str, Any] = {
        "vocab_size": VOCABULARY, "hidden_size": 96, "intermediate_size": 160,
        "num_hidden_layers": 7, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 32,
        "sliding_window": 5, "query_pre_attn_scalar": 24, "bos_token_id": UNKNOWN,
        "eos_token_id": END, "pad_token_id": PAD, "initializer_range": 0.2, **overrides,
    }  # fmt: skip
    config = Gemma3TextConfig(**said)
    torch.manual_seed(3)
    model = with_norms(Gemma3ForCausalLM(config))
    model.state_dict()["model.embed_tokens.weight"].mul_(0.1)
    return checkpoint_of(model)


def with_norms(model: PreTrainedModel) -> PreTrainedModel:
    """Norm weights that are not all one, so that one left out is seen."""
    for name, tensor in model.state_dict().items():
        if "norm" in name:
            tensor.normal_(0.6, 0.3)
    return model


def tiny_whisper(**overrides: Any) -> Checkpoint:
    """The window is Whisper's own, since the features' shape follows from it."""
    said: dict[str, Any] = {
        "vocab_size": VOCABULARY, "d_model": 64, "encoder_layers": 1, "decoder_layers": 3,
        "encoder_attention_heads": 2, "decoder_attention_heads": 4, "encoder_ffn_dim": 96,
        "decoder_ffn_dim": 80, "max_target_positions": 96, "decoder_start_token_id": 3,
        "pad_token_id": PAD, "bos_token_id": END, "eos_token_id": END, "init_std": 0.2,
        "suppress_tokens": [7, 8], "begin_suppress_tokens": [9], **overrides,
    }  # fmt: skip
    config = WhisperConfig(**said)
    torch.manual_seed(4)
    model = WhisperForConditionalGeneration(config)
    times = config.vocab_size - 20
    generation = {"no_timestamps_token_id": times - 1, "is_multilingual": False}
    return replace(checkpoint_of(model), generation=generation)


def tiny_marian(**overrides: Any) -> Checkpoint:
    """Marian's names and shapes; scales near one, everything else noise."""
    config: dict[str, Any] = {
        "model_type": "marian-ssru", "vocab_size": VOCABULARY, "d_model": 64, "encoder_layers": 3,
        "decoder_layers": 2, "num_heads": 4, "ffn_dim": 96, "decoder_ffn_dim": 80,
        "layer_norm_eps": 1e-6, **overrides,
    }  # fmt: skip
    random = np.random.default_rng(5)

    def weight(name: str, shape: tuple[int, ...]) -> Weight:
        # Louder embeddings or cross-attention would repeat one word for ever.
        loudness = 0.5 if "_context_" in name else 0.3 if name == "Wemb" else 4.0
        spread = 0.03 if len(shape) == 1 else loudness / shape[1] ** 0.5
        values = random.normal(size=shape, scale=spread) + name.endswith("_scale")
        return Weight.of(values.astype(np.float32))

    return Checkpoint(
        config=config,
        weights={name: weight(name, shape) for name, shape in _shapes(config)},
        tokenizers={},
        origin=Origin(source="tiny", kind="memory"),
        generation={"eos_token_id": END},
    )


CASES: Mapping[str, Case] = {
    "t5-tied": Case(family="t5", make=_t5()),
    "t5-untied-gated": Case(
        family="t5",
        make=_t5(tie_word_embeddings=False, feed_forward_proj="gated-gelu", num_layers=3),
    ),
    "mt5": Case(family="t5", make=tiny_mt5),
    "whisper": Case(family="whisper", make=tiny_whisper),
    "marian-ssru": Case(family="marian-ssru", make=tiny_marian),
    "llama-grouped": Case(family="causal", make=tiny_llama),
    "llama-untied-stretched": Case(
        family="causal",
        make=tiny_llama3,
    ),
    "gemma3": Case(family="causal", make=tiny_gemma3),
}


def tokenizer(end: bool) -> TokenizerFiles:
    """A word is a token; ``end`` puts the end mark behind a source, as T5's own file does."""
    words = {"<pad>": PAD, "</s>": END, "<unk>": UNKNOWN}
    words |= {f"▁{word}": 3 + i for i, word in enumerate(WORDS)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    made.decoder = tokenizers.decoders.Metaspace()
    made.add_special_tokens(["<pad>", "</s>", "<unk>"])
    if end:
        made.post_processor = tokenizers.processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", END)]
        )
    return TokenizerFiles(kind="tokenizers", data=json.dumps(json.loads(made.to_str())).encode())


def write_bundle(
    folder: Path,
    name: str,
    *,
    formats: tuple[Format, ...] = ("onnx",),
    weight_format: WeightFormat = "fp32",
    defaults: Mapping[str, Any] | None = None,
    taps: tuple[str, ...] = (),
    **overrides: Any,
) -> Path:
    """A bundle of ``CASES[name]`` in ``folder``. ``defaults`` replace fields of its generation
    record, ``overrides`` are the configuration's own words."""
    case = CASES[name]
    checkpoint = replace(
        case.make(**overrides), tokenizers={"source": tokenizer(end=case.family == "t5")}
    )
    kind, family = family_of(checkpoint)
    options = ExportOptions(
        model="tiny", output=folder, formats=formats, weight_format=weight_format, taps=taps
    )
    with BundleWriter(folder) as writer:
        written = [
            import_module(f"edgegen.export.formats.{form}").write(
                family, writer.folder / "graphs" / f"{form}-{weight_format}", options
            )
            for form in formats
        ]
        writer.add_file("tokenizers/source.json", checkpoint.tokenizers["source"].data)
        record = Tokenizer(kind="tokenizers", path="tokenizers/source.json")
        manifest = manifest_of(kind, family, options, written, {"source": record}, ())
        generation: GenerationDefaults = msgspec.structs.replace(
            manifest.generation, **(defaults or {})
        )
        writer.finish(msgspec.structs.replace(manifest, generation=generation))
    return folder
