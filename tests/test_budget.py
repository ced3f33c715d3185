"""auto wins where drafts stand, declines where they fall, and its losses are bounded by its table.

Texts are replayed against tables of costs, so no clock is involved. ``traces/requests.json`` holds
what plain greedy decoding wrote for real requests: a translation model, a proofreader, and a
decoder-only model asked to copy sentences and to write freely.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from fakes import Adversary
from hypothesis import given, settings
from hypothesis import strategies as st
from replay import Spent, Trace, replay

from edgegen.runtime.acceptance import STRONGEST, Acceptance
from edgegen.runtime.auto import FILL, KEEP, START, Auto, Experience
from edgegen.runtime.budget import Budget, Facts, Fixed
from edgegen.runtime.calibration import ROWS, Costs
from edgegen.runtime.drafters import DRAFTERS
from edgegen.runtime.drafters.base import Context, Drafter, Materials
from edgegen.runtime.verify import Draft

TRACES: dict[str, list[Trace]] = {
    kind: [Trace(**one) for one in found]
    for kind, found in json.loads(
        (Path(__file__).parent / "traces" / "requests.json").read_text()
    ).items()
}


def table(*milliseconds: float) -> Costs:
    return Costs(ROWS, tuple(1e-3 * one for one in milliseconds))


# Measured on one thread, but for the last: what a processor with no use for more rows would do.
TABLES = {
    "proofreader, 8 bits": table(0.28, 0.36, 0.48, 0.52, 0.64, 0.75, 1.06, 1.48, 1.88, 2.49),
    "translator, 8 bits": table(0.49, 0.66, 0.85, 1.0, 1.3, 1.75, 2.3, 3.0, 5.0, 7.0),
    "135 M, 8 bits": table(14.0, 17.0, 20.0, 23.0, 31.0, 38.0, 47.0, 58.0, 84.0, 103.0),
    "whisper base, 8 bits": table(7.3, 7.6, 8.7, 9.8, 14.0, 17.0, 20.0, 25.0, 40.0, 50.0),
    "openvino": table(3.7, 3.7, 3.8, 4.0, 4.5, 5.1, 5.6, 7.0, 9.0, 11.0),
    "flat": table(*[1.0 + 0.001 * n for n in ROWS]),
    "steep": table(*[1.0 * n for n in ROWS]),
}
ENDS = frozenset((0, 1, 2))


def drafter(name: str = "auto") -> Drafter:
    return DRAFTERS[name].make(Materials(ends=ENDS, vocabulary=50_000))


def spend(
    traces: Sequence[Trace],
    costs: Costs,
    budget: Callable[[Experience], Budget] | None = None,
    make: Callable[[], Drafter] = drafter,
    asking: float = 5e-6,
) -> list[Spent]:
    """One pipeline's requests, one after another."""
    experience = Experience(costs)
    return [
        replay(
            trace,
            make(),
            budget(experience) if budget else Auto(experience),
            costs,
            lambda nodes: asking,
        )
        for trace in traces
    ]


def loss(spent: Sequence[Spent]) -> float:
    return sum(one.seconds for one in spent) / sum(one.plain for one in spent) - 1.0


def allowed(spent: Sequence[Spent], costs: Costs) -> float:
    """The share of plain decoding's time that all requests together may lose."""
    tokens = sum(one.tokens for one in spent)
    return (FILL * tokens + START) * costs.of(1) / sum(one.plain for one in spent)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("kind", TRACES)
def test_real_requests_never_lose_three_percent(kind: str, table: str) -> None:
    spent = spend(TRACES[kind], TABLES[table])
    assert loss(spent) <= 0.03


def always(nodes: int) -> Callable[[object], Fixed]:
    """What makes a fixed budget, whatever the costs."""
    return lambda _: Fixed(nodes)


@pytest.mark.parametrize("table", ["135 M, 8 bits", "whisper base, 8 bits", "openvino", "flat"])
def test_proofreading_wins_and_comes_near_the_best_fixed_length(table: str) -> None:
    costs = TABLES[table]
    found = -loss(spend(TRACES["proofread"], costs))
    fixed = [-loss(spend(TRACES["proofread"], costs, always(nodes))) for nodes in (2, 4, 8, 16, 31)]
    assert found > 0.5
    assert 1.0 / (1.0 - found) > 0.85 / (1.0 - max(fixed))


