"""What a generation gives back: text, tokens, and every measured second it took.

Times are kept raw, per pass and step; every rate is a property (docs/metrics.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .generation import Step
from .parts import Fallback
from .sampling import TokenScore
from .stopping import FinishReason
from .verify import Lossless


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One source through the model: a sentence, a window of audio, a prompt."""

    tokenize_seconds: float = 0.0
    features_seconds: float = 0.0
    encode_seconds: float = 0.0
    open_seconds: float = 0.0  # making the caches and the loop, before the first step
    detect_seconds: float = 0.0  # a decoder call before the loop: language, silence
    cached_source: bool = False  # its encoding was kept from an earlier call
    steps: tuple[Step, ...] = ()
    source_tokens: int = 0

    @property
    def decode_seconds(self) -> float:
        return sum(step.seconds for step in self.steps)


@dataclass(frozen=True, kw_only=True)
class Timings:
    """All passes of one request and its wall time, reading the input included."""

    passes: tuple[Pass, ...]
    wall_seconds: float
    read_seconds: float = 0.0
    audio_seconds: float = 0.0

    @property
    def steps(self) -> list[Step]:
        return [step for one in self.passes for step in one.steps]

    @property
    def tokens(self) -> int:
        return sum(len(step.tokens) for step in self.steps)

    @property
    def tokenize_ms(self) -> float:
        return 1e3 * sum(one.tokenize_seconds for one in self.passes)

    @property
    def features_ms(self) -> float:
        return 1e3 * sum(one.features_seconds for one in self.passes)

    @property
    def encode_ms(self) -> float:
        return 1e3 * sum(one.encode_seconds for one in self.passes)

    @property
    def detect_ms(self) -> float:
        return 1e3 * sum(one.detect_seconds for one in self.passes)

    @property
    def first_decode_ms(self) -> float:
        """From the encoder's result to the first token, opening the caches included."""
        first = self.passes[0] if self.passes else Pass()
        return 1e3 * (first.open_seconds + first.steps[0].seconds) if first.steps else 0.0

    @property
    def ttft_ms(self) -> float:
        """Model time to first token: features, encode, detection and first decode of the first
        pass."""
        if not self.passes:
            return 0.0
        one = self.passes[0]
        before = one.features_seconds + one.encode_seconds + one.detect_seconds
        return 1e3 * before + self.first_decode_ms

    @property
    def request_ttft_ms(self) -> float:
        """``ttft_ms`` plus reading and tokenising the input."""
        first = self.passes[0].tokenize_seconds if self.passes else 0.0
        return self.ttft_ms + 1e3 * (self.read_seconds + first)

    @property
    def tpot_ms(self) -> float:
        """Mean time per token emitted after the first of each pass."""
        later = [step for one in self.passes for step in one.steps[1:]]
        count = sum(len(step.tokens) for step in later)
        return 1e3 * sum(step.seconds for step in later) / count if count else 0.0

    @property
    def decode_tps(self) -> float:
        return 1e3 / self.tpot_ms if self.tpot_ms else 0.0

    @property
    def host_us(self) -> float:
        """Mean time of a step outside the backend's run and the drafter, in microseconds."""
        steps = self.steps
        if not steps:
            return 0.0
        return 1e6 * sum(s.seconds - s.decode_seconds - s.draft_seconds for s in steps) / len(steps)

    @property
    def e2e_ms(self) -> float:
        return 1e3 * self.wall_seconds

    @property
    def rtfx(self) -> float:
        """Seconds of audio per second of work; 0 for text."""
        return self.audio_seconds / self.wall_seconds if self.audio_seconds else 0.0

    @property
    def draft_tokens_proposed(self) -> int:
        return sum(step.drafted for step in self.steps)

    @property
    def draft_tokens_accepted(self) -> int:
        return sum(step.accepted for step in self.steps)

    @property
    def draft_acceptance_rate(self) -> float:
        proposed = self.draft_tokens_proposed
        return self.draft_tokens_accepted / proposed if proposed else 0.0

    @property
    def mean_acceptance_length(self) -> float:
        """1 + accepted / steps: tokens committed per decode call."""
        steps = self.steps
        return 1.0 + self.draft_tokens_accepted / len(steps) if steps else 0.0

    @property
    def acceptance_histogram(self) -> tuple[int, ...]:
        """Of the steps that drafted, how many accepted 0, 1, 2... tokens; empty where none did."""
        counts = Counter(step.accepted for step in self.steps if step.drafted)
        return tuple(counts[length] for length in range(max(counts, default=-1) + 1))

    @property
    def draft_ms(self) -> float:
        """All time spent on asking drafters, in vain too."""
        return 1e3 * sum(step.draft_seconds for step in self.steps)

    @property
    def verify_ms(self) -> float:
        """Decode calls that verified a draft."""
        return 1e3 * sum(step.decode_seconds for step in self.steps if step.drafted)

    @property
    def reruns(self) -> int:
        """Rows decided anew because rounding might have decided them."""
        return sum(step.reruns for step in self.steps)

    @property
    def flips(self) -> int:
        """Rows that rounding had decided."""
        return sum(step.flips for step in self.steps)

    @property
    def flip_rate(self) -> float:
        """Share of the tokens that would be others, were nothing decided anew."""
        return self.flips / self.tokens if self.tokens else 0.0


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A stretch of speech. Times in seconds from the start of the audio."""

    start: float
    end: float
    text: str
    tokens: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ScoredText:
    """One of several texts for a source. ``score`` is the log-probability over length, as beams
    were ranked by."""

    text: str
    tokens: tuple[int, ...]
    score: float
    finish_reason: FinishReason


@dataclass(frozen=True, kw_only=True)
class Result:
    """``tokens`` hold the end token when the model wrote one; ``text`` never does.

    ``speculation`` says what a caller should know of how drafts were used, such as why none were.
    ``hypotheses`` are the texts a beam search found for a source of one part, best first.
    ``spans`` are what was put into the gaps of a text, whose whole is ``text``.
    ``logprobs`` has one entry a token when asked for. ``segments`` and ``language`` are a speech
    model's. ``lossless`` is the class of what was run against plain decoding. ``devices`` tells
    where each part ran, ``fallbacks`` which of them another device had to take over, ``placement``
    the file that decided it, if one did.
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    timings: Timings
    lossless: Lossless
    speculation: str = ""
    logprobs: tuple[TokenScore, ...] = ()
    hypotheses: tuple[ScoredText, ...] = ()
    spans: tuple[str, ...] = ()
    segments: tuple[Segment, ...] = ()
    language: str | None = None
    warnings: tuple[str, ...] = ()
    devices: Mapping[str, str] = field(default_factory=dict[str, str])
    fallbacks: tuple[Fallback, ...] = ()
    placement: str = ""

    @property
    def cached_source(self) -> bool:
        """Whether nothing of the source had to be encoded: all of it was kept from earlier."""
        passes = self.timings.passes
        return bool(passes) and all(one.cached_source for one in passes)


def weakest(reasons: Sequence[FinishReason]) -> FinishReason:
    """The reason of a request of several passes: the one a caller must know of."""
    order: tuple[FinishReason, ...] = ("cancelled", "length", "stop_string", "stop")
    for reason in order:
        if reason in reasons:
            return reason
    return "stop"
