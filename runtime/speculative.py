"""Speculative decoding: one text, a draft behind it, and a verifier that says how much stands.

The draft is a tree; a chain and the empty draft (plain decoding) are special cases.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

from edgegen.errors import EdgegenWarning

from .budget import Budget, Facts, Fixed
from .decoder import Scores
from .drafters.base import Context, Drafter, Learner, Rows, learns
from .filters import LogitsFilter
from .generation import Feed, Generation, Target, Turn
from .history import HistoryBuffer
from .layout import decided, spine_first
from .margin import Call, Margin
from .sampling import AllForbidden, NoNumber, Sampler, TokenScore, log_probabilities
from .stopping import Stopping
from .verify import Draft, LogitRows, Verdict, Verifier

NOTHING = Draft()


@dataclass(kw_only=True)
class SpeculativeDecoding(Generation):
    """``budget`` says how much to ask of the drafter.

    ``logprobs`` as in ``GenerationOptions``: of the row after filters, before temperature.
    ``noise`` bounds what other rows of a call change a logit by, as a share of its row's largest.
    ``plain_layout`` lets only rows laid as plain decoding lays them decide (see ``layout``).
    """

    target: Target
    sampler: Sampler
    filters: Sequence[LogitsFilter]
    stopping: Stopping
    verifier: Verifier
    drafter: Drafter
    budget: Budget = field(default_factory=Fixed)
    logprobs: int | None = None
    noise: float = 0.0
    plain_layout: bool = False
    _left: tuple[int, ...] = field(default=(), init=False)
    _margin: Margin | None = field(default=None, init=False)
    _said: Rows | None = field(default=None, init=False)
    _draft: Draft = field(default=NOTHING, init=False)

    def begin(self, prompt: Sequence[int], source: Sequence[int]) -> None:
        self._tokens, self._source = list(prompt), source
        self._history = HistoryBuffer(prompt, source)
        self._said, self._left = None, ()
        self._margin = Margin(self.noise, self.target, len(prompt)) if self.noise else None

    def unfed(self) -> Sequence[int]:
        return self._tokens[self.target.length :]

    def feed(self) -> Feed:
        self._base = self.target.length
        pending = self._tokens[self._base :]
        root = self._root = len(pending) - 1
        draft = self._draft = self._drafted(len(pending))
        parents = None
        if len(draft) and not draft.is_chain:
            parents = [*range(-1, root), *(root + 1 + p for p in draft.parents)]
        self._fed = Feed([*pending, *draft.tokens], parents, root)
        return self._fed

    def take(self, scores: Scores, draft_seconds: float, decode_seconds: float) -> Turn:
        draft, root, base, tokens = self._draft, self._root, self._base, self._tokens
        rows = LogitRows(scores.logits, self.sampler, self._history, self.filters)
        verdict = self._verify(rows)

        new = [*(draft.tokens[i] for i in verdict.path), verdict.token]
        cut = self.stopping.check(new)
        del new[cut.keep :]
        kept = verdict.path[: len(new) - 1]
        self.target.keep(base + root + 1, [base + root + 1 + i for i in kept])
        scored = self._scores(rows, verdict, new)
        self._said = Rows(root=len(tokens) - 1, draft=draft, logits=scores.logits, topk=scores.topk)
        tokens += new
        self._history.commit(new)
        self.drafter.commit(len(tokens) - 1)
        self.budget.observe(
            Facts(
                draft=draft,
                path=verdict.path,
                kept=len(kept),
                pending=root + 1,
                draft_seconds=draft_seconds,
                decode_seconds=decode_seconds,
            )
        )
        if cut.reason is not None and learns(self.drafter):
            self._keep_learnt(self.drafter)
        reruns, flips = self._margin.counts() if self._margin else (0, 0)
        return Turn(
            tokens=tuple(new),
            cut=cut,
            drafted=len(draft),
            accepted=len(kept),
            scores=scored,
            reruns=reruns,
            flips=flips,
        )

    @staticmethod
    def _keep_learnt(drafter: Learner) -> None:
        """A disk that is full costs what was learned, not the text."""
        try:
            drafter.save()
        except OSError as error:
            told = f"what the drafter learned of this text was not kept ({error})."
            warnings.warn(told, EdgegenWarning, stacklevel=2)

    def _verify(self, rows: LogitRows) -> Verdict:
        try:
            return self._verified(self._draft, rows)
        except (AllForbidden, NoNumber):
            if not self._draft.tokens:
                raise
            # The row may lie behind the text's end, where plain decoding never comes.
            return self._verified(NOTHING, rows)

    def _verified(self, draft: Draft, rows: LogitRows) -> Verdict:
        if self._margin is not None:
            fed = self._fed
            call = Call(self._tokens, self._base, fed.tokens, fed.parents, fed.first_row)
            return self.verifier.verify(draft, self._margin.watch(rows, self.sampler, call))
        verdict = self.verifier.verify(draft, rows)
        if self.plain_layout:
            verdict, self._left = decided(draft, verdict)
        return verdict

    def _drafted(self, pending: int) -> Draft:
        left, self._left = self._left, ()
        limit = self.budget.limit(pending)
        if limit > 0:
            limit = min(limit, self.stopping.room - 1, self.target.drafts(pending))
        if limit < 1:
            return NOTHING
        if left:
            return Draft.chain(left[:limit])
        context = Context(source=self._source, tokens=self._tokens, rows=self._said)
        draft = self.drafter.draft(context, limit)
        draft = draft.first(self.budget.trim(draft, pending))
        return spine_first(draft) if self.plain_layout else draft

    def _scores(
        self, rows: LogitRows, verdict: Verdict, new: Sequence[int]
    ) -> tuple[TokenScore, ...]:
        if self.logprobs is None:
            return ()
        nodes = [-1, *verdict.path][: len(new)]
        return tuple(
            log_probabilities(rows.filtered(1 + node, new[:depth]), token, self.logprobs)
            for depth, (node, token) in enumerate(zip(nodes, new, strict=True))
        )
