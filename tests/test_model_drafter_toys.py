"""The draft model over toy decoders: what it draws, what it is fed, where a draft ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from fakes import ToyTarget

from edgegen.runtime.decoder import Scores
from edgegen.runtime.drafters.base import Context
from edgegen.runtime.drafters.model import DraftModel, ModelDrafter, shared_prefix
from edgegen.runtime.drafters.realign import Same
from edgegen.runtime.history import HistoryBuffer
from edgegen.runtime.sampling import Sampling
from edgegen.runtime.verify import Draft, LogitRows, RejectionVerifier


class ToyDecoder:
    """A toy model behind a draft decoder's protocol."""

    def __init__(self, toy: ToyTarget) -> None:
        self.toy, self.tokens, self.new = toy, list[int](), list[int]()

    @property
    def length(self) -> int:
        return len(self.tokens)

    def forward(
        self, tokens: Sequence[int], parents: Sequence[int] | None = None, first_row: int = 0
    ) -> Scores:
        assert parents is None
        self.new = list(tokens)
        text = self.tokens + self.new
        ends = range(len(self.tokens) + first_row + 1, len(text) + 1)
        return Scores(np.stack([self.toy.logits(text[:end]) for end in ends]))

    def keep(self, length: int, rows: Sequence[int] = ()) -> None:
        assert not rows
        self.tokens = (self.tokens + self.new)[:length]
        self.new = []

    def reach(self, length: int) -> int:
        return length

    @property
    def chunk(self) -> int:
        return 512

    def drafts(self, pending: int) -> int:
        return 512 - pending


def test_rejection_of_drawn_drafts_keeps_the_targets_distribution() -> None:
    """Two tokens in a row, every pair of them: total variation within twice the noise floor."""
    vocabulary, runs, prompt = 5, 4000, [1, 2]
    target, model = ToyTarget(vocabulary, seed=0), ToyTarget(vocabulary, seed=9)
    expected = np.zeros((vocabulary, vocabulary))
    sampler = Sampling(seed=0)
    for first in range(vocabulary):
        p = sampler.distribution(target.logits(prompt)).of(first)
        after = sampler.distribution(target.logits([*prompt, first]))
        expected[first] = p * after.probabilities
    counts = np.zeros_like(expected)
    for seed in range(runs):
        counts[tuple(two_tokens(target, model, prompt, seed))] += 1
    floor = np.sqrt(expected * (1 - expected) / (2 * np.pi * runs)).sum()
    assert 0.5 * np.abs(counts / runs - expected).sum() < 2 * floor


def two_tokens(target: ToyTarget, model: ToyTarget, prompt: Sequence[int], seed: int) -> list[int]:
    sampler = Sampling(seed=seed)
    drafter = ModelDrafter(
        DraftModel(
            open=lambda: ToyDecoder(model),
            bridge=Same(),
            sampler=sampler,
            prompt_length=len(prompt),
            noise=seed,
        )
    )
    text, history = list(prompt), HistoryBuffer(prompt)
    while len(text) < len(prompt) + 2:
        draft = drafter.draft(Context(source=(), tokens=text), 3)
        assert len(draft.distributions) == len(draft) == 3
        rows = LogitRows(target.rows(text, draft), sampler, history)
        verdict = RejectionVerifier(seed).verify(draft, rows)
        new = [*(draft.tokens[node] for node in verdict.path), verdict.token]
        text += new
        history.commit(new)
        drafter.commit(len(text) - 1)
    return text[len(prompt) : len(prompt) + 2]


def test_a_draft_accepted_whole_leaves_two_tokens_to_feed() -> None:
    decoder, fed = ToyDecoder(ToyTarget(9)), list[int]()
    forward = decoder.forward

    def counted(tokens: Sequence[int], parents: Any = None, first_row: int = 0) -> Scores:
        fed.append(len(tokens))
        return forward(tokens, parents, first_row)

    decoder.forward = counted  # type: ignore[method-assign]
    drafter = ModelDrafter(
        DraftModel(open=lambda: decoder, bridge=Same(), sampler=Sampling(seed=1))
    )
    text = [3]
    draft = drafter.draft(Context(source=(), tokens=text), 4)
    assert fed == [1, 1, 1, 1]
    text += [*draft.tokens, 5]
    drafter.draft(Context(source=(), tokens=text), 1)
    assert fed[4:] == [2]
    assert decoder.tokens == text


def test_a_draft_ends_where_its_text_or_its_positions_end() -> None:
    def drafted(**said: Any) -> Draft:
        model = DraftModel(
            open=lambda: ToyDecoder(ToyTarget(9)), bridge=Same(), sampler=Sampling(seed=1), **said
        )
        return ModelDrafter(model).draft(Context(source=(), tokens=[3]), 8)

    free = drafted()
    assert len(free) == 8
    assert drafted(ends=frozenset([free.tokens[2]])).tokens == free.tokens[:3]
    assert drafted(positions=4).tokens == free.tokens[:4]


def test_the_cache_goes_back_as_far_as_two_texts_agree() -> None:
    assert shared_prefix([1, 2, 3], [1, 2, 3, 4]) == 3
    assert shared_prefix([1, 2, 3], [1, 5]) == 1
    assert shared_prefix([], [1]) == 0
