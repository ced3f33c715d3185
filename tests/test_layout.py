"""Only rows laid as plain decoding lays them decide, and no token of a tree is lost by it."""

from __future__ import annotations

from edgegen.runtime.layout import decided, spine_first
from edgegen.runtime.verify import Draft, Verdict

# a -> (b -> c), d -> e : written breadth first
TREE = Draft((1, 4, 2, 5, 3), (-1, -1, 0, 1, 2))


def test_the_path_of_first_children_comes_first_and_every_path_stays() -> None:
    laid = spine_first(TREE)
    assert laid.tokens[:3] == (1, 2, 3)
    assert laid.parents[:3] == (-1, 0, 1)

    def texts(tree: Draft) -> set[tuple[int, ...]]:
        return {tuple(tree.tokens[i] for i in tree.path_to(n)) for n in range(len(tree))}

    assert texts(laid) == texts(TREE)


def test_a_chain_and_nothing_stay_as_they_are() -> None:
    chain = Draft.chain((1, 2, 3))
    assert spine_first(chain) is chain
    assert len(spine_first(Draft())) == 0


def test_a_path_on_the_spine_is_decided_whole() -> None:
    verdict = Verdict((0, 1, 2), 9)
    assert decided(spine_first(TREE), verdict) == (verdict, ())


def test_a_path_off_the_spine_ends_with_its_first_token_and_the_rest_is_drafted() -> None:
    laid = spine_first(TREE)
    node = next(n for n in range(len(laid)) if laid.tokens[n] == 5)
    verdict, left = decided(laid, Verdict(laid.path_to(node), 9))
    assert verdict == Verdict((), 4)
    assert left == (5, 9)
