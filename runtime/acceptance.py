"""How likely a draft's nodes are to stand, learnt from those that did."""

from __future__ import annotations

from collections.abc import Sequence

from .verify import Draft

# Observations fade by this factor with each new one of their kind: the last 30 or so count.
FADE = 0.97
# A guess counts as much as this many observations.
WEIGHT = 6.0
# What a drafter's draft is worth before anything was seen; one that cannot tell how good it is.
GUESS = 0.5
STRONGEST = 8
VOICE = 16


class Acceptance:
    """Chances by the draft's evidence, the node's level in the tree, and its rank among siblings.

    A chance is that of a node whose parent stood. Levels share statistics in groups that double in
    size (1, 2, 3-4, 5-8...); a level never seen starts from the one above it. So do evidences: a
    longer match is first taken to be as good as the shorter ones were, or better.
    """

    def __init__(self) -> None:
        # (kind, level group, rank) -> [stood, tried], both faded.
        self._seen: dict[tuple[int, int, int], list[float]] = {}
        self._chains: dict[int, list[float]] = {}

    def chain(self, kind: int, count: int) -> Sequence[float]:
        """At least ``count`` numbers: the chance that a chain stands down to each of its nodes."""
        found = self._chains.get(kind)
        if found is None or len(found) < count:
            found = self._chains[kind] = []
            reach, chance, group = 1.0, 0.0, -1
            for level in range(max(count, 1)):
                if level.bit_length() != group:
                    group = level.bit_length()
                    chance = self._chance(kind, group, 0)
                reach *= chance
                found.append(reach)
        return found

    def nodes(self, draft: Draft) -> Sequence[float]:
        """For each node the chance that its whole path stands."""
        if draft.is_chain:
            return self.chain(kind_of(draft), len(draft))
        kind = kind_of(draft)
        reach: list[float] = []
        for (level, rank), parent in zip(places(draft), draft.parents, strict=True):
            above = reach[parent] if parent >= 0 else 1.0
            reach.append(above * self._chance(kind, level.bit_length(), rank))
        return reach

    def observe(self, draft: Draft, path: Sequence[int]) -> None:
        """``path`` are the nodes that stood; their siblings and the last one's children did not."""
        kind = kind_of(draft)
        if draft.is_chain:
            self._count_chain(kind, len(path), len(draft))
        else:
            stood = set(path)
            visited = {-1, *path}
            for node, (level, rank) in enumerate(places(draft)):
                if draft.parents[node] in visited:
                    self._count((kind, level.bit_length(), rank), node in stood, 1)
        for stronger in range(kind, (kind // VOICE + 1) * VOICE):
            self._chains.pop(stronger, None)

    def _count_chain(self, kind: int, depth: int, length: int) -> None:
        """The first ``depth`` nodes stood, the next one, where there is one, fell."""
        tried, group, start = min(depth + 1, length), 0, 0
        while start < tried:
            end = min(1 << group, tried)
            self._count((kind, group, 0), min(depth, end) - start, end - start)
            group, start = group + 1, 1 << group

    def _count(self, key: tuple[int, int, int], stood: int, tried: int) -> None:
        entry = self._seen.setdefault(key, [0.0, 0.0])
        kept = FADE**tried
        entry[0] = entry[0] * kept + stood
        entry[1] = entry[1] * kept + tried

    def _chance(self, kind: int, group: int, rank: int) -> float:
        stood, tried = self._seen.get((kind, group, rank), (0.0, 0.0))
        return (stood + WEIGHT * self._guess(kind, group, rank)) / (tried + WEIGHT)

    def _guess(self, kind: int, group: int, rank: int) -> float:
        if rank:
            return (1.0 - self._chance(kind, group, 0)) / (rank + 2)
        if group:
            return self._chance(kind, group - 1, 0)
        evidence = kind % VOICE
        if not evidence:
            return GUESS
        weaker = self._chance(kind - 1, 0, 0) if evidence > 1 else 0.0
        return max(weaker, 1.0 - 0.5 ** min(evidence, 3))


def kind_of(draft: Draft) -> int:
    """What a draft is counted under: its evidence, apart for each voice."""
    return draft.voice * VOICE + min(draft.evidence, STRONGEST)


def places(draft: Draft) -> list[tuple[int, int]]:
    """Of each node: its level, 0 below the root, and how many siblings come before it."""
    found: list[tuple[int, int]] = []
    children: dict[int, int] = {}
    for parent in draft.parents:
        rank = children.get(parent, 0)
        children[parent] = rank + 1
        found.append((found[parent][0] + 1 if parent >= 0 else 0, rank))
    return found
