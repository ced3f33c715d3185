"""Pairs of tiny bundles: a target and what may draft for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import tokenizers
from tiny_families import END, PAD, UNKNOWN, VOCABULARY, WORDS, tiny_marian, tokenizer, write_bundle

from edgegen.bundle import Bundle
from edgegen.bundle_writer import BundleWriter
from edgegen.export.build import manifest_of
from edgegen.export.checkpoint import Checkpoint, TokenizerFiles, Weight
from edgegen.export.families import family_of
from edgegen.export.formats import onnx
from edgegen.export.options import ExportOptions
from edgegen.manifest import DraftComponent, Tokenizer

__all__ = ["END", "PAD", "VOCABULARY", "WORDS", "bundle", "noisy", "tiny_marian", "write_bundle"]


def bundle(
    folder: Path,
    checkpoint: Checkpoint,
    words: TokenizerFiles | None = None,
    *,
    generation: Mapping[str, Any] | None = None,
    made_for: Path | None = None,
) -> Path:
    """A bundle in ``folder``. ``made_for`` leaves its encoder out: it reads that target's."""
    words = words or tokenizer(end="encoder" in str(checkpoint.config.get("model_type")))
    kind, family = family_of(replace(checkpoint, tokenizers={"source": words}))
    options = ExportOptions(model="tiny", output=folder)
    with BundleWriter(folder) as writer:
        written = onnx.write(family, writer.folder / "graphs" / "onnx-fp32", options)
        writer.add_file("tokenizers/source.json", words.data)
        record = Tokenizer(kind="tokenizers", path="tokenizers/source.json")
        manifest = manifest_of(kind, family, options, [written], {"source": record}, ())
        defaults = msgspec.structs.replace(manifest.generation, **(generation or {}))
        manifest = msgspec.structs.replace(manifest, generation=defaults)
        if made_for is not None:
            components = dict(manifest.components)
            encode = components.pop("encode")
            (writer.folder / encode.variants[0].file).unlink()
            draft = DraftComponent(
                method="model",
                target_sha256=decode_sha256(made_for),
                lossless="sample-identical",
                component="decode",
            )
            manifest = msgspec.structs.replace(manifest, components=components, drafts=(draft,))
        writer.finish(manifest)
    return folder


def decode_sha256(folder: Path) -> str:
    opened = Bundle.open(folder)
    variant = opened.component("decode").variants[0]
    return hashlib.sha256(opened.file(variant.file).read_bytes()).hexdigest()


def noisy(checkpoint: Checkpoint, loudness: float, seed: int = 0) -> Checkpoint:
    """The same model a little wrong: every matrix plus noise of a share of its own spread."""
    random = np.random.default_rng(seed)

    def spoiled(weight: Weight) -> Weight:
        values = np.asarray(weight.read(), np.float32)
        if values.ndim < 2:
            return weight
        noise = random.normal(size=values.shape, scale=loudness * float(values.std()))
        return Weight.of((values + noise).astype(np.float32))

    return replace(
        checkpoint, weights={name: spoiled(weight) for name, weight in checkpoint.weights.items()}
    )


def shuffled_words(seed: int = 1) -> TokenizerFiles:
    """The same words under other ids."""
    order = np.random.default_rng(seed).permutation(len(WORDS))
    words = {"<pad>": PAD, "</s>": END, "<unk>": UNKNOWN}
    words |= {f"▁{WORDS[at]}": 3 + place for place, at in enumerate(order)}
    return _written(tokenizers.models.WordLevel(words, unk_token="<unk>"))


def letters() -> TokenizerFiles:
    """Syllables of two letters and single letters: other tokens for the same words."""
    words = {"<pad>": PAD, "</s>": END, "<unk>": UNKNOWN, "▁": 3}
    for letter in sorted({letter for word in WORDS for letter in word}):
        words[letter] = len(words)
    merges: list[tuple[str, str]] = []
    for letter in sorted({word[0] for word in WORDS}):
        words[f"▁{letter}"] = len(words)
        merges.append(("▁", letter))
    model = tokenizers.models.BPE(words, merges, unk_token="<unk>")
    return _written(model)


def _written(model: Any) -> TokenizerFiles:
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    made.decoder = tokenizers.decoders.Metaspace()
    made.add_special_tokens(["<pad>", "</s>", "<unk>"])
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", END)]
    )
    return TokenizerFiles(kind="tokenizers", data=json.dumps(json.loads(made.to_str())).encode())
