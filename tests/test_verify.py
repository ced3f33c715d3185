"""Laws of verification: what stands, and that lossless means lossless."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from fakes import Adversary, Oracle, ToyTarget

from edgegen.errors import InputError
from edgegen.runtime.drafters.base import Context, Drafter
from edgegen.runtime.drafters.none import NoDraft
from edgegen.runtime.filters import LogitsFilter, NoRepeatNgram, RepetitionPenalty
from edgegen.runtime.history import History, HistoryBuffer
from edgegen.runtime.sampling import (
    DRAFT,
    Distribution,
    Greedy,
    Row,
    Sampler,
    Sampling,
    draw,
    point,
)
from edgegen.runtime.verifiers import VERIFIERS
from edgegen.runtime.verify import (
    Draft,
    LogitRows,
    MatchVerifier,
    RejectionVerifier,
    TypicalVerifier,
    Verdict,
    Verifier,
    ancestors,
    depths,
    residual,
)

VOCABULARY = 9
PROMPT = [1, 2]


def written(
    drafter: Drafter,
    sampler: Sampler,
    verifier: Verifier,
    filters: Sequence[LogitsFilter] = (),
    limit: int = 5,
    length: int = 24,
) -> tuple[list[int], int]:
    """The text of a toy model and the steps it took."""
    model, history, text, steps = ToyTarget(VOCABULARY), HistoryBuffer(PROMPT), list(PROMPT), 0
    while len(text) < length:
        draft = drafter.draft(Context(source=(), tokens=text), limit)
        target = LogitRows(model.rows(text, draft), sampler, history, filters)
        verdict = verifier.verify(draft, target)
        new = [*(draft.tokens[node] for node in verdict.path), verdict.token]
        history.commit(new)
        text += new
        steps += 1
    return text[:length], steps


@pytest.mark.parametrize("filters", [(), (NoRepeatNgram(2), RepetitionPenalty(1.3))])
@pytest.mark.parametrize("sampler", [Greedy(), Sampling(5), Sampling(6, 0.7, 4, 0.9)])
def test_matching_gives_the_text_of_plain_decoding(
    sampler: Sampler, filters: Sequence[LogitsFilter]
) -> None:
    plain, steps = written(NoDraft(), sampler, MatchVerifier(), filters)
    assert steps == len(plain) - len(PROMPT)
    for seed in range(6):
        text, _ = written(Adversary(VOCABULARY, seed), sampler, MatchVerifier(), filters)
        assert text == plain
    told, few = written(Oracle(plain), sampler, MatchVerifier(), filters)
    assert told == plain
    assert few == math.ceil((len(plain) - len(PROMPT)) / 6)


@pytest.mark.parametrize("verifier", [RejectionVerifier(3), TypicalVerifier()])
def test_with_a_greedy_sampler_every_verifier_is_the_matching_one(verifier: Verifier) -> None:
    plain, _ = written(NoDraft(), Greedy(), MatchVerifier())
    for drafter in (Adversary(VOCABULARY, 1), Oracle(plain), NoDraft()):
        assert written(drafter, Greedy(), verifier)[0] == plain


def test_without_a_draft_rejection_is_plain_sampling() -> None:
    plain = written(NoDraft(), Sampling(8), MatchVerifier())
    assert written(NoDraft(), Sampling(8), RejectionVerifier(8)) == plain


def rows_saying(*tokens: int) -> LogitRows:
    """Row i's likeliest token is the i-th given."""
    logits = np.eye(VOCABULARY, dtype=np.float32)[list(tokens)]
    return LogitRows(logits, Greedy(), HistoryBuffer(PROMPT))


def test_siblings_that_repeat_a_token_are_all_followed() -> None:
    # Node 0 and node 1 both say 5; only node 1 has the child 6.
    draft = Draft((5, 5, 6), (-1, -1, 1))
    verdict = MatchVerifier().verify(draft, rows_saying(5, 6, 6, 7))
    assert verdict == Verdict((1, 2), 7)


def test_a_wrong_draft_costs_nothing_but_its_rows() -> None:
    assert MatchVerifier().verify(Draft.chain([4, 4]), rows_saying(5, 1, 1)) == Verdict((), 5)


