"""The tokens a row of logits follows: source, decoder prompt and this row's own path.

``HistoryBuffer`` is what a generation keeps; ``History`` is what a filter reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .sampling import Ids


@dataclass(frozen=True, slots=True)
class History:
    """What one row follows. The arrays are views of a buffer, good until its next call.

    ``source`` [S] the encoder's ids (empty for audio). ``decoder_ids`` [P+g] everything fed to
    the decoder: start tokens and prompt, then what was generated, ending with the draft path.
    ``prompt_length`` is P.
    """

    source: Ids
    decoder_ids: Ids
    prompt_length: int

    @property
    def prompt(self) -> Ids:
        return self.decoder_ids[: self.prompt_length]

    @property
    def generated(self) -> Ids:
        return self.decoder_ids[self.prompt_length :]

    @property
    def count(self) -> int:
        """Tokens generated on this path: the index the next one will have."""
        return len(self.decoder_ids) - self.prompt_length


class HistoryBuffer:
    """Grows by commits; lends a ``History`` for any draft path without copying the past."""

    def __init__(self, prompt: Sequence[int], source: Sequence[int] = ()) -> None:
        self._source = np.asarray(source, np.int64)
        self._ids = np.empty(max(64, 2 * len(prompt)), np.int64)
        self._ids[: len(prompt)] = prompt
        self._prompt_length = self._length = len(prompt)
        self._unwritten: list[int] = []  # committed since a history was last asked for

    @property
    def count(self) -> int:
        """Tokens committed after the prompt."""
        return self._length + len(self._unwritten) - self._prompt_length

    def commit(self, tokens: Sequence[int]) -> None:
        """These tokens stand."""
        self._unwritten += tokens

    def at(self, path: Sequence[int] = ()) -> History:
        """The history of the row that follows the committed tokens and then ``path``."""
        if self._unwritten:
            self._write(self._unwritten)
            self._length += len(self._unwritten)
            self._unwritten.clear()
        self._write(path)
        return History(self._source, self._ids[: self._length + len(path)], self._prompt_length)

    def _write(self, tokens: Sequence[int]) -> None:
        end = self._length + len(tokens)
        if end > len(self._ids):
            grown = np.empty(2 * end, np.int64)
            grown[: self._length] = self._ids[: self._length]
            self._ids = grown
        self._ids[self._length : end] = tokens
