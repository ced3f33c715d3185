"""A source's shortlist: the words its text may be made of, as ``edgegen export --shortlist`` graphs
propose them.

``encode`` gives ``words``, ids in the order of the logits' columns, with their rows of the output
table (``head_rows``) and biases (``head_bias``). A word may stand there more than once.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from .errors import BundleError

Feeds = dict[str, NDArray[np.generic]]
WORDS, ROWS, BIAS = "words", "head_rows", "head_bias"


def distinct(memory: Mapping[str, NDArray[np.generic]]) -> Feeds:
    """The memory of one source with each word once: fewer columns, the same choice."""
    words = memory.get(WORDS)
    if words is None or len(words) != 1:
        return dict(memory)
    found, places = np.unique(words[0], return_index=True)
    return {
        **memory,
        WORDS: found[None],
        ROWS: np.ascontiguousarray(memory[ROWS][:, places]),
        BIAS: np.ascontiguousarray(memory[BIAS][:, :, places]),
    }


class Spread:
    """Logits of words as logits of a whole vocabulary, where all others have none (-inf).

    Views of a buffer for each number of rows, which the next call of as many writes over.
    """

    def __init__(self, words: NDArray[np.int64], vocabulary: int) -> None:
        self.words, self._size = words, vocabulary
        self._buffers: dict[int, NDArray[np.float32]] = {}

    def __call__(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """``[rows, words or more]`` -> ``[rows, vocabulary]``; columns behind the words are not
        looked at."""
        rows = len(logits)
        buffer = self._buffers.get(rows)
        if buffer is None:
            buffer = np.full((rows, self._size), -np.inf, np.float32)
            self._buffers[rows] = buffer
        buffer[:, self.words] = logits[:, : len(self.words)]
        return buffer


def spread_of(memory: Mapping[str, NDArray[np.generic]], vocabulary: int) -> Spread | None:
    """None where a source has no shortlist. Raises ``BundleError`` for words there are not."""
    words = memory.get(WORDS)
    if words is None:
        return None
    ids = words[0].astype(np.int64)
    if ids.min(initial=0) < 0 or ids.max(initial=0) >= vocabulary:
        wrong = ids.min() if ids.min() < 0 else ids.max()
        raise BundleError(
            f"encode proposes word {wrong} of a vocabulary of {vocabulary}; export the model anew."
        )
    return Spread(ids, vocabulary)