class Counting:
    """A filter that counts the rows it sees, and may say that it spares all tokens."""

    def __init__(self, spares: bool = False) -> None:
        self.paths: list[list[int]] = []
        self._spares = spares

    def apply(self, logits: Row, history: History) -> None:
        self.paths.append(history.generated.tolist())

    def spares(self, token: int, history: History) -> bool:
        return self._spares


def test_only_rows_on_the_path_are_filtered_and_the_logits_stay_as_they_were() -> None:
    counting = Counting()
    logits = np.eye(VOCABULARY, dtype=np.float32)[[5, 6, 1, 7]]
    kept = logits.copy()
    target = LogitRows(logits, Greedy(), HistoryBuffer(PROMPT), [counting, RepetitionPenalty(2)])
    verdict = MatchVerifier().verify(Draft((5, 3, 6), (-1, -1, 0)), target)
    assert verdict == Verdict((0, 2), 7)
    assert counting.paths == [[], [5], [5, 6]]
    target.filtered(3, (5, 6))
    assert len(counting.paths) == 3
    assert np.array_equal(logits, kept)


@pytest.mark.parametrize(
    ("sampler", "spares", "looked_at"),
    [(Greedy(), True, 0), (Greedy(), False, 1), (Sampling(1), True, 1)],
)
def test_a_greedy_choice_that_every_filter_spares_filters_no_row(
    sampler: Sampler, spares: bool, looked_at: int
) -> None:
    counting = Counting(spares)
    logits = np.eye(VOCABULARY, dtype=np.float32)[[5]]
    target = LogitRows(logits, sampler, HistoryBuffer(PROMPT), [counting])
    target.choose(0, ())
    assert len(counting.paths) == looked_at
    target.filtered(0, ())
    assert len(counting.paths) == 1


@pytest.mark.parametrize(
    ("tokens", "parents"), [((1,), ()), ((1,), (0,)), ((1, 2), (1, -1)), ((1,), (-2,))]
)
def test_a_draft_that_is_no_tree_is_refused(
    tokens: tuple[int, ...], parents: tuple[int, ...]
) -> None:
    with pytest.raises(InputError, match="draft"):
        Draft(tokens, parents)


def test_a_tree_knows_its_paths_depths_and_ancestors() -> None:
    draft = Draft((4, 5, 6, 7), (-1, -1, 0, 2))
    assert draft.path_to(3) == (0, 2, 3)
    assert draft.path_to(-1) == ()
    assert depths(draft.parents).tolist() == [0, 0, 1, 2]
    seen = ancestors(draft.parents)
    assert [np.flatnonzero(row).tolist() for row in seen] == [[0], [1], [0, 2], [0, 2, 3]]
    assert not draft.is_chain
    assert Draft.chain([4, 5, 6]) == Draft((4, 5, 6), (-1, 0, 1))
    assert Draft.chain([4, 5, 6]).is_chain


def test_a_verifier_says_its_class() -> None:
    classes = {name: VERIFIERS[name].lossless for name in VERIFIERS}
    assert classes == {
        "match": "sample-identical",
        "rejection": "distribution-identical",
        "typical": "lossy",
    }


def test_the_residual_is_what_p_has_over_q() -> None:
    p = Distribution(np.array([1, 2, 5]), np.array([0.5, 0.3, 0.2]))
    q = Distribution(np.array([2, 5, 7]), np.array([0.6, 0.1, 0.3]))
    left = residual(p, q)
    assert left is not None
    assert left.probabilities.tolist() == pytest.approx([5 / 6, 0, 1 / 6])
    assert residual(point(3), point(3)) is None


# ---------------------------------------------------------------- rejection, by Monte Carlo

TRIALS = 20_000
SIZE = 16


def toy_rows(seed: int, count: int) -> Row:
    random = np.random.default_rng(seed)
    return random.normal(scale=1.2, size=(count, SIZE)).astype(np.float32)


def softmax(row: Row) -> Distribution:
    return Sampling(0).distribution(row)


def distance(picks: Sequence[int], wanted: Distribution) -> tuple[float, float]:
    """Total variation, and the expectation of it that sampling noise alone gives."""
    p, n = wanted.probabilities, len(picks)
    floor = float(np.sqrt(p * (1 - p) / (2 * math.pi * n)).sum())
    seen = np.bincount(picks, minlength=SIZE) / n
    return 0.5 * float(np.abs(seen - p).sum()), floor


