"""Words that differ between two texts, as a share of the words there should be."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")


def words(text: str) -> list[str]:
    """Without case and punctuation."""
    return WORD.findall(text.lower().replace("’", "'"))


def edits(wanted: Sequence[str], found: Sequence[str]) -> int:
    """The fewest words to change, add or leave out (Levenshtein, 1966)."""
    row = np.arange(len(found) + 1)
    other = np.array(found, dtype=object)
    for i, word in enumerate(wanted, start=1):
        kept = np.minimum(row[1:] + 1, row[:-1] + (other != word))
        # A word added costs one more than the place before it: a running minimum.
        places = np.arange(len(found) + 1)
        row = np.minimum.accumulate(np.concatenate([[i], kept]) - places) + places
    return int(row[-1])


def word_error_rate(wanted: str, found: str) -> float:
    return edits(words(wanted), words(found)) / max(1, len(words(wanted)))
