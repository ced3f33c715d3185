"""ModernBERT's encoders and decoders under random weights, and a tokenizer of word pieces."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import tokenizers
import torch
from tiny import checkpoint_of
from tiny_words import END, PAD, UNKNOWN, VOCABULARY, WORDS, Case
from transformers import (
    ModernBertConfig,
    ModernBertDecoderConfig,
    ModernBertDecoderForCausalLM,
    ModernBertForMaskedLM,
    ModernBertForSequenceClassification,
    ModernBertForTokenClassification,
    ModernBertModel,
    PreTrainedModel,
)

from edgegen.export.checkpoint import Checkpoint, TokenizerFiles

SAID: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 96, "intermediate_size": 80, "num_hidden_layers": 5,
    "num_attention_heads": 6, "local_attention": 10, "max_position_embeddings": 512,
    "pad_token_id": PAD, "eos_token_id": END, "bos_token_id": UNKNOWN, "cls_token_id": UNKNOWN,
    "sep_token_id": END, "initializer_range": 0.15,
}  # fmt: skip
LABELS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC"}
ENCODERS: dict[str, Any] = {
    "feature-extraction": ModernBertModel,
    "text-classification": ModernBertForSequenceClassification,
    "token-classification": ModernBertForTokenClassification,
    "fill-mask": ModernBertForMaskedLM,
}


def stirred(model: PreTrainedModel) -> PreTrainedModel:
    """Norms that are not all one and biases that are not all zero, so that one left out is seen."""
    for name, tensor in model.state_dict().items():
        if "norm" in name:
            tensor.normal_(0.8, 0.3)
        elif name.endswith("bias"):
            tensor.normal_(0.0, 0.3)
    return model


def encoder_model(task: str, **overrides: Any) -> PreTrainedModel:
    said: dict[str, Any] = {**SAID, **overrides}
    if task in ("text-classification", "token-classification"):
        said = {"id2label": LABELS, "label2id": {v: k for k, v in LABELS.items()}, **said}
    torch.manual_seed(11)
    model = stirred(ENCODERS[task](ModernBertConfig(**said)))
    model.train(False)
    return model


def encoder(task: str, **overrides: Any) -> Checkpoint:
    """A checkpoint of the class for ``task``."""
    return saved(encoder_model(task, **overrides))


def saved(model: PreTrainedModel) -> Checkpoint:
    """As ``save_pretrained`` writes it: the configuration names the class."""
    found = checkpoint_of(model)
    return replace(found, config={**found.config, "architectures": [type(model).__name__]})


def decoder(**overrides: Any) -> Checkpoint:
    """Two layers in three see a window of five."""
    said: dict[str, Any] = {**SAID, "initializer_range": 0.3, **overrides}
    torch.manual_seed(12)
    return checkpoint_of(stirred(ModernBertDecoderForCausalLM(ModernBertDecoderConfig(**said))))


CASES = {
    "modernbert-decoder": Case(family="modernbert-decoder", make=decoder),
}


def word_pieces() -> TokenizerFiles:
    """Words of the tiny vocabulary from syllables: the first as it is, the others behind ``##``."""
    names = ["[PAD]", "[SEP]", "[CLS]", "[UNK]", "[MASK]", ".", ","]
    half = (VOCABULARY - len(names)) // 2
    pieces = [*WORDS[:half], *(f"##{word}" for word in WORDS[:half])]
    words = {name: i for i, name in enumerate([*names, *pieces])}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.decoder = tokenizers.decoders.WordPiece()
    made.add_special_tokens(names[:5])
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 1)]
    )
    return TokenizerFiles(kind="tokenizers", data=json.dumps(json.loads(made.to_str())).encode())
