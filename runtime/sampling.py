"""How the next token is chosen from a row of logits: the arg-max, or keyed Gumbel-max sampling.

Noise comes from a counter, not from a stream: the noise of a token depends on (seed, position,
token id) alone. Hence a text is the same whatever the drafter, the number of rows verified
together, or how many other tokens survive the cuts.

The counter generator is SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014; constants of Stafford's variant 13): output i of the stream whose state
is the key, the key being the same finaliser chained over (seed, use, position). SplitMix64 passes
BigCrush as a stream. It is not cryptographic. Two of a text's positions share a shifted run of
noise with probability about 2 * vocabulary / 2**64. Uniforms carry 52 bits, so Gumbel noise lies
in (-3.61, 36.74). Gumbel-max: arg-max of logits plus Gumbel noise is a draw from their softmax
(Gumbel 1954; Maddison, Tarlow, Minka, "A* sampling", NeurIPS 2014). Bits are the same on every
machine; the two logarithms may differ in the last place between maths libraries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edgegen.errors import DeviceError, InputError

if TYPE_CHECKING:
    from .options import GenerationOptions

Row = NDArray[np.float32]  # logits [V]
Ids = NDArray[np.int64]
Floats = NDArray[np.float64]

# Colder than this is as greedy as can be, and float32 cannot divide by much less.
COLDEST = 1e-30
# What noise is used for. Different uses are independent at the same seed and position.
CHOOSE, ACCEPT, RESIDUAL, DRAFT = range(4)

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_BLOCK = 64


class AllForbidden(InputError):
    """A row that leaves no token."""


class NoNumber(DeviceError):
    """A row whose largest logit is no number."""


class Distribution(NamedTuple):
    """Tokens that can be drawn, ids ascending [s], and their probabilities [s], summing to 1."""

    ids: Ids
    probabilities: Floats

    def of(self, token: int) -> float:
        """The probability of a token, 0 when it was cut."""
        at = int(np.searchsorted(self.ids, token))
        found = at < len(self.ids) and int(self.ids[at]) == token
        return float(self.probabilities[at]) if found else 0.0

    def entropy(self) -> float:
        """In nats."""
        p = self.probabilities[self.probabilities > 0]
        return float(-(p * np.log(p)).sum())


class Sampler(Protocol):
    """Chooses a token from logits [V]; ``position`` counts the tokens generated before it."""

    def choose(self, logits: Row, position: int) -> int: ...
    def distribution(self, logits: Row) -> Distribution: ...


class Greedy:
    """The likeliest token, the lowest id on ties."""

    def choose(self, logits: Row, position: int) -> int:
        best = int(logits.argmax())
        check_top(float(logits[best]))
        return best

    def distribution(self, logits: Row) -> Distribution:
        return point(self.choose(logits, 0))


@dataclass(frozen=True)
class Sampling:
    """A draw from the softmax of what temperature, top-k, top-p and min-p leave, in that order.

    The cuts keep the tokens transformers' warpers keep, up to rounding of its float32 softmax.
    Where the edge of top-p falls among equal logits as many stay, but which is arbitrary there
    and the lowest ids here. ``use`` separates a drafter's own draws from the target's.
    """

    seed: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    use: int = CHOOSE

    def choose(self, logits: Row, position: int) -> int:
        ids, scores = self.survivors(logits)
        noise = gumbel(self.seed, self.use, position, ids)
        return int(ids[(scores + noise).argmax()])

    def distribution(self, logits: Row) -> Distribution:
        ids, scores = self.survivors(logits)
        weights = np.exp(scores.astype(np.float64) - float(scores.max()))
        return Distribution(ids, weights / weights.sum())

    def survivors(self, logits: Row) -> tuple[Ids, Row]:
        """Ids that stay [s], ascending, and their logits over the temperature [s]."""
        top = float(logits.max())
        check_top(top)
        scores = (
            logits if self.temperature == 1 else logits / np.float32(max(self.temperature, COLDEST))
        )
        if self.top_k:
            ids = top_ids(scores, self.top_k)
        elif self.top_p == 1 and self.min_p > 0:
            # Below this no token can pass min-p; the margin is far above float32 rounding.
            ids = np.flatnonzero(scores >= top / self.temperature + math.log(self.min_p) - 0.01)
        else:
            ids = np.flatnonzero(scores > -np.inf)
        kept = scores[ids]
        if self.top_p < 1:
            stay = _nucleus(kept, self.top_p)
            ids, kept = ids[stay], kept[stay]
        if self.min_p > 0:
            chances = _softmax(kept)
            stay = chances >= np.float32(self.min_p) * chances.max()
            ids, kept = ids[stay], kept[stay]
        return ids, kept


def build_sampler(options: GenerationOptions) -> Sampler:
    """The sampler the options ask for."""
    if not options.do_sample:
        return Greedy()
    return Sampling(
        seed=options.seed,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
    )


def top_ids(scores: Row, k: int) -> Ids:
    """Ids [>= k] of the k largest scores and of all that tie with the k-th, ascending; -inf never.

    The k-th largest block maximum bounds the k-th largest score from below, so only the few
    scores above it are partitioned: linear in V with one fast pass instead of a selection.
    """
    size = len(scores)
    blocks = size // _BLOCK
    if blocks < 2 * k:
        near = np.flatnonzero(scores > -np.inf)
    else:
        # Blocks lie like combs: whole vectors are compared, not the numbers of a block.
        maxima = scores[: blocks * _BLOCK].reshape(_BLOCK, blocks).max(axis=0)
        bound = np.partition(maxima, blocks - k)[blocks - k]
        near = np.flatnonzero(scores >= bound if bound > -np.inf else scores > -np.inf)
    if len(near) <= k:
        return near
    values = scores[near]
    found: Ids = near[values >= np.partition(values, len(near) - k)[len(near) - k]]
    return found


class TokenScore(NamedTuple):
    """Log-probability of an emitted token and of the likeliest others, best first."""

    logprob: float
    alternatives: tuple[tuple[int, float], ...]


def log_probabilities(logits: Row, chosen: int, k: int = 0) -> TokenScore:
    """Natural log-probabilities under the softmax of ``logits`` [V] of ``chosen`` and the top k.

    Ties go to the lowest id. Fewer than k alternatives come back when the rest are -inf.
    """
    top = float(logits.max())
    check_top(top)
    total = top + math.log(float(np.exp(logits - np.float32(top)).sum(dtype=np.float64)))
    alternatives: list[tuple[int, float]] = []
    if k:
        ids = top_ids(logits, k)
        order = np.argsort(-logits[ids], kind="stable")[:k]
        alternatives = [(int(i), float(logits[i]) - total) for i in ids[order]]
    return TokenScore(float(logits[chosen]) - total, tuple(alternatives))


def uniforms(seed: int, use: int, position: int, counters: Ids) -> Floats:
    """Uniforms in the open interval (0, 1), one a counter [s], keyed by all four arguments."""
    key = 0
    for word in (seed, use, position):
        key = _mix_int((key + word + _GOLDEN) & _MASK)
    state = (counters.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN)
    state += np.uint64(key)
    state ^= state >> np.uint64(30)
    state *= np.uint64(_FIRST)
    state ^= state >> np.uint64(27)
    state *= np.uint64(_SECOND)
    state ^= state >> np.uint64(31)
    # 52 bits and a half: exactly representable, so neither 0 nor 1 can come out.
    state >>= np.uint64(12)
    return (state.astype(np.float64) + 0.5) * 2.0**-52


def gumbel(seed: int, use: int, position: int, ids: Ids) -> Floats:
    """Standard Gumbel noise of tokens ``ids`` [s] at a position."""
    return -np.log(-np.log(uniforms(seed, use, position, ids)))


def draw(distribution: Distribution, seed: int, use: int, position: int) -> int:
    """One keyed draw by Gumbel-max."""
    noise = gumbel(seed, use, position, distribution.ids)
    with np.errstate(divide="ignore"):
        scores = np.log(distribution.probabilities) + noise
    return int(distribution.ids[scores.argmax()])


def _mix_int(word: int) -> int:
    word = ((word ^ (word >> 30)) * _FIRST) & _MASK
    word = ((word ^ (word >> 27)) * _SECOND) & _MASK
    return word ^ (word >> 31)


def _softmax(scores: Row) -> Row:
    weights: Row = np.exp(scores - scores.max())
    weights /= weights.sum()
    return weights


def _nucleus(scores: Row, top_p: float) -> NDArray[np.bool_]:
    """Which scores [s] stay: from the least likely up, drop while the dropped sum to <= 1 - top_p.

    Of equal scores the highest id is dropped first.
    """
    chances = _softmax(scores)
    spare = np.float32(1 - top_p)
    # Tokens this rare cannot reach half the spare mass together: drop them without sorting.
    stay = chances >= spare / np.float32(2 * len(chances))
    start = chances[~stay].sum(dtype=np.float64)
    near = np.flatnonzero(stay)[::-1]
    order = near[np.argsort(scores[near], kind="stable")]
    reached = (start + np.cumsum(chances[order], dtype=np.float64)).astype(np.float32)
    dropped = reached <= spare
    dropped[-1] = False
    stay[order[dropped]] = False
    return stay


def check_top(top: float) -> None:
    """Raises ``AllForbidden`` or ``NoNumber`` when the largest logit of a row is none."""
    if math.isfinite(top):
        return
    if top == -math.inf:
        raise AllForbidden(
            "next token: every token is forbidden; relax suppress, bad_words, "
            "no_repeat_ngram_size or min_new_tokens."
        )
    raise NoNumber(
        f"next token: the largest logit is {top}, expected a finite number; "
        "run the bundle on another device or in fp32."
    )


def point(token: int) -> Distribution:
    """All probability on one token."""
    return Distribution(np.array([token], np.int64), np.ones(1))
