"""Laws of drafters: what lookup copies, and what every drafter in the table keeps to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from edgegen.errors import InputError
from edgegen.runtime.drafters import DRAFTERS
from edgegen.runtime.drafters.base import Context, Materials
from edgegen.runtime.drafters.lookup import Lookup
from edgegen.runtime.drafters.suffix import Suffix

END = 0


def copied(source: Sequence[int], tokens: Sequence[int], limit: int = 4) -> tuple[int, ...]:
    lookup = Lookup(frozenset([END]))
    draft = lookup.draft(Context(source=source, tokens=tokens), limit)
    assert draft.is_chain
    return draft.tokens


def by_search(
    source: Sequence[int], tokens: Sequence[int], limit: int, longest: int = 3
) -> tuple[int, ...]:
    """The same by plain search: longest first, output before source, from the end back."""
    for size in range(longest, 0, -1):
        tail = list(tokens[-size:])
        for hay in (list(tokens), list(source)):
            for start in range(len(hay) - size - 1, -1, -1):
                if len(tail) == size and hay[start : start + size] == tail:
                    found = hay[start + size :]
                    while hay == list(tokens) and len(found) < limit:
                        found += found[: limit - len(found)]
                    return up_to_end(found[:limit])
    return ()


def up_to_end(tokens: Sequence[int]) -> tuple[int, ...]:
    for place, token in enumerate(tokens):
        if token == END:
            return tuple(tokens[: place + 1])
    return tuple(tokens)


def test_lookup_copies_from_the_source() -> None:
    assert copied([5, 6, 7, 8, 9, END], [1, 6]) == (7, 8, 9, END)


def test_the_longest_match_wins() -> None:
    assert copied([5, 6, 7, 9, 6, 8], [1, 5, 6], 1) == (7,)


def test_the_most_recent_match_wins_on_ties() -> None:
    assert copied([6, 7, 6, 8], [1, 6], 1) == (8,)
    assert copied([6, 7], [6, 9, 2, 6], 1) == (9,)


def test_the_newest_tokens_never_match_themselves() -> None:
    assert copied([], [1, 2, 3]) == ()
    assert copied([7], [7]) == ()


def test_no_match_is_no_draft() -> None:
    assert copied([5, 6], [1, 2]) == ()
    assert copied([], []) == ()
    assert copied([5, 6], [5], 0) == ()


def test_nothing_is_drafted_past_an_end_token_or_the_source() -> None:
    assert copied([6, END, 7, 8], [1, 6]) == (END,)
    assert copied([6, 7], [1, 6]) == (7,)


def test_a_loop_is_drafted_at_full_length() -> None:
    assert copied([], [4, 5, 4, 5, 4], 5) == (5, 4, 5, 4, 5)


def test_growing_token_by_token_finds_what_a_search_finds() -> None:
    random = np.random.default_rng(0)
    for trial in range(60):
        source = random.integers(0, 5, 20).tolist()
        text = random.integers(1, 5, 40).tolist()
        lookup, limit = Lookup(frozenset([END])), trial % 7
        length = 1
        while length <= len(text):
            draft = lookup.draft(Context(source=source, tokens=text[:length]), limit)
            assert draft.tokens == by_search(source, text[:length], limit)
            lookup.commit(length)
            length += 1 + int(random.integers(0, 4))


def test_lookup_of_impossible_sizes_is_refused() -> None:
    with pytest.raises(InputError, match="shortest <= longest"):
        Lookup(longest=2, shortest=3)


def test_lookup_and_suffix_propose_alike_where_both_are_sure() -> None:
    """Longest match, most recent on ties: one by a table of n-grams, one by an automaton."""
    random = np.random.default_rng(2)
    for kinds in (2, 4, 9):
        for _ in range(25):
            source = random.integers(0, kinds, 25).tolist()
            text = random.integers(1, kinds, 60).tolist()
            lookup, suffix = Lookup(frozenset([END]), longest=64), Suffix(frozenset([END]))
            for length in range(1, len(text) + 1, 1 + int(random.integers(0, 3))):
                context = Context(source=source, tokens=text[:length])
                long, short = lookup.draft(context, 64), suffix.draft(context, 64)
                assert short.evidence == long.evidence
                # The automaton's draft is as long as its match is strong.
                assert short.tokens == long.tokens[: 1 + 4 * long.evidence][:40]


# Drafters that need no weights; those that do are tried with theirs.
FREE = (*(name for name in DRAFTERS if name not in ("model", "auto")), "suffix+recycling")


@pytest.mark.parametrize("name", FREE)
def test_a_drafter_keeps_to_its_limit_and_says_its_class(name: str) -> None:
    kind = DRAFTERS[name]
    assert kind.lossless in ("greedy-identical", "sample-identical", "distribution-identical")
    drafter = kind.make(Materials(ends=frozenset([END]), vocabulary=9))
    text = np.random.default_rng(1).integers(1, 4, 60).tolist()
    for length in range(1, 60):
        for limit in (0, 1, 6):
            draft = drafter.draft(Context(source=[1, 2, 3], tokens=text[:length]), limit)
            assert len(draft) <= limit
            assert not any(draft.tokens[parent] == END for parent in draft.parents if parent >= 0)
            assert all(0 <= token < 9 for token in draft.tokens)
        drafter.commit(length)
