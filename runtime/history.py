"""The tokens a row of logits follows: source, decoder prompt and this row's own path.

``HistoryBuffer`` is what a generation keeps; ``History`` is what a filter reads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from .sampling import Ids


class HistoryBuffer:
    """Grows by commits; lends a ``History`` for any draft path without copying the past."""

    def __init__(self, prompt: Sequence[int], source: Sequence[int] = ()) -> None:
        # Without an encoder the prompt is the source that rules look at, as in transformers.
        self.source: Ids = np.asarray(source if len(source) else prompt, np.int64)
        self.prompt_length = self._length = len(prompt)
        self._ids = np.empty(max(64, 2 * len(prompt)), np.int64)
        self._ids[: len(prompt)] = prompt
        self._unwritten: list[int] = []  # committed since ids were last asked for

    @property
    def count(self) -> int:
        """Tokens committed after the prompt."""
        return self._length + len(self._unwritten) - self.prompt_length

    def commit(self, tokens: Sequence[int]) -> None:
        """These tokens stand."""
        self._unwritten += tokens

    def at(self, path: Sequence[int] = ()) -> History:
        """The history of the row that follows the committed tokens and then ``path``."""
        return History(self, path)

    def ids(self, path: Sequence[int]) -> Ids:
        """All of them: a view, good until the next call."""
        if self._unwritten:
            self._write(self._unwritten)
            self._length += len(self._unwritten)
            self._unwritten.clear()
        self._write(path)
        return self._ids[: self._length + len(path)]

    def _write(self, tokens: Sequence[int]) -> None:
        end = self._length + len(tokens)
        if end > len(self._ids):
            grown = np.empty(2 * end, np.int64)
            grown[: self._length] = self._ids[: self._length]
            self._ids = grown
        self._ids[self._length : end] = tokens


class History(Struct, frozen=True):
    """What one row follows: what stands in ``buffer`` and then ``path``.

    Ids are written when they are asked for, since plain decoding seldom needs more than ``count``.
    They are views of the buffer, good until others are asked for.
    """

    buffer: HistoryBuffer
    path: Sequence[int]

    @property
    def source(self) -> Ids:
        """[S] the encoder's ids (empty for audio)."""
        return self.buffer.source

    @property
    def decoder_ids(self) -> Ids:
        """[P+g] everything fed to the decoder: start tokens and prompt, then what was generated,
        ending with the draft path."""
        return self.buffer.ids(self.path)

    @property
    def prompt(self) -> Ids:
        return self.decoder_ids[: self.buffer.prompt_length]

    @property
    def generated(self) -> Ids:
        return self.decoder_ids[self.buffer.prompt_length :]

    @property
    def count(self) -> int:
        """Tokens generated on this path: the index the next one will have."""
        return self.buffer.count + len(self.path)
