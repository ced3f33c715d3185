"""Graphs whose rows agree only up to rounding still give plain decoding's text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from fakes import Adversary, Forest, Oracle

from edgegen.runtime.budget import Fixed
from edgegen.runtime.decoder import PREFILL_CHUNK, Scores
from edgegen.runtime.drafters.base import Drafter
from edgegen.runtime.drafters.none import NoDraft
from edgegen.runtime.filters import LogitsFilter, RepetitionPenalty
from edgegen.runtime.generation import Step
from edgegen.runtime.sampling import Greedy, Sampler, Sampling
from edgegen.runtime.speculative import SpeculativeDecoding
from edgegen.runtime.stopping import Stopping
from edgegen.runtime.verify import MatchVerifier

VOCABULARY, NEW = 40, 60
NOISE = 2e-3
BOUND = 1.05 * NOISE  # of a row that moved itself


class Rounding:
    """A causal toy whose near ties are many, and whose rows move with the company they keep.

    A row fed with others is off by up to ``NOISE`` of its largest logit, and so is every row after
    it that sees it in the cache: rounding, made large enough to flip tokens often.
    """

    def __init__(self, seed: int = 0, trail: int = 10**6) -> None:
        self.seed, self.trail = seed, trail
        self._cache: list[tuple[int, bool]] = []  # token, and whether it was fed alone
        self._new: list[tuple[int, bool]] = []
        self.calls = 0

    @property
    def length(self) -> int:
        return len(self._cache)

    @property
    def chunk(self) -> int:
        return PREFILL_CHUNK

    def drafts(self, pending: int) -> int:
        return PREFILL_CHUNK - pending

    def reach(self, length: int) -> int:
        return length if self.length - length < self.trail else 0

    def forward(
        self, tokens: Sequence[int], parents: Sequence[int] | None = None, first_row: int = 0
    ) -> Scores:
        self.calls += 1
        parents = range(-1, len(tokens) - 1) if parents is None else parents
        alone = len(tokens) == 1 or not self._cache  # the prompt counts as alone
        self._new = [(int(token), alone) for token in tokens]
        paths: list[list[tuple[int, bool]]] = []
        for entry, parent in zip(self._new, parents, strict=True):
            paths.append([*(paths[parent] if parent >= 0 else self._cache), entry])
        return Scores(np.stack([self._logits(path) for path in paths[first_row:]]))

    def _logits(self, path: list[tuple[int, bool]]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        random = np.random.default_rng([self.seed, *(token + 1 for token, _ in path[-3:])])
        logits = np.round(random.normal(size=VOCABULARY, scale=2.0), 1)  # rounded: exact ties
        logits -= np.arange(VOCABULARY) * 1e-6
        if not all(alone for _, alone in path):
            noise = random.uniform(-1, 1, VOCABULARY) * NOISE * np.abs(logits).max()
            logits = logits + noise
        return logits.astype(np.float32)

    def keep(self, length: int, rows: Sequence[int] = ()) -> None:
        whole = [*self._cache, *self._new]
        self._cache = [*whole[:length], *(whole[row] for row in rows)]
        self._new = []


def run(
    drafter: Drafter,
    nodes: int,
    noise: float,
    sampler: Sampler,
    filters: Sequence[LogitsFilter] = (),
    trail: int = 10**6,
    seed: int = 0,
) -> list[Step]:
    generation = SpeculativeDecoding(
        target=Rounding(seed, trail),
        sampler=sampler,
        filters=filters,
        stopping=Stopping(ends=frozenset(), max_new_tokens=NEW),
        verifier=MatchVerifier(),
        drafter=drafter,
        budget=Fixed(nodes),
        noise=noise,
    )
    return list(generation.run([3, 1, 4]))


def text_of(steps: Sequence[Step]) -> list[int]:
    return [token for step in steps for token in step.tokens]


SAMPLERS: dict[str, Sampler] = {"greedy": Greedy(), "sampled": Sampling(seed=5, temperature=0.7)}


@pytest.mark.parametrize("trail", [10**6, 1], ids=["any", "recurrent"])
@pytest.mark.parametrize("way", SAMPLERS)
@pytest.mark.parametrize("kind", ["oracle", "adversary", "forest"])
def test_rounding_never_shows_in_the_text(kind: str, way: str, trail: int) -> None:
    for seed in range(6):
        plain = text_of(run(NoDraft(), 0, 0.0, SAMPLERS[way], seed=seed))
        drafters: dict[str, Drafter] = {
            "oracle": Oracle([3, 1, 4, *plain]),
            "adversary": Adversary(VOCABULARY, seed),
            "forest": Forest([3, 1, 4, *plain], VOCABULARY, seed),
        }
        steps = run(drafters[kind], 5, BOUND, SAMPLERS[way], trail=trail, seed=seed)
        assert text_of(steps) == plain


def test_without_the_margin_the_same_noise_flips_tokens_and_with_it_flips_are_counted() -> None:
    differ = reruns = flips = 0
    for seed in range(6):
        plain = text_of(run(NoDraft(), 0, 0.0, Greedy(), seed=seed))
        differ += text_of(run(Oracle([3, 1, 4, *plain]), 5, 0.0, Greedy(), seed=seed)) != plain
        careful = run(Oracle([3, 1, 4, *plain]), 5, BOUND, Greedy(), seed=seed)
        reruns += sum(step.reruns for step in careful)
        flips += sum(step.flips for step in careful)
    assert differ > 0
    assert 0 < flips <= reruns


def test_filters_see_the_row_that_was_computed_again() -> None:
    filters = [RepetitionPenalty(1.3)]
    plain = text_of(run(NoDraft(), 0, 0.0, Greedy(), filters))
    steps = run(Oracle([3, 1, 4, *plain]), 4, 1.3 * BOUND, Greedy(), filters)
    assert text_of(steps) == plain


def test_plain_decoding_is_never_computed_again() -> None:
    steps = run(NoDraft(), 0, BOUND, Greedy())
    assert sum(step.reruns for step in steps) == 0
    assert [step.rows for step in steps] == [3, *[1] * (NEW - 1)]
