"""Draft model: a smaller model writes a few tokens ahead (Leviathan, Kalman, Matias 2023).

Its cache is taken back to what the text and the last draft have in common, so a draft that was
accepted whole leaves two tokens to feed. Knows nothing of bundles or devices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

import numpy as np

from edgegen.errors import InputError

from ..decoder import Scores
from ..filters import LogitsFilter
from ..history import HistoryBuffer
from ..sampling import DRAFT, Distribution, Row, Sampler, draw
from ..verify import Draft, Lossless
from .base import Context, Materials
from .realign import Bridge, Same


class DraftDecoder(Protocol):
    """A decoder that can go back. ``reach`` is the most rows up to ``length`` it can go back to,
    ``chunk`` the most a call takes."""

    @property
    def length(self) -> int: ...
    @property
    def chunk(self) -> int: ...
    def forward(
        self, tokens: Sequence[int], parents: Sequence[int] | None = None, first_row: int = 0
    ) -> Scores: ...
    def keep(self, length: int, rows: Sequence[int] = ()) -> None: ...
    def reach(self, length: int) -> int: ...


@dataclass(frozen=True, kw_only=True)
class DraftModel:
    """What drafts one text. Ids are the draft's own.

    ``open`` gives its decoder at the start of a text and may wait for its encoder. ``sampler``
    chooses as the target's does, with the target's noise, so that both agree as often as they
    can; with ``noise``, a seed, tokens are drawn with the noise of ``sampling.DRAFT`` instead and
    come with the distributions they were drawn from: what rejection needs. ``confidence``: a token
    less likely than this is the last of its draft. ``positions`` 0 means no limit.
    """

    open: Callable[[], DraftDecoder]
    bridge: Bridge
    sampler: Sampler
    filters: Sequence[LogitsFilter] = ()
    ends: frozenset[int] = frozenset()
    prompt_length: int = 1
    positions: int = 0
    noise: int | None = None
    confidence: float = 0.0


class ModelDrafter:
    """Writes a chain, token by token."""

    lossless: ClassVar[Lossless] = "sample-identical"

    def __init__(self, model: DraftModel) -> None:
        self._model = model
        self._decoder: DraftDecoder | None = None
        self._fed: list[int] = []  # what is in the decoder's cache
        self._same = isinstance(model.bridge, Same)

    @classmethod
    def make(cls, materials: Materials) -> Self:
        if materials.model is None:
            raise InputError(
                "draft 'model' needs a draft model: load the bundle with draft_model=FOLDER "
                "(--draft-model)."
            )
        return cls(materials.model)

    def draft(self, context: Context, limit: int) -> Draft:
        if limit < 1:
            return Draft()
        ids = self._model.bridge.read(context.tokens)
        drafted, drawn = self._written(ids, context, limit)
        tokens = self._model.bridge.write(drafted)[:limit]
        return Draft.chain(tokens, drawn[: len(tokens)])

    def commit(self, length: int) -> None:
        """The next context says what stands; the cache goes back to it then."""

    def _written(
        self, ids: list[int], context: Context, limit: int
    ) -> tuple[list[int], list[Distribution]]:
        """The draft's tokens after ``ids``, and what each was drawn from when that is wanted."""
        model = self._model
        drafted: list[int] = []
        drawn: list[Distribution] = []
        prompt_length = model.prompt_length if self._same else 0
        history = HistoryBuffer(ids[:prompt_length], context.source if self._same else ())
        history.commit(ids[prompt_length:])
        # Counted as the target counts, or equal noise would not mean equal tokens.
        position = len(context.tokens) - model.prompt_length
        while ids and len(drafted) < limit and self._room(len(ids) + len(drafted)):
            row = self._filtered(self._row([*ids, *drafted]), history, drafted)
            if not math.isfinite(float(row.max())):
                break  # the rules forbid the draft everything
            token = self._choose(row, position + len(drafted), drawn)
            drafted.append(token)
            if token in model.ends or self._unsure(row, token):
                break
        return drafted, drawn

    def _room(self, length: int) -> bool:
        return not self._model.positions or length <= self._model.positions

    def _choose(self, row: Row, position: int, drawn: list[Distribution]) -> int:
        model = self._model
        if model.noise is None:
            return model.sampler.choose(row, position)
        distribution = model.sampler.distribution(row)
        drawn.append(distribution)
        return draw(distribution, model.noise, DRAFT, position)

    def _unsure(self, row: Row, token: int) -> bool:
        threshold = self._model.confidence
        if threshold <= 0:
            return False
        total = float(np.exp(row - row[token]).sum(dtype=np.float64))
        return total * threshold > 1

    def _filtered(self, row: Row, history: HistoryBuffer, drafted: Sequence[int]) -> Row:
        if not self._model.filters:
            return row
        row, seen = row.copy(), history.at(drafted)
        for rule in self._model.filters:
            rule.apply(row, seen)
        return row

    def _row(self, ids: Sequence[int]) -> Row:
        """Logits [V] after ``ids``, feeding what the cache lacks of them."""
        if self._decoder is None:
            self._decoder = self._model.open()
        decoder, fed = self._decoder, self._fed
        stands = decoder.reach(min(shared_prefix(fed, ids), len(ids) - 1))
        if stands < decoder.length:
            decoder.keep(stands)
            del fed[stands:]
        while True:
            part = ids[len(fed) : len(fed) + decoder.chunk]
            scores = decoder.forward(part, first_row=len(part) - 1)
            decoder.keep(len(fed) + len(part))
            fed += part
            if len(fed) == len(ids):
                row: Row = scores.logits[0]
                return row


def shared_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    length = min(len(one), len(other))
    if one[:length] == other[:length]:
        return length
    return next(at for at in range(length) if one[at] != other[at])
