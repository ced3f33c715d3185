"""Tokenizers of a SentencePiece vocabulary and a vocab.json that numbers its pieces otherwise.

Marian's OPUS models have two vocabularies of pieces and one of numbers, M2M100 numbers its
languages behind its pieces (transformers' ``tokenization_marian.py``, ``tokenization_m2m_100.py``).
A language token is one wherever it stands in a text; transformers' Marian reads it at the start.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgegen.errors import CheckpointError

from ..checkpoint import TokenizerFiles
from .base import read_json
from .sentencepiece_file import tokenizer_of_spm

UNKNOWN = "<unk>"  # what the runtime takes for pieces without a number
LANGUAGE = re.compile(r">>[^<>\s]+<<|__\w+__")


def marian_pair(folder: Path, said: Mapping[str, Any]) -> dict[str, TokenizerFiles] | None:
    """None where there is no source.spm."""
    sides = {"source": "vocab.json", "target": "vocab.json"}
    if not (folder / "source.spm").is_file():
        return None
    if said.get("separate_vocabs"):
        sides["target"] = "target_vocab.json"
    found = {
        side: _numbered(folder / f"{side}.spm", vocabulary_of(folder / name), said)
        for side, name in sides.items()
    }
    return found if found["source"] != found["target"] else {"source": found["source"]}


def m2m100_tokenizer(folder: Path, said: Mapping[str, Any]) -> dict[str, TokenizerFiles] | None:
    """None where the tokenizer is another class's or already has a tokenizer.json."""
    pieces, numbers = folder / "sentencepiece.bpe.model", folder / "vocab.json"
    if not (pieces.is_file() and numbers.is_file()) or (folder / "tokenizer.json").is_file():
        return None
    from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES

    vocabulary = vocabulary_of(numbers)
    kind = said.get("language_codes") or "m2m100"
    if kind not in list(FAIRSEQ_LANGUAGE_CODES):
        raise CheckpointError(
            f"{folder}: language_codes of tokenizer_config.json is {kind!r}, expected"
            f" {' or '.join(map(repr, FAIRSEQ_LANGUAGE_CODES))}; copy the model's own file"
        )
    codes = FAIRSEQ_LANGUAGE_CODES[kind]
    vocabulary |= {f"__{code}__": len(vocabulary) + i for i, code in enumerate(codes)}
    return {"source": _numbered(pieces, vocabulary, {"bos_token": "<s>", **said})}


def vocabulary_of(path: Path) -> dict[str, int]:
    """Pieces and their numbers. Raises ``CheckpointError``."""
    found = read_json(path)
    bad = next((piece for piece, i in found.items() if type(i) is not int or i < 0), None)
    if bad is not None:
        raise CheckpointError(
            f"{path}: {bad!r} has the number {found[bad]!r}, expected a whole number;"
            " fetch the file again"
        )
    return found


def _numbered(path: Path, vocabulary: Mapping[str, int], said: Mapping[str, Any]) -> TokenizerFiles:
    end = _content(said.get("eos_token")) or "</s>"
    others = [_content(said.get("bos_token")), _content(said.get("pad_token")) or "<pad>"]
    if absent := [token for token in (UNKNOWN, end) if token not in vocabulary]:
        raise CheckpointError(
            f"{path.parent}: its vocabulary has no {absent[0]!r}; copy the model's own vocab.json"
        )
    special = [UNKNOWN, end, *filter(None, others), *filter(LANGUAGE.fullmatch, vocabulary)]
    files = tokenizer_of_spm(path, special, end)
    return replace(files, vocabulary=json.dumps(vocabulary, ensure_ascii=False).encode())


def _content(token: Any) -> str | None:
    """A token as tokenizer_config.json writes it: text, or a record of it."""
    found = token.get("content") if isinstance(token, Mapping) else token
    return str(found) if found else None
