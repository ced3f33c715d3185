"""Beam search over one cache: the beams are a tree of rows and share all they have in common.

Nothing is copied when beams are reordered, and the encoder's keys and values stand once, because a
beam is no batch row: it is a row of the call whose mask shows its own past (see ``lineage``).
Scores, stopping and finished texts follow transformers' beam search, so hypotheses and scores are
its own; groups follow Vijayakumar et al., "Diverse Beam Search", arXiv 1610.02424.

Under a condition A beams compete by log P(text) + log P(A | text): "attribute-conditional beam
search", Yoshida et al., "MAP's not dead yet", arXiv 2311.08817. Candidates are fed before they
compete where a classifier judges them by their own hidden state; the last term is looked up anew
each step and never becomes part of a score. Texts of words that must occur compete with those that
have as much of them, Post and Vilar, "Fast Lexically Constrained Decoding", arXiv 1804.06609.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as replace_field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from .branches import Branches
from .conditions import Condition
from .decoder import Scores
from .filters import LogitsFilter
from .generation import Feed, Generation, Hypothesis, Target, Turn
from .history import HistoryBuffer
from .ranking import Floats, LogProbabilities, likeliest
from .sampling import TokenScore, check_top, log_probabilities
from .stopping import Cut

if TYPE_CHECKING:
    from .options import EarlyStopping

RUNNING = Cut(0)
# Scores divided by more, or by less than one part of it, are no numbers that differ.
FAR = 1e30


class BeamOptions(Protocol):
    """What of ``GenerationOptions`` a beam search reads; names as in transformers."""

    @property
    def num_beams(self) -> int: ...
    @property
    def num_return_sequences(self) -> int: ...
    @property
    def num_beam_groups(self) -> int: ...
    @property
    def diversity_penalty(self) -> float: ...
    @property
    def length_penalty(self) -> float: ...
    @property
    def early_stopping(self) -> EarlyStopping: ...
    @property
    def logprobs(self) -> int | None: ...


class Beam(Struct):
    """A text that goes on. ``tokens`` follow the prompt; the last follows ``row`` and is not fed.

    ``logprobs`` are of its tokens, where asked for.
    """

    tokens: tuple[int, ...]
    score: np.float32  # sum of log-probabilities
    row: int
    logprobs: tuple[TokenScore, ...] = ()
    condition: float = 0.0  # log P(A | tokens) as far as it was estimated


class Candidate(Struct, frozen=True):
    """A text that may go on, or ended by ``cut``. ``hopeless``: the condition does not hold, and
    cannot; ``missing`` tokens of words that must occur have to come yet."""

    beam: Beam
    cut: Cut | None = None
    hopeless: bool = False
    missing: int = 0

    @property
    def total(self) -> float:
        """What it competes by: of a text that ended the condition is known."""
        return float(self.beam.score) + (0.0 if self.cut else self.beam.condition)


@dataclass
class Group:
    """Beams that compete with one another, and the texts of theirs that ended, best first.

    ``candidates`` have not competed yet: those that go on are the beams. ``fallen`` is the best
    text that ended without the condition.
    """

    beams: list[Beam]
    finished: list[Hypothesis] = field(default_factory=list[Hypothesis])
    fallen: Hypothesis | None = None
    candidates: list[Candidate] = field(default_factory=list[Candidate])
    done: bool = False


@dataclass(kw_only=True)
class BeamSearch(Generation):
    """``ends`` are end tokens; ``stopped`` says of a text's tokens where a stop string cuts them.

    ``filters`` see the log-probabilities, as transformers' processors do.
    """

    target: Target
    options: BeamOptions
    filters: Sequence[LogitsFilter]
    ends: frozenset[int]
    max_new_tokens: int
    stopped: Callable[[Sequence[int]], Cut | None] | None = None
    condition: Condition | None = None

    def begin(self, prompt: Sequence[int], source: Sequence[int]) -> None:
        self._prompt = list(prompt)
        self._said = LogProbabilities(HistoryBuffer(prompt, source), self.filters)
        self._step = 0
        root = Beam((), np.float32(0), -1)
        self._groups = [Group([root]) for _ in range(self.options.num_beam_groups)]
        self._branches = Branches(self.target)

    def unfed(self) -> Sequence[int]:
        return () if self._step else self._prompt[self.target.length :]

    def feed(self) -> Feed:
        if not self._step:
            return self._branches.prompt(self.unfed())
        return self._branches.grow(self._live())

    def take(self, scores: Scores, draft_seconds: float, decode_seconds: float) -> Turn:
        self._said.read(scores.logits)
        for group in self._groups:
            if group.candidates:
                self._estimate(group, scores)
                self._choose(group)
        chosen = Counter[int]()
        for group in self._groups:
            if not group.done:
                self._expand(group, chosen)
                if len(self._groups) > 1:
                    chosen.update(beam.tokens[-1] for beam in group.beams)
        self._step += 1
        if all(group.done for group in self._groups):
            return self._end()
        self._branches.keep(self._live())
        return Turn(tokens=(), cut=RUNNING)

    # ------------------------------------------------------------ one step

    def _live(self) -> list[Beam]:
        return [beam for group in self._groups for beam in group.beams]

    def _expand(self, group: Group, chosen: Mapping[int, int]) -> None:
        """The candidates for one more token; they compete now, or when they were fed."""
        beams = self._continuations(group, chosen)
        group.candidates = [self._judged(beam, self._cut(beam.tokens)) for beam in beams]
        group.beams = [one.beam for one in group.candidates if one.cut is None]
        if not (self.condition and self.condition.classifier and group.beams):
            self._choose(group)

    def _estimate(self, group: Group, scores: Scores) -> None:
        """What the classifier says of candidates that were fed meanwhile, and have new rows."""
        assert self.condition and self.condition.classifier and scores.hidden is not None
        said = self.condition.classifier.estimate(scores.hidden)
        beams = iter(
            [
                replace(beam, condition=float(said[self._branches.call(beam)]))
                for beam in group.beams
            ]
        )
        group.candidates = [
            one if one.cut else replace(one, beam=next(beams)) for one in group.candidates
        ]

    def _choose(self, group: Group) -> None:
        """The best candidates become beams; those of them that end become finished texts."""
        width = self._width()
        # Without a condition they come in order.
        order = best_first(group.candidates) if self.condition else group.candidates
        # Those that end in one step are all compared, even where the first of them fill the group.
        full = self.options.early_stopping is True and len(group.finished) == width
        for one in order[:width]:
            if one.cut is not None and not one.hopeless and not full:
                self._finish(group, one.beam, one.cut)
        self._fall(group, [one for one in order if one.cut is not None and one.hopeless])
        going = [one for one in order if one.cut is None][:width]
        group.beams, group.candidates = [one.beam for one in going], []
        group.done = not going or not self._improvable(group, going)
        if group.done:
            group.beams = []

    def _width(self) -> int:
        return self.options.num_beams // self.options.num_beam_groups

    def _continuations(self, group: Group, chosen: Mapping[int, int]) -> list[Beam]:
        """The best, enough that the group goes on though all end tokens are among them."""
        most = max(2, 1 + len(self.ends)) * self._width()
        asked, beams = self.options.logprobs, group.beams
        calls = [self._branches.call(beam) for beam in beams]
        for call, beam in zip(calls, beams, strict=True):
            self._said.filter(call, beam.tokens)
        values = self._said.values
        if chosen or calls != list(range(len(values))):
            values = values[calls]
        if self.options.diversity_penalty:
            for token, count in chosen.items():
                values[:, token] -= np.float32(self.options.diversity_penalty * count)
        scores = np.array([beam.score for beam in beams], np.float32) + self._said.offsets[calls]
        found: list[Beam] = []
        for which, token, total in self._looked_at(beams, values, scores, most):
            beam, logprobs = beams[which], beams[which].logprobs
            if asked is not None:
                logprobs = (*logprobs, log_probabilities(values[which], token, asked))
            tokens, row = (*beam.tokens, token), self._branches.row(calls[which])
            found.append(Beam(tokens, total, row, logprobs, beam.condition))
        if self.condition is None:
            return found
        # Whether a text ends where a stop string cuts it is asked of the best alone.
        ended = [beam.tokens[-1] in self.ends or self._full(beam.tokens) for beam in found]
        judged = [
            self._judged(beam, Cut(len(beam.tokens), "stop") if end else None)
            for beam, end in zip(found, ended, strict=True)
        ]
        return [one.beam for one in best_first(judged)[:most]]

    def _looked_at(
        self, beams: Sequence[Beam], values: Floats, scores: Floats, most: int
    ) -> list[tuple[int, int, np.float32]]:
        """Beams, by number, tokens and sums: the likeliest of all. A condition may want one of the
        others: the likeliest of each and those it wants to see."""
        if self.condition is None:
            return likeliest(values, scores, most)
        found: list[tuple[int, int, np.float32]] = []
        for which, beam in enumerate(beams):
            row = slice(which, which + 1)
            best = likeliest(values[row], scores[row], most)
            found += [(which, token, total) for _, token, total in best]
            wanted = self.condition.wanted(beam.tokens).difference(one[1] for one in best)
            for token in sorted(wanted):
                total = values[which, token] + scores[which]
                found += [(which, token, total)] if total > -np.inf else []
        return found

    def _judged(self, beam: Beam, cut: Cut | None) -> Candidate:
        if self.condition is None:
            return Candidate(beam, cut)
        if cut is None:
            hopeless = not self.condition.possible(beam.tokens)
            return Candidate(beam, cut, hopeless, self.condition.missing(beam.tokens))
        return Candidate(beam, cut, not self.condition.holds(beam.tokens[: cut.keep]))

    def _cut(self, tokens: tuple[int, ...]) -> Cut | None:
        if tokens[-1] in self.ends:
            return Cut(len(tokens), "stop")
        if self.stopped is not None:
            found = self.stopped(tokens)
            if found is not None:
                return found
        return Cut(len(tokens), "length") if self._full(tokens) else None

    def _full(self, tokens: Sequence[int]) -> bool:
        return len(tokens) >= self.max_new_tokens

    def _finish(self, group: Group, beam: Beam, cut: Cut) -> None:
        """Keep a text that ended if it is among the best of its group."""
        group.finished.append(self._hypothesis(beam, cut))
        group.finished.sort(key=lambda text: -text.score)
        del group.finished[self._width() :]

    def _fall(self, group: Group, lost: Sequence[Candidate]) -> None:
        """Remember the best text that ended without the condition: another may never come."""
        every = [self._hypothesis(one.beam, one.cut) for one in lost if one.cut is not None]
        every += [] if group.fallen is None else [group.fallen]
        group.fallen = max(every, key=lambda text: text.score, default=None)

    def _hypothesis(self, beam: Beam, cut: Cut) -> Hypothesis:
        score = beam.score / np.float32(self._scale(len(beam.tokens)))
        return Hypothesis(tokens=beam.tokens, score=float(score), cut=cut, logprobs=beam.logprobs)

    def _improvable(self, group: Group, going: Sequence[Candidate]) -> bool:
        """Whether going on could still better the finished texts, as far as transformers looks."""
        if len(group.finished) < self._width():
            return True
        options = self.options
        if options.early_stopping is True:
            return False
        length = len(going[0].beam.tokens)
        if options.early_stopping == "never" and options.length_penalty > 0:
            length = self.max_new_tokens
        hopes = [float(one.beam.score) for one in going if not one.hopeless]
        best = max(hopes, default=-np.inf) / self._scale(length)
        return best > group.finished[-1].score

    def _scale(self, length: int) -> float:
        """What scores are divided by, as far as float32 can."""
        try:
            found = float(length**self.options.length_penalty)
        except OverflowError:
            found = FAR
        return min(max(found, 1 / FAR), FAR)

    def _end(self) -> Turn:
        every = [text for group in self._groups for text in group.finished]
        # A score nothing has says that the condition does not hold.
        fallen = [group.fallen for group in self._groups if group.fallen is not None]
        every = every or [replace_field(text, score=-np.inf) for text in fallen]
        best = sorted(every, key=lambda text: -text.score)[: self.options.num_return_sequences]
        if not best:
            check_top(-np.inf)
        first = best[0]
        return Turn(
            tokens=first.tokens, cut=first.cut, scores=first.logprobs, hypotheses=tuple(best)
        )


def best_first(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those with hope first, by turns from each bank: texts that miss as much compete with one
    another. Equals stay in order."""
    order = sorted(candidates, key=lambda one: (one.hopeless, -one.total))
    if not any(one.missing for one in order):
        return order
    seen = Counter[tuple[bool, int]]()
    turns: list[tuple[bool, int, int]] = []
    for one in order:
        bank = (one.hopeless, one.missing)
        turns.append((one.hopeless, seen[bank], one.missing))
        seen[bank] += 1
    by_turn = sorted(range(len(order)), key=lambda i: turns[i])
    return [order[i] for i in by_turn]
