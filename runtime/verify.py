"""Drafts and the verifiers that decide how much of one stands.

A draft is a tree of proposed tokens; row 0 of the target's logits follows the last committed
token and row 1+i follows draft node i. Verifiers see the target through two questions, asked only
of the rows they visit, and know nothing of filters, samplers or graphs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edgegen.errors import InputError

from .filters import LogitsFilter
from .history import HistoryBuffer
from .sampling import ACCEPT, RESIDUAL, Distribution, Greedy, Row, Sampler, draw, point, uniforms

# greedy-identical: plain greedy's tokens. sample-identical: plain sampling's tokens too, for the
# same seed. distribution-identical: other tokens, same distribution. lossy: neither.
Lossless = Literal["greedy-identical", "sample-identical", "distribution-identical", "lossy"]
# From the weakest to the strongest.
LOSSLESS: tuple[Lossless, ...] = (
    "lossy",
    "distribution-identical",
    "greedy-identical",
    "sample-identical",
)


@dataclass(frozen=True)
class Draft:
    """Proposed tokens. ``parents[i]`` is the node token i follows, -1 the last committed token.

    Parents come before children; siblings may repeat a token. ``distributions``, one a node or
    empty, are what the tokens were drawn from, given the siblings before them; empty means the
    drafter is deterministic. ``evidence`` is how long a match a draft was copied after, 0 where the
    drafter cannot tell; only drafts of one ``voice`` compare, one of those a combination speaks
    with. Raises ``InputError`` when the tree is none.
    """

    tokens: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()
    distributions: tuple[Distribution, ...] = field(default=(), compare=False)
    evidence: int = field(default=0, compare=False)
    voice: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        count = len(self.tokens)
        if len(self.parents) != count or len(self.distributions) not in (0, count):
            raise InputError(
                f"draft: {count} tokens need as many parents and none or as many distributions, "
                f"got {len(self.parents)} and {len(self.distributions)}; mend the drafter."
            )
        for node, parent in enumerate(self.parents):
            if not -1 <= parent < node:
                raise InputError(
                    f"draft: node {node} has parent {parent}, expected -1 to {node - 1}; "
                    "mend the drafter."
                )

    @classmethod
    def chain(
        cls,
        tokens: Sequence[int],
        distributions: Sequence[Distribution] = (),
        evidence: int = 0,
    ) -> Draft:
        """One token after another."""
        parents = tuple(range(-1, len(tokens) - 1))
        return cls(tuple(tokens), parents, tuple(distributions), evidence)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def is_chain(self) -> bool:
        return all(parent == node - 1 for node, parent in enumerate(self.parents))

    def first(self, count: int) -> Draft:
        """The tree of the first ``count`` nodes."""
        if count >= len(self):
            return self
        tree = self.tokens[:count], self.parents[:count], self.distributions[:count]
        return Draft(*tree, self.evidence, self.voice)

    def path_to(self, node: int) -> tuple[int, ...]:
        """Nodes from the root down to ``node``; empty for -1."""
        path: list[int] = []
        while node >= 0:
            path.append(node)
            node = self.parents[node]
        return tuple(reversed(path))


def ancestors(parents: Sequence[int]) -> NDArray[np.bool_]:
    """[n, n]: row i is true at i and at every ancestor of i. Parents come before children."""
    visible = np.eye(len(parents), dtype=np.bool_)
    for node, parent in enumerate(parents):
        if parent >= 0:
            visible[node] |= visible[parent]
    return visible


def depths(parents: Sequence[int]) -> NDArray[np.int64]:
    """[n]: ancestors of each node, 0 for a child of the root."""
    found = np.zeros(len(parents), np.int64)
    for node, parent in enumerate(parents):
        if parent >= 0:
            found[node] = found[parent] + 1
    return found


class Verdict(Struct, frozen=True):
    """``path``: the draft nodes that stand, root first; ``token``: the target's own next one."""

    path: tuple[int, ...]
    token: int


class Target(Protocol):
    """What the target model says. ``path`` holds the tokens (not nodes) accepted before ``row``."""

    @property
    def position(self) -> int:
        """Tokens generated before this step: the index of the token row 0 chooses."""
        ...

    def choose(self, row: int, path: Sequence[int]) -> int: ...
    def distribution(self, row: int, path: Sequence[int]) -> Distribution: ...


class LogitRows:
    """A target given by its logits [1+n, V]. Only rows asked for are filtered, and only once; for a
    greedy choice that no filter touches none is."""

    def __init__(
        self,
        logits: Row,
        sampler: Sampler,
        history: HistoryBuffer,
        filters: Sequence[LogitsFilter] = (),
    ) -> None:
        self._logits, self._sampler = logits, sampler
        self._history, self._filters = history, filters
        self._filtered: dict[int, Row] = {}

    def renew(self, logits: Row) -> None:
        """The same rows, computed anew."""
        self._logits = logits
        self._filtered.clear()

    @property
    def position(self) -> int:
        return self._history.count

    def choose(self, row: int, path: Sequence[int]) -> int:
        position = self.position + len(path)
        if self._filters and row not in self._filtered and isinstance(self._sampler, Greedy):
            token = self._sampler.choose(self._logits[row], position)
            history = self._history.at(path)
            if all(rule.spares(token, history) for rule in self._filters):
                return token
        return self._sampler.choose(self.filtered(row, path), position)

    def distribution(self, row: int, path: Sequence[int]) -> Distribution:
        return self._sampler.distribution(self.filtered(row, path))

    def filtered(self, row: int, path: Sequence[int]) -> Row:
        """The row [V] as the sampler sees it, e.g. for log-probabilities. Not to be changed."""
        if not self._filters:
            row_logits: Row = self._logits[row]
            return row_logits
        if row not in self._filtered:
            logits: Row = self._logits[row].copy()
            history = self._history.at(path)
            for rule in self._filters:
                rule.apply(logits, history)
            self._filtered[row] = logits
        return self._filtered[row]


