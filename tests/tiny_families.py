"""Checkpoints of every family under random weights, and whole bundles of them with a tokenizer.

Depths, head counts and lengths are unequal on purpose, so that no test passes by mixing them up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import tiny_bart
import tiny_causal
import tiny_code
import tiny_modernbert
import tiny_moonshine
import tiny_t5gemma
import tiny_vision
import torch
from tiny import checkpoint_of, tiny_t5_model
from tiny_words import END, PAD, UNKNOWN, VOCABULARY, WORDS, Case, Make, tokenizer
from transformers import (
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedModel,
    T5ForConditionalGeneration,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from edgegen.bundle_writer import BundleWriter
from edgegen.export.build import check_task, manifest_of
from edgegen.export.checkpoint import Checkpoint, Lexicon, Origin, TokenizerFiles, Weight
from edgegen.export.families import family_of
from edgegen.export.options import CacheKind, ExportOptions, Format, StaticSizes, WeightFormat
from edgegen.export.sources.marian import _shapes  # pyright: ignore[reportPrivateUsage]
from edgegen.manifest import GenerationDefaults, HeadFormat, MemoryFormat, Tokenizer

__all__ = [
    "CASES",
    "END",
    "PAD",
    "UNKNOWN",
    "VOCABULARY",
    "WORDS",
    "Case",
    "tokenizer",
    "write_bundle",
]


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
    random = np.random.default_rng(6)

    def weight(name: str, shape: tuple[int, ...]) -> Weight:
        # Louder embeddings or cross-attention would repeat one word for ever.
        loudness = 2.0 if "_context_" in name else 0.3 if name == "Wemb" else 4.0
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
    **tiny_bart.CASES,
    **tiny_causal.CASES,
    **tiny_code.CASES,
    **tiny_t5gemma.CASES,
    **tiny_moonshine.CASES,
    **tiny_vision.CASES,
    **tiny_modernbert.CASES,
}


def write_bundle(
    folder: Path,
    name: str,
    *,
    formats: tuple[Format, ...] = ("onnx",),
    weight_format: WeightFormat = "fp32",
    defaults: Mapping[str, Any] | None = None,
    taps: tuple[str, ...] = (),
    caches: tuple[CacheKind, ...] = (),
    group_size: int = 32,
    task: str | None = None,
    static: StaticSizes | None = None,
    memory: MemoryFormat = "fp32",
    kv_cache: MemoryFormat = "fp32",
    integer: tuple[str, ...] = (),
    head: HeadFormat = "full",
    words: TokenizerFiles | None = None,
    lexicon: Lexicon | None = None,
    **overrides: Any,
) -> Path:
    """A bundle of ``CASES[name]`` in ``folder``. ``defaults`` replace fields of its generation
    record, ``words`` is a tokenizer of its own, ``lexicon`` what shortlists are made of,
    ``overrides`` are the configuration's own words."""
    case = CASES[name]
    spoken = words or tokenizer(end=case.family in ("t5", "bart"))
    checkpoint = replace(case.make(**overrides), tokenizers={"source": spoken})
    kind, family = family_of(checkpoint)
    family.lexicon = lexicon
    options = ExportOptions(
        model="tiny",
        output=folder,
        task=task,
        formats=formats,
        weight_format=weight_format,
        group_size=group_size,
        taps=taps,
        caches=caches,
        static=static,
        memory=memory,
        kv_cache=kv_cache,
        integer=integer,
        head=head,
    )
    check_task(options, family)
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