def test_translation_is_declined() -> None:
    costs = TABLES["translator, 8 bits"]
    spent = spend(TRACES["translate"] * 5, costs)
    calls = sum(one.calls for one in spent)
    assert sum(one.drafted for one in spent) < 0.03 * calls
    assert loss(spent[len(TRACES["translate"]) :]) < 0.01


class Wrong:
    """Always proposes what never comes, and swears by it."""

    def __init__(self, evidence: int = 40) -> None:
        self.evidence = evidence

    def draft(self, context: Context, limit: int) -> Draft:
        return Draft.chain([-5] * limit, evidence=self.evidence)

    def commit(self, length: int) -> None:
        """Learns nothing."""


class Turncoat:
    """Right for a stretch, then wrong for one, at evidences of its own choosing."""

    def __init__(self, text: Sequence[int], seed: int) -> None:
        self.text, self.random = text, np.random.default_rng(seed)
        self.stretch = int(self.random.integers(3, 60))

    def draft(self, context: Context, limit: int) -> Draft:
        at = len(context.tokens)
        honest = at // self.stretch % 2 == 0
        tokens = self.text[at : at + limit] if honest else [-5] * limit
        return Draft.chain(list(tokens), evidence=int(self.random.integers(0, 12)))

    def commit(self, length: int) -> None:
        """Plans ahead."""


def text(tokens: int) -> Trace:
    return Trace(source=(), prompt=(7,), tokens=list(range(100, 100 + tokens)))


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("asking", [0.0, 1e-5, 1e-4])
def test_a_drafter_that_is_always_wrong_costs_less_than_three_percent(
    table: str, asking: float
) -> None:
    costs = TABLES[table]
    spent = spend([text(100)] * 5, costs, make=Wrong, asking=asking)
    assert loss(spent) <= 0.03 + asking / sum(one.plain for one in spent)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), table=st.sampled_from(list(TABLES)), tokens=st.integers(1, 400))
def test_no_drafter_makes_auto_lose_more_than_the_account_allows(
    seed: int, table: str, tokens: int
) -> None:
    costs, trace = TABLES[table], text(tokens)
    whole = [*trace.prompt, *trace.tokens]
    for make in (lambda: Adversary(600, seed), lambda: Turncoat(whole, seed)):
        spent = spend([trace, trace, trace], costs, make=make, asking=0.0)
        assert loss(spent) <= allowed(spent, costs) + 1e-9


def test_a_text_that_turns_into_a_copy_is_noticed() -> None:
    costs = TABLES["135 M, 8 bits"]
    source = list(range(1000, 1300))
    trace = Trace(source=source, prompt=(7,), tokens=[*range(100, 500), *source])
    (spent,) = spend([trace], costs)
    assert spent.calls < len(trace.tokens) - 150


def test_what_one_request_taught_serves_the_next() -> None:
    costs = TABLES["135 M, 8 bits"]
    experience = Experience(costs)
    trace = TRACES["proofread"][0]
    first = replay(trace, drafter(), Auto(experience), costs)
    for other in TRACES["proofread"][1:6]:
        replay(other, drafter(), Auto(experience), costs)
    later = replay(trace, drafter(), Auto(experience), costs)
    assert later.seconds <= first.seconds


def test_a_steep_table_never_drafts_for_long() -> None:
    costs = TABLES["steep"]
    spent = spend(TRACES["chat"] * 4, costs)
    assert sum(one.drafted for one in spent[4:]) < 0.05 * sum(one.calls for one in spent[4:])


def test_a_flat_table_drafts_all_it_may() -> None:
    costs, trace = TABLES["flat"], text(400)
    whole = [*trace.prompt, *trace.tokens]

    class Right(Wrong):
        def draft(self, context: Context, limit: int) -> Draft:
            at = len(context.tokens)
            return Draft.chain(whole[at : at + limit], evidence=3)

    (spent,) = spend([trace], costs, make=Right)
    assert spent.calls < 25


def test_a_count_asked_for_is_the_most() -> None:
    costs = TABLES["flat"]
    spent = spend(TRACES["proofread"][:3], costs, lambda known: Auto(known, most=3))
    for one in spent:
        assert one.drafted <= 3 * one.calls


def test_a_silent_drafter_costs_little_more_than_nothing() -> None:
    class Silent(Wrong):
        def draft(self, context: Context, limit: int) -> Draft:
            return Draft()

    costs = TABLES["proofreader, 8 bits"]
    spent = spend([text(100)] * 8, costs, make=Silent, asking=2e-5)
    assert loss(spent) < 0.015


