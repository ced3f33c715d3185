"""SentencePiece vocabularies of tiny words, and folders of tokenizers over them."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sentencepiece
from tiny_words import WORDS

UPPER = [word.upper() for word in WORDS[100:]]


def lines(words: Sequence[str], count: int = 400, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [
        " ".join(draw.choice(words) for _ in range(draw.randint(3, 9))) + draw.choice(".!?")
        for _ in range(count)
    ]


def train(path: Path, text: Sequence[str], size: int = 150, **said: Any) -> list[str]:
    """Writes ``path``; returns its pieces."""
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_writer=made, vocab_size=size, minloglevel=2, **said
    )
    path.write_bytes(made.getvalue())
    model: Any = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return [model.id_to_piece(i) for i in range(model.get_piece_size())]


def spm_bytes() -> bytes:
    """A unigram vocabulary with Marian's ids: </s> 0, <unk> 1, nothing else special."""
    text = "the cat sat on a mat and said hello to another cat . , ! one two three"
    words = text.split()
    said = [" ".join(words[i : i + 5]) for i in range(len(words))] * 4
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(said),
        model_writer=out,
        model_type="unigram",
        vocab_size=48,
        hard_vocab_limit=False,
        eos_id=0,
        unk_id=1,
        bos_id=-1,
        pad_id=-1,
        minloglevel=2,
    )
    return out.getvalue()


def marian_folder(folder: Path, languages: Sequence[str] = ()) -> dict[str, int]:
    """An OPUS pair: two vocabularies of pieces, one of numbers that lacks some and knows others."""
    folder.mkdir(exist_ok=True)
    source = train(folder / "source.spm", lines(WORDS[:150]), character_coverage=0.995)
    target = train(folder / "target.spm", [*lines(UPPER), "ß"])
    pieces = sorted({*source[3:], *target[3:]})
    kept = [piece for i, piece in enumerate(pieces) if i % 17]
    names = ["</s>", "<unk>", *(f">>{code}<<" for code in languages), *kept, "<pad>"]
    numbers = {name: i for i, name in enumerate(names)}
    write(folder / "vocab.json", numbers)
    write(folder / "tokenizer_config.json", {"tokenizer_class": "MarianTokenizer"})
    return numbers


def m2m100_folder(folder: Path) -> dict[str, int]:
    """Byte pairs, and numbers of their own with room for languages behind them."""
    folder.mkdir(exist_ok=True)
    text = lines([*WORDS[:150], *UPPER], 800)
    pieces = train(folder / "sentencepiece.bpe.model", text, 200, model_type="bpe")
    kept = [piece for i, piece in enumerate(pieces[3:]) if i % 23]
    names = ["<s>", "<pad>", "</s>", "<unk>", *kept]
    numbers = {name: i for i, name in enumerate(names)}
    write(folder / "vocab.json", numbers)
    write(folder / "tokenizer_config.json", {"tokenizer_class": "M2M100Tokenizer"})
    return numbers


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