class Verifier(Protocol):
    """Decides which draft nodes stand."""

    lossless: ClassVar[Lossless]

    def verify(self, draft: Draft, target: Target) -> Verdict: ...


@dataclass(frozen=True)
class MatchVerifier:
    """Walk down while some child is the token the target itself chooses.

    Gives plain decoding's tokens for any drafter, tree or chain, greedy or with keyed sampling.
    """

    lossless: ClassVar[Lossless] = "sample-identical"

    def verify(self, draft: Draft, target: Target) -> Verdict:
        if not draft.tokens:
            return Verdict((), target.choose(0, ()))
        path: list[int] = []
        # Several nodes when siblings repeat a token: all of them say the same text.
        nodes = [-1]
        while True:
            token = target.choose(1 + nodes[0], path)
            children = [
                child
                for child in range(nodes[0] + 1, len(draft))
                if draft.tokens[child] == token and draft.parents[child] in nodes
            ]
            if not children:
                return Verdict(draft.path_to(nodes[0]), token)
            path.append(token)
            nodes = children


@dataclass(frozen=True)
class RejectionVerifier:
    """Accept a drawn token x with probability min(1, p(x)/q(x)), else try the next sibling on
    what p leaves over q, and at last draw from that.

    Leviathan, Kalman, Matias 2023 and Chen et al. 2023; siblings one after another as in
    Miao et al., "SpecInfer", 2024. Without draft distributions q is 1 on each token. Every
    decision is keyed by (seed, position, sibling), so a run repeats exactly. Drafters that draw
    must use the noise of ``sampling.DRAFT``, never that of the target.
    """

    seed: int = 0
    lossless: ClassVar[Lossless] = "distribution-identical"

    def verify(self, draft: Draft, target: Target) -> Verdict:
        path: list[int] = []
        node = -1
        while True:
            children = [i for i in range(node + 1, len(draft)) if draft.parents[i] == node]
            if not children:
                return Verdict(draft.path_to(node), target.choose(1 + node, path))
            position = target.position + len(path)
            left = target.distribution(1 + node, path)
            chances = uniforms(self.seed, ACCEPT, position, np.arange(len(children)))
            accepted, left = _first_accepted(draft, children, left, chances)
            if accepted is None:
                token = draw(left, self.seed, RESIDUAL, position)
                return Verdict(draft.path_to(node), token)
            node = accepted
            path.append(draft.tokens[node])


def _first_accepted(
    draft: Draft, children: Sequence[int], left: Distribution, chances: NDArray[np.float64]
) -> tuple[int | None, Distribution]:
    """The child that stands, or None and what is left to draw from."""
    for child, chance in zip(children, chances, strict=True):
        token = draft.tokens[child]
        drawn = draft.distributions[child] if draft.distributions else point(token)
        if chance * drawn.of(token) < left.of(token):
            return child, left
        rest = residual(left, drawn)
        if rest is None:
            # p and q agree up to rounding: a rejection here has no probability at all.
            return child, left
        left = rest
    return None, left


def residual(p: Distribution, q: Distribution) -> Distribution | None:
    """max(p - q, 0) made to sum to 1, on p's ids; None when nothing is left."""
    at = np.searchsorted(q.ids, p.ids).clip(max=len(q.ids) - 1)
    taken = np.where(q.ids[at] == p.ids, q.probabilities[at], 0.0)
    rest = np.maximum(p.probabilities - taken, 0.0)
    total = float(rest.sum())
    return Distribution(p.ids, rest / total) if total > 0 else None


@dataclass(frozen=True)
class TypicalVerifier:
    """Accept x where p(x) > min(epsilon, delta * exp(-entropy(p))); the longest path wins.

    Cai et al., "Medusa", 2024. Lossy: the text is plausible, not the target's. Equal lengths go
    to the likelier path, then to the first. With a greedy sampler it accepts what matching does.
    """

    epsilon: float = 0.09
    delta: float = 0.3
    lossless: ClassVar[Lossless] = "lossy"

    def verify(self, draft: Draft, target: Target) -> Verdict:
        # Of each accepted node: its length and log-probability, and the tokens down to it.
        score = {-1: (0, 0.0)}
        tokens: dict[int, tuple[int, ...]] = {-1: ()}
        rows: dict[int, tuple[Distribution, float]] = {}
        for node, (token, parent) in enumerate(zip(draft.tokens, draft.parents, strict=True)):
            if parent not in score:
                continue
            if parent not in rows:
                p = target.distribution(1 + parent, tokens[parent])
                rows[parent] = p, min(self.epsilon, self.delta * math.exp(-p.entropy()))
            p, threshold = rows[parent]
            chance = p.of(token)
            if chance > threshold:
                length, total = score[parent]
                score[node] = length + 1, total + math.log(chance)
                tokens[node] = (*tokens[parent], token)
        best = max(score, key=lambda node: (*score[node], -node))
        return Verdict(draft.path_to(best), target.choose(1 + best, tokens[best]))
