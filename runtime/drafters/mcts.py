"""Trigram drafts found by Monte Carlo tree search, as ADED has it: slower, spread wider.

The tree policy and its constants are those of the paper's published code; the random draws are
keyed, so that a draft repeats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from ..verify import Draft
from .trigram import Bigram, Trigram

ITERATIONS, ROLLOUT = 150, 3
FIRST, SECOND = 32.0, 8.0


@dataclass(eq=False)
class Node:
    """A pair of tokens at the end of a path. ``weight`` is the chance of its last token."""

    pair: Bigram
    parent: Node | None
    weight: float
    visits: int = 0
    total: float = 0.0
    children: list[Node] = field(default_factory=list["Node"])

    @property
    def token(self) -> int:
        return self.pair[1]


class SearchedTrigram(Trigram):
    """The same table; a tree of the nodes visited most."""

    def _tree(self, root: Bigram, limit: int) -> Draft:
        random, top = Random(0), Node(root, None, 1.0)
        nodes: list[Node] = []
        for _ in range(ITERATIONS):
            leaf = top
            while leaf.children:
                leaf = max(leaf.children, key=_promise)
            leaf.children = [Node(*child) for child in self._expansion(leaf)]
            nodes += leaf.children
            score = self._rollout(leaf, random)
            at: Node | None = leaf
            while at is not None:
                at.visits += 1
                at.total += score
                at = at.parent
        # A parent is visited as often as its children at least, and was made before them.
        best = sorted(nodes, key=lambda node: -node.visits)[:limit]
        index = {top: -1} | {node: i for i, node in enumerate(best)}
        parents = tuple(index[node.parent] for node in best if node.parent is not None)
        return Draft(tuple(node.token for node in best), parents)

    def _expansion(self, leaf: Node) -> Sequence[tuple[Bigram, Node, float]]:
        if leaf.parent is not None and leaf.token in self._ends:
            return ()
        return [(pair, leaf, math.exp(score)) for _, score, pair in self._successors(leaf.pair)]

    def _rollout(self, leaf: Node, random: Random) -> float:
        """1 and the weights on the way down to the leaf, and on a drawn way on from it."""
        score, node = 1.0, leaf
        while node.parent is not None:
            score, node = score + node.weight, node.parent
        pair = leaf.pair
        for _ in range(ROLLOUT):
            following = self._successors(pair)
            if not following:
                break
            weights = [math.exp(chance) for _, chance, _ in following]
            _, chance, pair = random.choices(following, weights)[0]
            score += math.exp(chance)
        return score


def _promise(node: Node) -> float:
    """Mean score, and what a node that was tried rarely may be worth."""
    if not node.visits or node.parent is None:
        return math.inf
    parent = node.parent.visits
    spread = FIRST + math.log((parent + SECOND + 1) / SECOND)
    return node.total / node.visits + spread * node.weight * math.sqrt(parent) / (1 + node.visits)