def chain_draft(q: Row, trial: int) -> Draft:
    """Two tokens drawn from q's rows."""
    drawn = [softmax(row) for row in q]
    return Draft.chain([draw(d, trial, DRAFT, at) for at, d in enumerate(drawn)], drawn)


def sibling_draft(q: Row, trial: int) -> Draft:
    """Two independent draws for the same place."""
    drawn = [softmax(q[0])] * 2
    tokens = tuple(draw(d, trial, DRAFT, at) for at, d in enumerate(drawn))
    return Draft(tokens, (-1, -1), tuple(drawn))


def fixed_draft(q: Row, trial: int) -> Draft:
    """The likeliest two of q, and one of them again: a deterministic drafter."""
    first, second = np.argsort(-q[0])[:2].tolist()
    return Draft((first, first, second), (-1, -1, -1))


@pytest.mark.parametrize("make", [chain_draft, sibling_draft, fixed_draft])
def test_rejection_draws_from_the_target(make: Callable[[Row, int], Draft]) -> None:
    # Row 1 stands for every row but the first: what follows does not depend on the token.
    p, q = toy_rows(1, 2), toy_rows(2, 2)
    firsts: list[int] = []
    seconds: list[int] = []
    accepted = 0
    for trial in range(TRIALS):
        draft = make(q, trial)
        logits = np.concatenate([p[:1], np.repeat(p[1:], len(draft), axis=0)])
        target = LogitRows(logits, Sampling(trial), HistoryBuffer([]))
        verdict = RejectionVerifier(trial).verify(draft, target)
        text = [*(draft.tokens[node] for node in verdict.path), verdict.token]
        firsts.append(text[0])
        seconds += text[1:2]
        accepted += len(verdict.path) > 0
    for picks, row in [(firsts, p[0]), (seconds, p[1])]:
        found, floor = distance(picks, softmax(row))
        assert found < 2 * floor, (found, floor)
    if make is chain_draft:
        overlap = np.minimum(softmax(p[0]).probabilities, softmax(q[0]).probabilities).sum()
        assert accepted / TRIALS == pytest.approx(float(overlap), abs=0.015)


def test_rejection_repeats_exactly() -> None:
    p, q = toy_rows(3, 3), toy_rows(4, 2)
    verdicts = {
        RejectionVerifier(7).verify(chain_draft(q, 5), LogitRows(p, Sampling(7), HistoryBuffer([])))
        for _ in range(5)
    }
    assert len(verdicts) == 1


def test_a_draft_from_the_target_itself_always_stands() -> None:
    p = toy_rows(5, 3)
    for trial in range(300):
        target = LogitRows(p, Sampling(trial), HistoryBuffer([]))
        verdict = RejectionVerifier(trial).verify(chain_draft(p[:2], trial), target)
        assert verdict.path == (0, 1)


def test_typical_acceptance_keeps_the_longest_plausible_path() -> None:
    even = np.zeros((4, SIZE), np.float32)
    even[:, 8:] = -np.inf  # eight tokens of probability 1/8: the threshold is 0.3/8
    target = LogitRows(even, Sampling(1), HistoryBuffer([]))
    draft = Draft((9, 2, 3), (-1, -1, 1))
    verdict = TypicalVerifier().verify(draft, target)
    assert verdict.path == (1, 2)
    assert verdict.token == target.choose(3, (2, 3))
    sharp = np.where(np.arange(SIZE) == 5, 9, 0).astype(np.float32)[None].repeat(2, axis=0)
    refused = TypicalVerifier().verify(
        Draft.chain([4]), LogitRows(sharp, Sampling(1), HistoryBuffer([]))
    )
    assert refused.path == ()


def test_typical_acceptance_prefers_the_likelier_of_two_paths() -> None:
    row = np.array([0, 0.5, 1], np.float32)
    target = LogitRows(np.stack([row] * 4), Sampling(1), HistoryBuffer([]))
    verdict = TypicalVerifier().verify(Draft((1, 2, 2), (-1, -1, -1)), target)
    assert verdict.path == (1,)
