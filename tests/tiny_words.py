"""The words tiny checkpoints speak: a token each, with a tokenizer, and what a case is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import tokenizers

from edgegen.export.checkpoint import Checkpoint, TokenizerFiles

PAD, END, UNKNOWN = 0, 1, 2
WORDS = [a + b + c for a in "bdfgklmnprstvz" for b in "aeiou" for c in ("", "n", "r", "st")]
VOCABULARY = 3 + len(WORDS)  # <pad>, </s>, <unk>, words

Make = Callable[..., Checkpoint]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A tiny checkpoint of a family. ``make`` takes the configuration's own words."""

    family: str
    make: Make


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
