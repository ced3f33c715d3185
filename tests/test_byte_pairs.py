"""A tokenizer that lost merges gets them back, and no other is touched."""

from __future__ import annotations

import json
from typing import Any

import tokenizers

from edgegen.export.sources.byte_pairs import mended

WORDS = ("a", "b", "c", "Ġ", "Ġa", "Ġab", "bc")
MERGES = (("Ġ", "a"), ("Ġa", "b"), ("b", "c"))


def document(merges: Any) -> bytes:
    model = {"type": "BPE", "vocab": {word: i for i, word in enumerate(WORDS)}, "merges": merges}
    said = {"version": "1.0", "added_tokens": [], "model": {**model, "unk_token": None}}
    return json.dumps(said).encode()


def test_a_lost_merge_is_put_back_where_it_was() -> None:
    lists = [list(pair) for pair in MERGES]
    strings = [" ".join(pair) for pair in MERGES]
    for lost in range(len(MERGES)):
        for merges in (lists, strings):
            data, notes = mended(document(merges[:lost] + merges[lost + 1 :]))
            assert json.loads(data)["model"]["merges"] == lists
            assert len(notes) == 1
            whole = tokenizers.Tokenizer.from_buffer(data)
            assert whole.encode("Ġab").tokens == ["Ġab"]


def test_a_whole_tokenizer_stays_as_it_is() -> None:
    whole = document([list(pair) for pair in MERGES])
    assert mended(whole) == (whole, ())


def test_what_cannot_be_told_is_left_alone() -> None:
    """Tokens that could have been made in two ways, or that are too many to be a slip."""
    words = {word: i for i, word in enumerate(("a", "b", "ab", "aa", "aaa", "aab"))}
    two_ways = {"type": "BPE", "vocab": words, "merges": [["a", "b"], ["a", "a"], ["aa", "a"]]}
    data = json.dumps({"model": two_ways}).encode()
    assert mended(data) == (data, ())
    many = {"a": 0} | {"a" * (i + 2): i + 1 for i in range(9)}
    data = json.dumps({"model": {**two_ways, "vocab": many, "merges": [["a", "a"]]}}).encode()
    assert mended(data) == (data, ())
    other = json.dumps({"model": {"type": "Unigram", "vocab": []}}).encode()
    assert mended(other) == (other, ())
