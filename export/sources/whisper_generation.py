"""Whisper's generation settings, from its tokenizer's own special tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from edgegen.errors import CheckpointError

# Nothing but the size tells the English-only models apart: their tokenizers carry the language
# tokens too. (openai/whisper, whisper/model.py: is_multilingual is n_vocab >= 51865.)
SMALLEST_MULTILINGUAL_VOCABULARY = 51_865
NO_SPEECH = ("<|nospeech|>", "<|nocaptions|>")  # the same token, renamed in later models


def generation_of(
    path: Path, tokenizer: bytes, config: Mapping[str, Any], hints: Mapping[str, Any]
) -> dict[str, Any]:
    """The keys of transformers' generation_config.json for Whisper.

    ``tokenizer`` is the tokenizer.json; ``hints`` CTranslate2's config.json (suppressed ids,
    alignment heads). Raises ``CheckpointError`` when a special token is missing or does not fit."""
    tokens = _special_tokens(path, tokenizer)
    start = _required(path, tokens, "<|startoftranscript|>")
    end = _required(path, tokens, "<|endoftext|>")
    generation: dict[str, Any] = {
        "decoder_start_token_id": start,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "prev_sot_token_id": _required(path, tokens, "<|startofprev|>"),
        "no_timestamps_token_id": _required(path, tokens, "<|notimestamps|>"),
        "max_length": config["max_target_positions"],
        "max_initial_timestamp_index": 50,  # the first word within a second, as openai/whisper
        "return_timestamps": False,
        "is_multilingual": config["vocab_size"] >= SMALLEST_MULTILINGUAL_VOCABULARY,
        **_hinted(path, config, hints),
    }
    if generation["is_multilingual"]:
        translate = _required(path, tokens, "<|translate|>")
        generation["task_to_id"] = {
            "translate": translate,
            "transcribe": _required(path, tokens, "<|transcribe|>"),
        }
        first = min(translate, generation["task_to_id"]["transcribe"])
        generation["lang_to_id"] = {
            text: number for text, number in tokens.items() if start < number < first
        }
    no_speech = next((tokens[name] for name in NO_SPEECH if name in tokens), None)
    if no_speech is not None:
        generation["no_speech_token_id"] = no_speech
    _in_vocabulary(path, tokens, config["vocab_size"])
    return generation


def _special_tokens(path: Path, tokenizer: bytes) -> dict[str, int]:
    added = cast(list[dict[str, Any]], json.loads(tokenizer).get("added_tokens", []))
    tokens = {str(token["content"]): int(token["id"]) for token in added}
    return dict(sorted(tokens.items(), key=lambda item: item[1]))


def _required(path: Path, tokens: Mapping[str, int], name: str) -> int:
    if name not in tokens:
        raise CheckpointError(
            f"{path}: tokenizer.json has no added token {name!r}, which every Whisper has;"
            " take the tokenizer.json of the same model"
        )
    return tokens[name]


def _in_vocabulary(path: Path, tokens: Mapping[str, int], size: int) -> None:
    beyond = [f"{name!r} {number}" for name, number in tokens.items() if number >= size]
    if beyond:
        raise CheckpointError(
            f"{path}: tokenizer.json's {beyond[0]} is outside the model's {size} ids;"
            " take the tokenizer.json of the same model"
        )


def _hinted(path: Path, config: Mapping[str, Any], hints: Mapping[str, Any]) -> dict[str, Any]:
    """CTranslate2's config.json in transformers' words; keys it lacks stay away."""
    found: dict[str, Any] = {}
    names = {"suppress_ids": "suppress_tokens", "suppress_ids_begin": "begin_suppress_tokens"}
    for name, ours in names.items():
        ids = hints.get(name)
        if ids is None:
            continue
        if not _all_below(ids, config["vocab_size"]):
            raise CheckpointError(
                f"{path}: config.json's {name} should be ids below {config['vocab_size']},"
                " it is not; take the config.json of the same model"
            )
        found[ours] = ids
    heads = hints.get("alignment_heads")
    if heads is not None:
        found["alignment_heads"] = _checked_heads(path, config, heads)
    return found


def _all_below(ids: object, size: int) -> bool:
    values = cast(list[object], ids) if isinstance(ids, list) else [None]
    return all(type(value) is int and 0 <= value < size for value in values)


def _checked_heads(path: Path, config: Mapping[str, Any], heads: object) -> list[list[int]]:
    layers, count = config["decoder_layers"], config["decoder_attention_heads"]
    pairs = cast(list[list[int]], heads) if isinstance(heads, list) else []
    fit = [
        _all_below(pair, max(layers, count))
        and len(pair) == 2
        and pair[0] < layers
        and pair[1] < count
        for pair in pairs
    ]
    if not fit or not all(fit):
        raise CheckpointError(
            f"{path}: config.json's alignment_heads should be pairs [layer < {layers},"
            f" head < {count}], they are not; take the config.json of the same model"
        )
    return pairs
