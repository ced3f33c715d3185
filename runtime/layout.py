"""Trees over rows that are exact only where plain decoding would lay them.

A row's attention sums over the cache's columns in order. A node whose ancestors stand right before
it sums as plain decoding does, to the bit; with a sibling in between, the same numbers are added in
other groups and the last bit may differ. So a tree is laid with its likeliest path first, only rows
of that path decide, and what the tree says beyond it is the next call's draft. Recurrent decoders
take their parent's state and need none of this.
"""

from __future__ import annotations

from .verify import Draft, Verdict


def spine_first(draft: Draft) -> Draft:
    """The same tree, the path of first children in front."""
    if draft.is_chain:
        return draft
    spine = first_path(draft)
    on_spine = frozenset(spine)
    order = [*spine, *(node for node in range(len(draft)) if node not in on_spine)]
    place = {old: new for new, old in enumerate(order)} | {-1: -1}
    return Draft(
        tuple(draft.tokens[old] for old in order),
        tuple(place[draft.parents[old]] for old in order),
        tuple(draft.distributions[old] for old in order) if draft.distributions else (),
        draft.evidence,
        draft.voice,
    )


def first_path(draft: Draft) -> list[int]:
    """The nodes one comes by from the root down, always to the first child."""
    path: list[int] = []
    for node, parent in enumerate(draft.parents):
        if parent == (path[-1] if path else -1):
            path.append(node)
    return path


def decided(draft: Draft, verdict: Verdict) -> tuple[Verdict, tuple[int, ...]]:
    """What rows laid as plain decoding lays them decide, and the tokens left to be drafted.

    The first node off the spine was chosen by an exact row: it is the step's last token.
    """
    exact = 0
    while exact < len(verdict.path) and verdict.path[exact] == exact:
        exact += 1
    if exact == len(verdict.path):
        return verdict, ()
    rest = (*(draft.tokens[node] for node in verdict.path[exact + 1 :]), verdict.token)
    return Verdict(verdict.path[:exact], draft.tokens[verdict.path[exact]]), rest
