"""Tokens become text as they come: no half characters, nothing of a stop string, no end mark."""

from __future__ import annotations

from collections.abc import Sequence

from .generation import Step
from .stopping import StopStrings
from .tokenizer import TextStream, Tokenizer


class Writer:
    """The text of one pass. ``take`` gives what may be shown after a step."""

    def __init__(self, tokenizer: Tokenizer, ends: Sequence[int], stop: Sequence[str] = ()) -> None:
        self._stream = TextStream(tokenizer)
        self._ends = frozenset(ends)
        self._stop = StopStrings(stop) if stop else None
        self.text = ""  # all of it so far, what is held back included
        self._shown = 0

    def so_far(self, token: int) -> str:
        """The whole text with one more token: what stop strings are looked for in."""
        if token not in self._ends:
            self.text += self._stream.push([token])
        return self.text

    def take(self, step: Step) -> str:
        """The new text of a step that can no longer change."""
        if self._stop is None:
            self.text += self._stream.push(t for t in step.tokens if t not in self._ends)
        if step.cut.reason is not None:
            self.text += self._stream.finish()
            if step.cut.text_length is not None:
                self.text = self.text[: step.cut.text_length]
            end = len(self.text)
        else:
            end = len(self.text) if self._stop is None else self._stop.shown(self.text)
        piece = self.text[self._shown : end]
        self._shown = max(self._shown, end)
        return piece
