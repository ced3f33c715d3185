"""Laws of drafters that learn from the target's scores, of their trees, and of combinations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import exp, log
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from fakes import ToyTarget
from numpy.typing import NDArray

from edgegen.errors import InputError, UnknownName
from edgegen.runtime.drafters import DRAFTERS
from edgegen.runtime.drafters.base import Context, Drafter, Materials, Rows
from edgegen.runtime.drafters.combined import Combined, combination
from edgegen.runtime.drafters.growth import grow
from edgegen.runtime.drafters.lookup import Lookup
from edgegen.runtime.drafters.mcts import SearchedTrigram
from edgegen.runtime.drafters.recycling import Recycling
from edgegen.runtime.drafters.topk import FOLDS, top_rows
from edgegen.runtime.drafters.trigram import SUCCESSORS, Trigram
from edgegen.runtime.verify import Draft, Lossless

END, VOCABULARY = 0, 24
LEARNERS = ("recycling", "trigram", "trigram-mcts")


def made(name: str, store: Path | None = None, vocabulary: int = VOCABULARY) -> Drafter:
    materials = Materials(ends=frozenset([END]), vocabulary=vocabulary, store=store)
    return DRAFTERS[name].make(materials)


def rows_of(target: ToyTarget, tokens: Sequence[int], draft: Draft) -> Rows:
    return Rows(root=len(tokens) - 1, draft=draft, logits=target.rows(tokens, draft))


def written(
    drafter: Drafter, target: ToyTarget, prompt: Sequence[int], new: int, limit: int = 8
) -> tuple[list[int], int]:
    """The greedy text of a toy model and the calls it took."""
    tokens, calls, rows = list(prompt), 0, None
    while len(tokens) < len(prompt) + new:
        draft = drafter.draft(Context(source=(), tokens=tokens, rows=rows), limit)
        assert len(draft) <= limit
        rows = rows_of(target, tokens, draft)
        node = -1
        while True:
            token = int(rows.logits[1 + node].argmax())
            tokens.append(token)
            children = [
                i for i, parent in enumerate(draft.parents)
                if parent == node and draft.tokens[i] == token
            ]  # fmt: skip
            if not children:
                break
            node = children[0]
        calls += 1
        drafter.commit(len(tokens) - 1)
    return tokens[: len(prompt) + new], calls


# ----------------------------------------------------------------------- top-k


@pytest.mark.parametrize("vocabulary", [3, 8, 100, FOLDS * 8, FOLDS * 9 + 5, 5000])
def test_top_rows_are_those_of_a_full_sort(vocabulary: int) -> None:
    logits = np.random.default_rng(0).permuted(
        np.arange(4 * vocabulary, dtype=np.float32).reshape(4, vocabulary), axis=1
    )
    found = top_rows(logits, 8)
    assert (found == np.argsort(-logits, axis=1)[:, :8]).all()


def test_top_rows_of_ties_have_the_largest_values() -> None:
    logits = np.random.default_rng(1).integers(0, 4, (5, 2000)).astype(np.float32)
    values: NDArray[np.float32] = np.take_along_axis(logits, top_rows(logits, 8), axis=1)
    assert (values == -np.sort(-logits, axis=1)[:, :8]).all()
    assert all(len(set(row)) == 8 for row in top_rows(logits, 8).tolist())


# ----------------------------------------------------------------------- trees


def test_growth_takes_the_likeliest_of_all_paths() -> None:
    chances = {0: 0.6, 1: 0.3, 2: 0.1}
    weights = {path: exp(sum(log(chances[i]) for i in path))
               for size in range(1, 7) for path in product(chances, repeat=size)}  # fmt: skip

    def after(path: tuple[int, ...]) -> list[tuple[int, float, tuple[int, ...]]]:
        return [(i, log(chance), (*path, i)) for i, chance in chances.items()]

    start: tuple[int, ...] = ()
    for limit in (1, 2, 5, 9):
        draft = grow(start, after, limit, frozenset())
        paths = [tuple(draft.tokens[i] for i in draft.path_to(node)) for node in range(len(draft))]
        assert len(set(paths)) == limit
        best = sorted(weights.values(), reverse=True)[:limit]
        assert [weights[path] for path in paths] == pytest.approx(best)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_tree_repeats_no_sibling_and_nothing_follows_an_end(name: str) -> None:
    random, drafter = np.random.default_rng(3), made(name)
    tokens = random.integers(0, 6, 200).tolist()
    for length in range(2, 200):
        draft = drafter.draft(Context(source=(), tokens=tokens[:length]), 12)
        edges = list(zip(draft.parents, draft.tokens, strict=True))
        assert len(set(edges)) == len(edges)
        assert all(draft.tokens[parent] != END for parent in draft.parents if parent >= 0)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_limit_of_nothing_still_teaches(name: str) -> None:
    drafter, target = made(name), ToyTarget(VOCABULARY)
    rows = rows_of(target, [5, 6], Draft())
    shown = Context(source=(), tokens=[5, 6, 7], rows=rows)
    assert not len(drafter.draft(shown, 0))
    again = drafter.draft(Context(source=(), tokens=[5, 6, 7, 5, 6]), 4)
    assert int(rows.logits[0].argmax()) in again.tokens


def test_rejected_rows_teach_recycling_and_rows_that_stand_have_the_last_word() -> None:
    draft = Draft((11, 12, 11), (-1, -1, 1))  # of which 12, then 11 will stand
    logits = np.zeros((4, VOCABULARY), np.float32)
    for row, best in enumerate((12, 20, 11, 21)):
        logits[row, best] = 1
    logits[0, 11] = 0.5
    drafter = Recycling(frozenset([END]), VOCABULARY)
    rows = Rows(root=0, draft=Draft((11, 12, 13), (-1, -1, 1)), logits=logits)
    drafter.draft(Context(source=(), tokens=[5, 12, 11], rows=rows), 0)
    assert drafter.table[5][:2] == [12, 11]
    assert drafter.table[11][0] == 20  # a rejected node's row
    assert drafter.table[12][0] == 11
    rows = Rows(root=0, draft=draft, logits=logits)
    drafter.draft(Context(source=(), tokens=[5, 12, 11, 4], rows=rows), 0)
    assert drafter.table[11][0] == 21  # rejected 11 said 20, the 11 that stands said 21


def test_accepted_nodes_are_found_along_the_text() -> None:
    draft = Draft((3, 4, 5, 5, 6), (-1, -1, 0, 1, 3))
    rows = Rows(root=1, draft=draft, logits=np.zeros((6, 9), np.float32))
    assert rows.accepted([1, 2, 4, 5, 6, 8]) == [1, 3, 4]
    assert rows.accepted([1, 2, 4, 7]) == [1]
    assert rows.accepted([1, 2, 7]) == []


# --------------------------------------------------------------------- learning


@pytest.mark.parametrize("name", ["trigram", "trigram-mcts", "recycling"])
def test_a_learning_drafter_changes_no_token(name: str) -> None:
    target = ToyTarget(VOCABULARY, seed=2)
    text, _ = written(made("none"), target, [1, 2], 80)
    assert written(made(name), target, [1, 2], 80)[0] == text


@pytest.mark.parametrize("name", ["trigram", "trigram-mcts"])
def test_a_text_met_again_is_written_a_fifth_faster_at_least(name: str, tmp_path: Path) -> None:
    target, calls = ToyTarget(200, seed=4), []
    for _ in range(10):
        drafter = made(name, tmp_path, vocabulary=200)
        calls.append(written(drafter, target, [1, 2], 60)[1])
        assert isinstance(drafter, Trigram)
        drafter.save()
    assert 60 / calls[-1] > 1.2 * (60 / calls[0])


def test_a_trigram_table_stays_bounded() -> None:
    drafter, random = Trigram(frozenset([END]), 1000, pairs=50), np.random.default_rng(0)
    tokens = random.integers(1, 1000, 3000).tolist()
    drafter.draft(Context(source=(), tokens=tokens), 4)
    assert len(drafter.table) == 50
    for after in range(100):
        drafter.learn((1, 2), {after: 1.0}, 0.3)
    assert len(drafter.table[1, 2]) == SUCCESSORS


def test_weights_of_a_row_are_chances_and_forget() -> None:
    drafter = Trigram()
    for _ in range(200):
        drafter.learn((1, 2), {3: 1.0}, 0.3)
    assert drafter.table[1, 2][3] == pytest.approx(1.0)
    for _ in range(10):
        drafter.learn((1, 2), {4: 0.5, 5: 0.5}, 0.3)
    row = drafter.table[1, 2]
    assert row[3] < 0.05
    assert sum(row.values()) <= 1 + 1e-9
    assert row[4] == pytest.approx(row[5]) == pytest.approx(0.5, abs=0.05)


def test_a_trigram_draft_starts_from_the_source() -> None:
    drafter = Trigram(frozenset([END]), VOCABULARY)
    context = Context(source=[5, 6, 7, 8, END], tokens=[1, 5, 6])
    assert drafter.draft(context, 8).tokens == (7, 8, END)


def test_search_and_growth_agree_on_what_is_certain() -> None:
    context = Context(source=[5, 6, 7, 8, 9, END], tokens=[1, 5, 6])
    draft = SearchedTrigram(frozenset([END]), VOCABULARY).draft(context, 4)
    assert draft.tokens == (7, 8, 9, END)
    assert draft.is_chain


@pytest.mark.parametrize("name", ["recycling", "trigram"])
def test_a_table_is_read_as_it_was_written(name: str, tmp_path: Path) -> None:
    target, first = ToyTarget(VOCABULARY), made(name, tmp_path)
    assert isinstance(first, Recycling | Trigram)
    written(first, target, [1, 2], 60)
    first.save()
    again = made(name, tmp_path)
    assert isinstance(again, Recycling | Trigram)
    assert list(again.table) == list(first.table)
    rows = [[list(row) for row in one.table.values()] for one in (first, again)]
    assert rows[0] == rows[1]
    assert len(again.draft(Context(source=(), tokens=[1, 2]), 6))
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".part"]


@pytest.mark.parametrize("name", ["recycling", "trigram"])
def test_a_table_of_another_bundle_or_damaged_is_refused_in_one_line(
    name: str, tmp_path: Path
) -> None:
    drafter = made(name, tmp_path)
    assert isinstance(drafter, Recycling | Trigram)
    written(drafter, ToyTarget(VOCABULARY), [1, 2], 60)
    drafter.save()
    with pytest.raises(InputError, match="belongs to another bundle: delete it"):
        made(name, tmp_path, vocabulary=3)
    file = tmp_path / f"{name}.npz"
    whole = file.read_bytes()
    other = "trigram" if name == "recycling" else "recycling"
    (tmp_path / f"{other}.npz").write_bytes(whole)
    for broken in (whole[: len(whole) // 2], b"", b"not an archive"):
        file.write_bytes(broken)
        with pytest.raises(InputError, match="delete it") as caught:
            made(name, tmp_path)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="delete it"):
        made(other, tmp_path)


@pytest.mark.parametrize("name", ["recycling", "trigram"])
def test_without_a_store_nothing_is_written(name: str, tmp_path: Path) -> None:
    drafter = made(name)
    assert isinstance(drafter, Recycling | Trigram)
    drafter.save()
    assert not list(tmp_path.iterdir())


# ----------------------------------------------------------------- combinations


class Says:
    """Always the same."""

    lossless: ClassVar[Lossless] = "sample-identical"
    wants: ClassVar[tuple[str, ...]] = ()
    words: tuple[int, ...] = ()

    def __init__(self) -> None:
        self.limits: list[int] = []
        self.commits: list[int] = []

    @classmethod
    def make(cls, materials: Materials) -> Says:
        drafter = cls()
        drafter.followed = materials.followed
        return drafter

    followed = False

    def draft(self, context: Context, limit: int) -> Draft:
        self.limits.append(limit)
        return Draft.chain(self.words[:limit])

    def commit(self, length: int) -> None:
        self.commits.append(length)


class Silent(Says):
    lossless: ClassVar[Lossless] = "greedy-identical"
    wants = ("hidden",)


class Talks(Says):
    words = (5, 6)
    wants = ("topk", "hidden")


class Shouts(Says):
    words = (7, 8)


def test_the_first_with_something_to_say_speaks_and_all_look_on() -> None:
    kind = combination([Silent, Talks, Shouts])
    drafter = kind.make(Materials(ends=frozenset([END]), vocabulary=9))
    assert isinstance(drafter, Combined)
    assert drafter.draft(Context(source=(), tokens=[1]), 2).tokens == (5, 6)
    drafter.commit(1)
    parts = [part for part in drafter.drafters if isinstance(part, Says)]
    assert [part.limits for part in parts] == [[2], [2], [0]]
    assert [part.commits for part in parts] == [[1], [1], [1]]
    assert [part.followed for part in parts] == [True, True, False]


def test_a_combination_is_as_lossless_as_its_weakest_and_wants_what_all_want() -> None:
    kind = combination([Shouts, Silent, Talks])
    assert kind.lossless == "greedy-identical"
    assert getattr(kind, "wants", None) == ("hidden", "topk")


@pytest.mark.parametrize("name", ["lookup+", "+", "lookup+none", "lookup+lookup", "lookup+lokup"])
def test_a_combination_of_what_is_none_is_refused(name: str) -> None:
    assert name not in DRAFTERS
    with pytest.raises(UnknownName, match="unknown drafter"):
        DRAFTERS[name]


def test_any_drafters_combine_by_name() -> None:
    drafter = made("lookup+trigram+recycling")
    assert isinstance(drafter, Combined)
    assert [type(part) for part in drafter.drafters] == [Lookup, Trigram, Recycling]
