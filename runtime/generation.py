"""The one loop: feed, decode, take.

What to feed and what to make of the answer is a method's own: one text with a draft behind it
(``speculative``), several beams (``beams``). Plain decoding is the empty draft, a prompt is a
decode call over many tokens. Knows nothing of text, encoders or devices.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

from msgspec import Struct

from .decoder import Scores
from .sampling import TokenScore
from .stopping import Cut


class Target(Protocol):
    """What the loop needs of a decoder."""

    @property
    def length(self) -> int: ...
    @property
    def chunk(self) -> int: ...
    def drafts(self, pending: int) -> int: ...
    def reach(self, length: int) -> int: ...
    def forward(
        self, tokens: Sequence[int], parents: Sequence[int] | None = None, first_row: int = 0
    ) -> Scores: ...
    def keep(self, length: int, rows: Sequence[int] = ()) -> None: ...


class Feed(Struct, frozen=True):
    """The next decode call; as ``Decoder.forward`` takes it."""

    tokens: Sequence[int]
    parents: Sequence[int] | None = None
    first_row: int = 0


class Answer(Struct, frozen=True):
    """What a call gave and the seconds it took: of a call for several texts, this one's share."""

    scores: Scores
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Hypothesis:
    """One of several texts found. ``score`` is what they were ranked by; end token included."""

    tokens: tuple[int, ...]
    score: float
    cut: Cut
    logprobs: tuple[TokenScore, ...] = ()


class Turn(Struct, frozen=True, kw_only=True):
    """What a method made of a call: tokens that stand now, and how many of them were drafted.

    ``hypotheses`` come with the last turn of a method that looks for several, best first.
    """

    tokens: tuple[int, ...]
    cut: Cut
    drafted: int = 0
    accepted: int = 0
    scores: tuple[TokenScore, ...] = ()
    reruns: int = 0  # rows decided anew because rounding might have decided them
    flips: int = 0  # those of them that it had
    hypotheses: tuple[Hypothesis, ...] = ()


class Step(Turn, frozen=True, kw_only=True):
    """One turn of the loop. Times in seconds; ``seconds`` holds the two others and the host's."""

    rows: int  # rows of the decode call(s)
    draft_seconds: float
    decode_seconds: float
    seconds: float


class Generation(ABC):
    """One source being answered."""

    target: Target

    @abstractmethod
    def begin(self, prompt: Sequence[int], source: Sequence[int]) -> None:
        """A new text. ``prompt`` holds at least one token not in the cache yet."""

    @abstractmethod
    def unfed(self) -> Sequence[int]:
        """Tokens that stand and are not in the cache."""

    @abstractmethod
    def feed(self) -> Feed:
        """The next call."""

    @abstractmethod
    def take(self, scores: Scores, draft_seconds: float, decode_seconds: float) -> Turn:
        """The answer to the call of ``feed``, and the seconds both took."""

    def ask(self) -> Feed:
        """The next call to make. A long prompt but for its last part is fed on the way."""
        self._started = perf_counter()
        unfed = self.unfed()
        if len(unfed) > 1 and len(unfed) > self.target.chunk:
            self._prefill(unfed)
        prefilled = perf_counter()
        feed = self.feed()
        self._asked = perf_counter()
        self._drafting, self._rows = self._asked - prefilled, len(feed.tokens)
        self._prefilling = prefilled - self._started
        return feed

    def hear(self, answer: Answer) -> Step:
        """What came of the call that was asked for."""
        heard = perf_counter()
        decoding = answer.seconds + self._prefilling
        turn = self.take(answer.scores, self._drafting, decoding)
        own = self._asked - self._started + perf_counter() - heard
        return step_of(turn, self._rows, self._drafting, decoding, own + answer.seconds)

    def run(self, prompt: Sequence[int], source: Sequence[int] = ()) -> Iterator[Step]:
        """Steps until the text ends."""
        self.begin(prompt, source)
        while True:
            step = self.hear(answer(self.target, self.ask()))
            yield step
            if step.cut.reason is not None:
                return

    def _prefill(self, tokens: Sequence[int]) -> None:
        """Feed all but the last chunk of a long prompt; their logits are not asked for."""
        target, at = self.target, 0
        while len(tokens) - at > target.chunk:
            chunk = tokens[at : at + target.chunk]
            target.forward(chunk, first_row=len(chunk) - 1)
            target.keep(target.length + len(chunk))
            at += len(chunk)


def answer(target: Target, feed: Feed) -> Answer:
    """Make the call, for one text alone."""
    start = perf_counter()
    scores = target.forward(feed.tokens, feed.parents, first_row=feed.first_row)
    return Answer(scores, perf_counter() - start)


def step_of(turn: Turn, rows: int, drafting: float, decoding: float, seconds: float) -> Step:
    """The turn with what it took."""
    return Step(
        tokens=turn.tokens,
        cut=turn.cut,
        drafted=turn.drafted,
        accepted=turn.accepted,
        scores=turn.scores,
        reruns=turn.reruns,
        flips=turn.flips,
        hypotheses=turn.hypotheses,
        rows=rows,
        draft_seconds=drafting,
        decode_seconds=decoding,
        seconds=seconds,
    )
