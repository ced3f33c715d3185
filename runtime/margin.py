"""Exact decisions from graphs whose rows agree only up to rounding.

A row computed among others, or over a cache that was, differs from plain decoding's by rounding.
That changes a token only where two are nearly as likely. There the row is computed once more as
plain decoding would have: from the last rows that were, a token at a time. So the text is plain
decoding's as long as no logit moves by more than the bound. Where sampling cuts tokens off, a token
at the edge of the cut is not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .decoder import Scores
from .sampling import Distribution, Row, Sampler
from .verify import LogitRows


class Target(Protocol):
    """A decoder that can be sent back."""

    @property
    def length(self) -> int: ...
    @property
    def chunk(self) -> int:
        """Rows of a prompt a call takes."""
        ...

    def reach(self, length: int) -> int:
        """The most rows up to ``length`` that can be gone back to."""
        ...

    def forward(
        self, tokens: Sequence[int], parents: Sequence[int] | None = None, first_row: int = 0
    ) -> Scores: ...
    def keep(self, length: int, rows: Sequence[int] = ()) -> None: ...


@dataclass(frozen=True)
class Call:
    """A decode call: ``fed`` is ``text[base:]`` and then the draft, whose logits start at row
    ``root``."""

    text: Sequence[int]
    base: int
    fed: Sequence[int]
    parents: Sequence[int] | None
    root: int


class Margin:
    """Watches one text. ``noise`` bounds a logit's change, as a share of its row's largest.

    ``reruns`` counts rows computed again since ``counts`` was last asked, ``flips`` those that
    then chose another token.
    ``prompt`` tokens are fed together, as the loop does, those in the cache before them never.
    """

    def __init__(self, noise: float, target: Target, prompt: int) -> None:
        self._noise, self._target, self._prompt = noise, target, prompt
        self._begun = self._exact = target.length
        self._fresh = True
        self.reruns = self.flips = 0

    def watch(self, rows: LogitRows, sampler: Sampler, call: Call) -> LogitRows | Careful:
        """The rows to decide by. Those of a plain call over plain rows are what they are."""
        if self._fresh:  # what was fed before the first call is the prompt
            self._fresh, self._exact = False, call.base
        if self._exact == call.base and len(call.fed) == call.root + 1:
            self._exact = len(call.text)
            return rows
        self._exact = min(self._exact, call.base)
        return Careful(self, rows, sampler, call)

    def counts(self) -> tuple[int, int]:
        """Reruns and flips since the last call of this."""
        found = self.reruns, self.flips
        self.reruns = self.flips = 0
        return found

    def bound(self, row: Row) -> float:
        return self._noise * float(np.abs(row[np.isfinite(row)]).max(initial=0.0))

    def again(self, row: int, path: Sequence[int], call: Call) -> Row:
        """Logits [1+n, V] of the call, with ``row``, which follows ``path``, as plain decoding has
        it. The cache is then as the call left it, but for rounding."""
        exact = self._plainly([*call.text, *path])
        self._plainly(call.text, call.base)
        logits = self._target.forward(call.fed, call.parents, first_row=call.root).logits.copy()
        logits[row] = exact
        self.reruns += 1
        return logits

    def _plainly(self, text: Sequence[int], end: int | None = None) -> Row | None:
        """Make the cache hold ``text[:end]`` as plain decoding does; the last row's logits, None
        where nothing was computed."""
        target, end = self._target, len(text) if end is None else end
        at = target.reach(min(self._exact, end))
        at = at if at >= self._prompt else self._begun
        target.keep(at)
        found = None
        while at < end:
            n = 1
            if at < self._prompt:
                n = min(target.chunk, self._prompt - at, end - at)
            found = target.forward(text[at : at + n], first_row=n - 1).logits[0].copy()
            at += n
            target.keep(at)
        self._exact = end
        return found


class Careful:
    """The rows of a call, each decided anew where rounding might have decided it."""

    def __init__(self, margin: Margin, rows: LogitRows, sampler: Sampler, call: Call) -> None:
        self._margin, self._rows, self._sampler, self._call = margin, rows, sampler, call

    @property
    def position(self) -> int:
        return self._rows.position

    def choose(self, row: int, path: Sequence[int]) -> int:
        token = self._rows.choose(row, path)
        if self._sure(row, path, token):
            return token
        self._rows.renew(self._margin.again(row, path, self._call))
        exact = self._rows.choose(row, path)
        self._margin.flips += exact != token
        return exact

    def distribution(self, row: int, path: Sequence[int]) -> Distribution:
        return self._rows.distribution(row, path)

    def _sure(self, row: int, path: Sequence[int], token: int) -> bool:
        """Whether the token is chosen even when all others gain and it loses the bound."""
        logits = self._rows.filtered(row, path)
        before = logits[token]
        logits[token] = before - 2.0 * self._margin.bound(logits)
        try:
            return self._sampler.choose(logits, self.position + len(path)) == token
        finally:
            logits[token] = before