def test_fixed_asks_for_the_same_whatever_happens() -> None:
    budget = Fixed(4)
    draft = Draft.chain([1, 2, 3, 4])
    budget.observe(
        Facts(draft=draft, path=(), kept=0, pending=1, draft_seconds=1.0, decode_seconds=1.0)
    )
    assert budget.limit(1) == 4
    assert budget.trim(draft, 1) == 4


def test_acceptance_learns_each_level_and_carries_it_down() -> None:
    known, draft = Acceptance(), Draft.chain([1, 2, 3, 4], evidence=2)
    for _ in range(200):
        known.observe(draft, (0, 1))
    reach = known.chain(2, 8)
    assert reach[0] > 0.9
    assert reach[1] > 0.8
    assert reach[2] < 0.25
    assert list(reach) == sorted(reach, reverse=True)


def test_acceptance_tells_siblings_apart() -> None:
    known = Acceptance()
    tree = Draft((1, 2, 3, 4), (-1, -1, 0, 1))
    for _ in range(200):
        known.observe(tree, (1, 3))
    first, second, below_first, below_second = known.nodes(tree)
    assert first < 0.1 < 0.8 < second
    assert below_first <= first
    assert below_second > 0.7


def test_stronger_evidence_is_not_taken_to_be_worse_before_it_was_seen() -> None:
    known = Acceptance()
    guesses = [known.chain(kind, 1)[0] for kind in range(1, STRONGEST + 1)]
    assert guesses == sorted(guesses)
    for _ in range(100):
        known.observe(Draft.chain([1], evidence=3), (0,))
    assert known.chain(4, 1)[0] > 0.95


def test_a_hiccup_at_the_first_question_does_not_silence_auto_for_good() -> None:
    """The first question of all took a second; the texts are copies, so drafts pay."""
    costs = TABLES["proofreader, 8 bits"]
    known = Experience(costs)
    drafted = 0
    for text in range(200):
        auto = Auto(known)
        for step in range(4):
            limit = auto.limit(1)
            draft = Draft.chain(range(limit))
            draft = draft.first(auto.trim(draft, 1)) if limit else draft
            drafted += len(draft)
            auto.observe(
                Facts(
                    draft=draft,
                    path=tuple(range(len(draft))),
                    kept=len(draft),
                    pending=1,
                    draft_seconds=1.0 if text == 0 and step == 0 else 1e-5,
                    decode_seconds=costs.of(1 + len(draft)),
                )
            )
    assert drafted > 200


def test_a_request_that_won_and_lost_leaves_no_debt_to_the_next() -> None:
    """What it saved pays for what fell later: a request's own account is never overdrawn."""
    costs = TABLES["proofreader, 8 bits"]
    known = Experience(costs)
    auto = Auto(known)
    for step in range(61):  # the last falls
        limit = auto.limit(1)
        draft = Draft.chain(range(limit), evidence=3)
        draft = draft.first(auto.trim(draft, 1)) if limit else draft
        kept = len(draft) if step % 5 else 0
        auto.observe(
            Facts(
                draft=draft,
                path=tuple(range(kept)),
                kept=kept,
                pending=1,
                draft_seconds=0.0,
                decode_seconds=costs.of(1 + len(draft)),
            )
        )
    assert auto.balance > KEEP * costs.of(1)
    assert Auto(known).balance == pytest.approx(KEEP * costs.of(1))


def test_a_kind_that_falls_does_not_silence_the_others() -> None:
    """Drafts cost something to propose, so what to ask for goes by the last draft's kind."""
    costs = table(0.41, 0.665, 0.68, 0.7, 0.73, 0.78, 0.86, 0.96, 1.11, 1.11)
    known = Experience(costs)
    auto, drafted = Auto(known), 0
    for step in range(3000):
        limit = auto.limit(1)
        falls = 300 <= step < 304
        draft = Draft.chain(range(limit), evidence=1 if falls else 6)
        draft = draft.first(auto.trim(draft, 1)) if limit else draft
        kept = 0 if falls else len(draft)
        drafted += len(draft) if step > 1000 else 0
        auto.observe(
            Facts(
                draft=draft,
                path=tuple(range(kept)),
                kept=kept,
                pending=1,
                draft_seconds=5e-5 + 5e-5 * limit if limit else 0.0,
                decode_seconds=costs.of(1 + len(draft)),
            )
        )
    assert drafted > 10_000
