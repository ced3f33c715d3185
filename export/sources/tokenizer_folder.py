"""The tokenizer of a transformers folder, as the one file a bundle carries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgegen.errors import CheckpointError

from ..checkpoint import TokenizerFiles
from .base import one_line
from .numbered_pieces import m2m100_tokenizer, marian_pair

# What transformers' slow tokenizers save: any of these can be turned into a fast one.
SLOW_FILES = (
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
)
BYTES = "ByT5Tokenizer"
BYTES_OFFSET = 3  # ByT5: pad, eos and unk come before the byte values (arXiv:2105.13626)


def tokenizers_of(folder: Path, tokenizer_config: Mapping[str, Any]) -> dict[str, TokenizerFiles]:
    """``source``, and ``target`` where the model writes in other tokens than it reads.

    Raises ``CheckpointError``."""
    for numbered in (marian_pair, m2m100_tokenizer):
        if found := numbered(folder, tokenizer_config):
            return found
    return {"source": tokenizer_of(folder, tokenizer_config)}


def tokenizer_of(folder: Path, tokenizer_config: Mapping[str, Any]) -> TokenizerFiles:
    """tokenizer.json as it is, a slow tokenizer converted, or ByT5's bytes.

    Raises ``CheckpointError`` when the folder has none or it cannot be read."""
    if tokenizer_config.get("tokenizer_class") == BYTES:
        return TokenizerFiles(kind="bytes", offset=BYTES_OFFSET)
    path = folder / "tokenizer.json"
    if path.is_file():
        return tokenizer_file(path)
    if not any((folder / name).is_file() for name in SLOW_FILES):
        raise CheckpointError(
            f"{folder}: no tokenizer, expected tokenizer.json or one of {', '.join(SLOW_FILES)};"
            " copy it beside the weights"
        )
    return TokenizerFiles(kind="tokenizers", data=_converted(folder))


def tokenizer_file(path: Path) -> TokenizerFiles:
    """A tokenizer.json, checked by loading it. Raises ``CheckpointError``."""
    from tokenizers import Tokenizer

    try:
        data = path.read_bytes()
        Tokenizer.from_buffer(data)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(f"{path}: cannot be read ({reason}); the model needs it") from None
    except Exception as error:  # tokenizers raises plain Exception on anything malformed
        raise CheckpointError(
            f"{path}: not a tokenizer ({one_line(error)}); fetch the file again"
        ) from None
    return TokenizerFiles(kind="tokenizers", data=data)


def _converted(folder: Path) -> bytes:
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
        text: str = tokenizer.backend_tokenizer.to_str()
    except Exception as error:  # a converter may fail anywhere inside transformers
        raise CheckpointError(
            f"{folder}: its tokenizer has no fast form ({one_line(error)});"
            " save a tokenizer.json beside the weights"
        ) from None
    return text.encode("utf-8")
