"""A byte-pair tokenizer whose list of merges lost lines: its vocabulary says which.

Converters that take the first line of merges.txt for its header, whether it is one or not, lose
the most frequent merge of all, so the tokenizer never again makes the token itself, nor any token
that is built on it, though the model was trained on them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

# More than a few missing merges are no slip: such a vocabulary was not made by these merges.
MOST = 4


def mended(data: bytes) -> tuple[bytes, tuple[str, ...]]:
    """A tokenizer.json with its lost merges put back, and a note for each; ``data`` itself when
    nothing is lost or it cannot be told what."""
    document: dict[str, Any] = json.loads(data)
    model = document.get("model") or {}
    merges: list[Any] = model.get("merges") or []
    if model.get("type") != "BPE" or not merges or model.get("ignore_merges"):
        return data, ()
    pairs = [_pair(merge) for merge in merges]
    vocabulary: Mapping[str, int] = model["vocab"]
    added = {token["content"] for token in document.get("added_tokens") or ()}
    made = {one + other for one, other in pairs} | added
    lost = sorted((token for token in vocabulary if len(token) > 1 and token not in made),
                  key=vocabulary.__getitem__)  # fmt: skip
    found = [_splits(token, vocabulary, made) for token in lost]
    if not 0 < len(lost) <= MOST or any(len(splits) != 1 for splits in found):
        return data, ()
    for token, splits in zip(lost, found, strict=True):
        # Merges are in the order of the ids they make.
        later = (at for at, pair in enumerate(pairs) if _id(pair, vocabulary) > vocabulary[token])
        pairs.insert(next(later, len(pairs)), splits[0])
    model["merges"] = [list(pair) for pair in pairs]
    notes = tuple(f"tokenizer: the lost merge {one!r} {other!r} was put back"
                  for [(one, other)] in found)  # fmt: skip
    return json.dumps(document, ensure_ascii=False).encode(), notes


def _pair(merge: str | Sequence[str]) -> tuple[str, str]:
    one, other = merge.split(" ") if isinstance(merge, str) else merge
    return one, other


def _id(pair: tuple[str, str], vocabulary: Mapping[str, int]) -> int:
    return vocabulary.get("".join(pair), -1)


def _splits(token: str, vocabulary: Mapping[str, int], made: set[str]) -> list[tuple[str, str]]:
    """Ways to make ``token`` of two tokens that can be made themselves."""

    def makeable(part: str) -> bool:
        return part in vocabulary and (len(part) == 1 or part in made)

    cuts = range(1, len(token))
    return [
        (token[:at], token[at:]) for at in cuts if makeable(token[:at]) and makeable(token[at:])
    ]
