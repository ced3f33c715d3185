"""Laws of drafters that copy: the automaton, the corpus, and the pointer into the source."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from edgegen.runtime.drafters.aggressive import Aggressive
from edgegen.runtime.drafters.automaton import SuffixAutomaton
from edgegen.runtime.drafters.base import Context, Drafter
from edgegen.runtime.drafters.suffix import HANDICAP, Corpus, Suffix
from edgegen.runtime.opening import load
from edgegen.runtime.options import GenerationOptions
from edgegen.runtime.verify import Draft

END = 0


def longest_earlier_suffix(text: Sequence[int]) -> tuple[int, int]:
    """Length and the place after the most recent earlier occurrence, by plain search."""
    for size in range(len(text) - 1, 0, -1):
        for start in range(len(text) - size - 1, -1, -1):
            if list(text[start : start + size]) == list(text[-size:]):
                return size, start + size
    return 0, 0


@pytest.mark.parametrize("kinds", [2, 3, 8])
def test_the_automaton_finds_the_longest_most_recent_repeat(kinds: int) -> None:
    random = np.random.default_rng(kinds)
    for _ in range(20):
        text, automaton = [int(i) for i in random.integers(0, kinds, 60)], SuffixAutomaton()
        for at, token in enumerate(text):
            automaton.append(token)
            length, place = longest_earlier_suffix(text[: at + 1])
            assert automaton.match_length == length
            if length:
                assert automaton.match_place == place


@pytest.mark.parametrize("text", [[1] * 500, [1, 2] * 250, list(range(500)), [1, 2, 1, 1, 2] * 100])
def test_the_automaton_is_linear_in_its_text(text: list[int]) -> None:
    automaton = SuffixAutomaton()
    for token in text:
        automaton.append(token)
    assert len(automaton.next) <= 2 * len(text)
    assert sum(map(len, automaton.next)) <= 3 * len(text)


def test_following_another_text_finds_its_longest_substring_here() -> None:
    random = np.random.default_rng(4)
    here, there = random.integers(0, 4, 80).tolist(), random.integers(0, 5, 80).tolist()
    automaton = SuffixAutomaton()
    for token in here:
        automaton.append(token)
    spelled = {tuple(here[a:b]) for a in range(80) for b in range(a + 1, 81)}
    state = matched = 0
    for at, token in enumerate(there):
        state, matched = automaton.follow(state, matched, token)
        wanted = next(
            size for size in range(at + 1, -1, -1)
            if not size or tuple(there[at + 1 - size : at + 1]) in spelled
        )  # fmt: skip
        assert matched == wanted


def drafted(drafter: Drafter, source: Sequence[int], tokens: Sequence[int], limit: int) -> Draft:
    return drafter.draft(Context(source=source, tokens=tokens), limit)


def test_a_suffix_draft_grows_with_its_match() -> None:
    source = [*range(10, 90), END]
    for matched in (1, 2, 5, 9):
        tokens = [1, *range(20, 20 + matched)]
        found = drafted(Suffix(frozenset([END])), source, tokens, 64).tokens
        assert found == tuple(range(20 + matched, 20 + matched + 1 + 4 * matched))
    assert len(drafted(Suffix(), source, [1, *range(20, 40)], 64)) == 40
    assert len(drafted(Suffix(), source, [1, *range(20, 40)], 3)) == 3


def test_a_corpus_is_copied_only_when_it_matches_much_longer() -> None:
    corpus = Corpus([[7, 7, 7], [*range(30, 60)]])
    for extra in range(1, 9):
        # The newest token also occurs in the source, followed by something else.
        newest = 30 + extra
        tokens = [1, *range(31, newest + 1)]
        found = drafted(Suffix(frozenset([END]), corpus), [newest, 99, END], tokens, 2).tokens
        assert found == ((newest + 1, newest + 2) if extra - HANDICAP > 1 else (99, END))


def test_a_corpus_draft_ends_with_its_document_or_an_end_token() -> None:
    corpus = Corpus([list(range(10, 20)), list(range(20, 30))])
    tokens = [1, *range(11, 18)]
    assert drafted(Suffix(corpus=corpus), [], tokens, 9).tokens == (18, 19)
    assert drafted(Suffix(frozenset([18]), corpus), [], tokens, 9).tokens == (18,)


def test_a_corpus_file_is_read_once_in_the_target_s_ids_and_saves_calls(
    tiny_t5_bundle: Path, tmp_path: Path
) -> None:
    """The text to come is in the file; a byte order mark before it is not of the text."""
    options = GenerationOptions(max_new_tokens=40, min_new_tokens=40, do_sample=True, seed=3)
    drafting = options.with_changes(draft="suffix", num_assistant_tokens=8)
    with load(tiny_t5_bundle) as pipeline:
        plain = pipeline.generate("ba bin dor", options.with_changes(draft="none"))
        alone = pipeline.generate("ba bin dor", drafting)
    file = tmp_path / "corpus.txt"
    file.write_text(f"dor dor dor {plain.text}", encoding="utf-8-sig")
    with load(tiny_t5_bundle, corpus=file) as pipeline:
        corpus = pipeline.engine.corpus
        copied = pipeline.generate("ba bin dor", drafting)
        assert corpus is not None and pipeline.engine.corpus is corpus
    assert corpus.tokens[:3] == [corpus.tokens[0]] * 3
    assert tuple(corpus.tokens[3:43]) == plain.tokens
    assert copied.tokens == alone.tokens == plain.tokens
    assert len(copied.timings.steps) < 0.75 * len(alone.timings.steps)


# ------------------------------------------------------------------ aggressive


def calls_to_write(drafter: Drafter, source: Sequence[int], text: Sequence[int], limit: int) -> int:
    """Decode calls a target that writes ``text`` needs with this drafter."""
    tokens, calls = [1], 0
    while len(tokens) <= len(text):
        draft, node, new = drafted(drafter, source, tokens, limit), -1, list[int]()
        assert len(draft) <= limit
        while True:
            token = text[len(tokens) + len(new) - 1]
            new.append(token)
            last = len(tokens) + len(new) > len(text)
            child = [
                i for i, parent in enumerate(draft.parents)
                if parent == node and draft.tokens[i] == token
            ]  # fmt: skip
            if last or not child:
                break
            node = child[0]
        tokens += new
        calls += 1
        drafter.commit(len(tokens) - 1)
    return calls


def test_the_whole_rest_of_the_source_is_drafted() -> None:
    source = [*range(10, 40), END]
    assert drafted(Aggressive(frozenset([END])), source, [1], 64).tokens == tuple(source)
    drafter = Aggressive(frozenset([END]))
    assert drafted(drafter, source, [1], 8).tokens == tuple(range(10, 18))
    assert drafted(drafter, source, [1, *range(10, 19)], 8).tokens == tuple(range(19, 27))


EDITS = {
    "one replaced": ([5], [90]),
    "three by one": ([5, 6, 7], [90]),
    "one by two": ([5], [90, 91]),
    "one left out": ([5], []),
    "four left out": ([5, 6, 7, 8], []),
    "one put in": ([], [90]),
    "three put in": ([], [90, 91, 92]),
    "swapped": ([5, 6], [6, 5]),
}


@pytest.mark.parametrize("edit", EDITS)
def test_after_an_edit_the_copy_goes_on_within_three_calls(edit: str) -> None:
    """Of calls, two are needed without any edit; an inserted token is one the target must write."""
    old, new = EDITS[edit]
    source = [*range(20, 35), *old, *range(40, 60), END]
    text = [*range(20, 35), *new, *range(40, 60), END]
    assert calls_to_write(Aggressive(frozenset([END])), source, text, 32) <= 2 + 3 + len(new)


def test_repeated_words_do_not_lead_the_pointer_astray() -> None:
    """A word of the correction occurs again far ahead: the copy goes on here, not there."""
    source = [20, 21, 5, 22, 23, 24, 25, 26, 27, 28, 90, 29, 30, 31, END]
    text = [20, 21, 90, 22, 23, 24, 25, 26, 27, 28, 90, 29, 30, 31, END]
    assert calls_to_write(Aggressive(frozenset([END])), source, text, 32) <= 4


def test_settled_places_only_move_forward() -> None:
    random = np.random.default_rng(6)
    for _ in range(20):
        source = random.integers(2, 12, 60).tolist()
        text = [t for t in source if random.random() > 0.1]
        text = [t if random.random() > 0.1 else int(random.integers(2, 12)) for t in text]
        drafter, tokens, places = Aggressive(frozenset([END])), [1], list[tuple[int, int]]()
        for token in text:
            drafted(drafter, source, tokens, 8)
            places.append(drafter.settled)
            tokens.append(token)
        assert all(
            a <= b for first, then in pairwise(places) for a, b in zip(first, then, strict=True)
        )
        assert places[-1][0] > 20


def test_an_edited_copy_costs_far_fewer_calls_than_tokens() -> None:
    """An edit every twelve tokens of a text of many words: five tokens a call at the least."""
    random = np.random.default_rng(8)
    source = [int(i) for i in random.integers(2, 500, 600)]
    text = list[int]()
    for at, token in enumerate(source):
        kind = int(random.integers(0, 3)) if at % 12 == 11 else 3
        text += ([], [token, 900 + at], [900 + at], [token])[kind]
    assert calls_to_write(Aggressive(), source, text, 16) < len(text) / 5


def test_without_a_source_the_prompt_is_edited() -> None:
    prompt = [3, 4, *range(20, 40), 5]
    drafter = Aggressive(frozenset([END]))
    drafted(drafter, [], prompt, 8)
    assert drafted(drafter, [], [*prompt, 20, 21], 8).tokens == tuple(range(22, 30))


def test_where_another_may_speak_nothing_is_guessed() -> None:
    source = [*range(10, 40), END]
    alone, followed = Aggressive(), Aggressive(guesses=False)
    for drafter in (alone, followed):
        drafted(drafter, source, [1], 8)
    assert len(drafted(alone, source, [1, 10, 11, 99], 8))
    assert not len(drafted(followed, source, [1, 10, 11, 99], 8))
