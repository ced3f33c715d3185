"""The one loop: draft, decode, verify, keep.

Plain decoding is the empty draft, a chain is a tree with one child a node, a prompt is a decode
call over many tokens. Knows nothing of text, encoders or devices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Protocol

from .budget import Budget, Facts, Fixed
from .decoder import PREFILL_CHUNK, Scores
from .drafters.base import Context, Drafter, Learner, Rows
from .filters import LogitsFilter
from .history import HistoryBuffer
from .layout import decided, spine_first
from .margin import Call, Margin
from .sampling import Sampler, TokenScore, log_probabilities
from .stopping import Cut, Stopping
from .verify import Draft, LogitRows, Verdict, Verifier

NOTHING = Draft()


class Target(Protocol):
    """What the loop needs of a decoder."""

    @property
    def length(self) -> int: ...
    def reach(self, length: int) -> int: ...
    def forward(
        self, tokens: Sequence[int], parents: Sequence[int] | None = None, first_row: int = 0
    ) -> Scores: ...
    def keep(self, length: int, rows: Sequence[int] = ()) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One turn of the loop. Times in seconds; ``seconds`` holds the two others and the host's."""

    tokens: tuple[int, ...]
    drafted: int
    accepted: int
    rows: int  # rows of the decode call(s)
    draft_seconds: float
    decode_seconds: float
    seconds: float
    cut: Cut
    scores: tuple[TokenScore, ...] = ()
    reruns: int = 0  # rows decided anew because rounding might have decided them
    flips: int = 0  # those of them that it had


@dataclass(kw_only=True)
class Generation:
    """One text being made. ``budget`` says how much to ask of the drafter.

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

    def run(self, prompt: Sequence[int], source: Sequence[int] = ()) -> Iterator[Step]:
        """Steps until the text ends. ``prompt`` holds at least one token not in the cache yet."""
        history, tokens = HistoryBuffer(prompt, source), list(prompt)
        self._said, self._left = None, ()
        self._margin = Margin(self.noise, self.target, len(prompt)) if self.noise else None
        while True:
            step = self._step(tokens, source, history)
            yield step
            if step.cut.reason is not None:
                if isinstance(self.drafter, Learner):
                    self.drafter.save()
                return

    def _step(self, tokens: list[int], source: Sequence[int], history: HistoryBuffer) -> Step:
        """One turn; ``tokens`` and ``history`` grow by what it commits."""
        target, start = self.target, perf_counter()
        self._prefill(tokens)
        fed_at = perf_counter()
        base = target.length
        pending = tokens[base:]
        draft = self._draft(tokens, source, len(pending))
        drafted_at = perf_counter()
        root = len(pending) - 1
        parents = None
        if len(draft) and not draft.is_chain:
            parents = [*range(-1, root), *(root + 1 + p for p in draft.parents)]
        fed = [*pending, *draft.tokens]
        scores = target.forward(fed, parents, first_row=root)
        decoded_at = perf_counter()
        rows = LogitRows(scores.logits, self.sampler, history, self.filters)
        verdict = self._verify(draft, rows, Call(tokens, base, fed, parents, root))

        new = [*(draft.tokens[i] for i in verdict.path), verdict.token]
        cut = self.stopping.check(new)
        del new[cut.keep :]
        kept = verdict.path[: len(new) - 1]
        target.keep(base + root + 1, [base + root + 1 + i for i in kept])
        scored = self._scores(rows, verdict, new)
        self._said = Rows(root=len(tokens) - 1, draft=draft, logits=scores.logits, topk=scores.topk)
        tokens += new
        history.commit(new)
        self.drafter.commit(len(tokens) - 1)
        facts = Facts(
            draft=draft,
            path=verdict.path,
            kept=len(kept),
            pending=len(pending),
            draft_seconds=drafted_at - fed_at,
            decode_seconds=decoded_at - drafted_at + fed_at - start,
        )
        self.budget.observe(facts)
        reruns, flips = self._margin.counts() if self._margin else (0, 0)
        return Step(
            tokens=tuple(new),
            drafted=len(draft),
            accepted=len(kept),
            rows=len(pending) + len(draft),
            draft_seconds=facts.draft_seconds,
            decode_seconds=facts.decode_seconds,
            seconds=perf_counter() - start,
            cut=cut,
            scores=scored,
            reruns=reruns,
            flips=flips,
        )

    def _verify(self, draft: Draft, rows: LogitRows, call: Call) -> Verdict:
        if self._margin is not None:
            return self.verifier.verify(draft, self._margin.watch(rows, self.sampler, call))
        verdict = self.verifier.verify(draft, rows)
        if self.plain_layout:
            verdict, self._left = decided(draft, verdict)
        return verdict

    def _prefill(self, tokens: Sequence[int]) -> None:
        """Feed all but the last chunk of a long prompt; their logits are not asked for."""
        target = self.target
        while len(tokens) - target.length > PREFILL_CHUNK:
            base = target.length
            chunk = tokens[base : base + PREFILL_CHUNK]
            target.forward(chunk, first_row=len(chunk) - 1)
            target.keep(base + len(chunk))

    def _draft(self, tokens: Sequence[int], source: Sequence[int], pending: int) -> Draft:
        limit = min(self.budget.limit(pending), self.stopping.room - 1)
        left, self._left = self._left, ()
        if limit < 1:
            return NOTHING
        if left:
            return Draft.chain(left[:limit])
        draft = self.drafter.draft(Context(source=source, tokens=tokens, rows=self._said), limit)
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
