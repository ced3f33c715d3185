"""Tokens become text as they come: no half characters, nothing of a stop string, no end mark."""

from __future__ import annotations

from collections.abc import Sequence

from .generation import Step
from .stopping import FinishReason, StopStrings
from .tokenizer import TextStream, Tokenizer


class Writer:
    """The text of one pass. ``take`` is told every step; text is made of tokens when it is read,
    all at once where nobody does before the end."""

    def __init__(self, tokenizer: Tokenizer, ends: Sequence[int], stop: Sequence[str] = ()) -> None:
        self._stream = TextStream(tokenizer)
        self._ends = frozenset(ends)
        self._stop = StopStrings(stop) if stop else None
        self._unread: list[int] = []
        self._text = ""  # of all tokens read so far, what is held back included
        self._shown = 0

    def so_far(self, token: int) -> str:
        """The whole text with one more token: what stop strings are looked for in."""
        self._push([token])
        return self._text

    def take(self, step: Step) -> FinishReason | None:
        """A step's tokens, which ``so_far`` had before where there are stop strings.

        Returns why the text ended, if it did: what was held back may end in a stop string.
        """
        if self._stop is None:
            self._unread += step.tokens
        if step.cut.reason is not None and self._end(step.cut.text_length):
            return "stop_string"
        return step.cut.reason

    def read(self) -> str:
        """The new text that can no longer change."""
        self._catch_up()
        end = len(self._text) if self._stop is None else self._stop.shown(self._text)
        piece = self._text[self._shown : end]
        self._shown = max(self._shown, end)
        return piece

    def whole(self) -> str:
        """All of it so far, what is held back included."""
        self._catch_up()
        return self._text

    def _catch_up(self) -> None:
        if self._unread:
            self._push(self._unread)
            self._unread.clear()

    def _push(self, tokens: Sequence[int]) -> None:
        self._text += self._stream.push(t for t in tokens if t not in self._ends)

    def _end(self, text_length: int | None) -> bool:
        """Returns whether a stop string cuts the text."""
        self._catch_up()
        self._text += self._stream.finish()
        if text_length is None and self._stop is not None:  # half a character was held back
            text_length = self._stop.find(self._text)
        if text_length is not None:
            self._text = self._text[:text_length]
        self._stop = None  # nothing can become a stop string any more
        return text_length is not None
