"""Filters: rules that change a row of logits before a token is chosen from it.

Each is stateless and reads the row's own history, so the rows of a draft tree never disturb each
other. Each equals the logits processor of transformers of the same purpose, float for float. Ids
in the history that the vocabulary lacks (the -1 of an all-zero start) are passed over.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgegen.errors import InputError
from edgegen.manifest import GenerationDefaults, Speech

from .history import History
from .sampling import Ids, Row

if TYPE_CHECKING:
    from .options import GenerationOptions

Encode = Callable[[str], Sequence[int]]
FLOATS = np.finfo(np.float32)


class LogitsFilter(Protocol):
    """Changes ``logits`` [V] in place; the caller hands over a private copy."""

    def apply(self, logits: Row, history: History) -> None: ...
    def spares(self, token: int, history: History) -> bool:
        """Whether ``token``, if it is the likeliest of a row, certainly is so after ``apply``: it
        keeps its logit and no other gains. What saves a greedy choice the copy of its row."""
        ...


class Forbids(ABC):
    """Forbids tokens by what they would follow, whatever their logits."""

    @abstractmethod
    def forbidden(self, history: History) -> Sequence[int] | Ids: ...

    def apply(self, logits: Row, history: History) -> None:
        ids = self.forbidden(history)
        if len(ids):
            logits[_known(np.asarray(ids, np.int64), len(logits))] = -np.inf

    def spares(self, token: int, history: History) -> bool:
        return token not in self.forbidden(history)


@dataclass(frozen=True)
class RepetitionPenalty:
    """Divide positive and multiply negative logits of tokens in the decoder's text.

    Keskar et al., "CTRL", 2019. The decoder's prompt and start token count, the source does not.
    """

    penalty: float

    def apply(self, logits: Row, history: History) -> None:
        ids = _known(history.decoder_ids, len(logits))
        scores = logits[ids]
        with np.errstate(over="ignore", invalid="ignore"):  # penalties of no use, but allowed
            penalty = max(np.float32(self.penalty), FLOATS.tiny)
            apart = np.where(scores < 0, scores * penalty, scores / penalty)
        logits[ids] = np.minimum(apart, FLOATS.max)

    def spares(self, token: int, history: History) -> bool:
        return self.penalty >= 1 and token not in history.decoder_ids


@dataclass(frozen=True)
class NoRepeatNgram(Forbids):
    """Forbid a token that would make the last ``size`` decoder tokens occur a second time."""

    size: int

    def forbidden(self, history: History) -> Sequence[int] | Ids:
        ids, size = history.decoder_ids, self.size
        windows = len(ids) - size + 1
        if windows < 1:
            return ()
        match = np.ones(windows, np.bool_)
        for offset in range(size - 1):
            match &= ids[offset : offset + windows] == ids[windows + offset]
        return ids[size - 1 :][match]


@dataclass(frozen=True)
class EncoderNoRepeatNgram(Forbids):
    """Forbid a token that would make the last ``size`` decoder tokens occur in the source."""

    size: int

    def forbidden(self, history: History) -> Sequence[int] | Ids:
        ids, source, size = history.decoder_ids, history.source, self.size
        windows = len(source) - size + 1
        if windows < 1 or len(ids) < size - 1:
            return ()
        match = np.ones(windows, np.bool_)
        for offset in range(size - 1):
            match &= source[offset : offset + windows] == ids[len(ids) - size + 1 + offset]
        return source[size - 1 :][match]


class BadWords(Forbids):
    """Forbid the last token of a sequence when the decoder's text ends with the ones before it.

    One look-up for each distinct prefix length, however many sequences there are.
    """

    def __init__(self, sequences: Iterable[Sequence[int]]) -> None:
        last: dict[tuple[int, ...], set[int]] = {}
        for sequence in sequences:
            last.setdefault(tuple(sequence[:-1]), set()).add(sequence[-1])
        self._last = {prefix: sorted(ids) for prefix, ids in last.items()}
        self._lengths = sorted({len(prefix) for prefix in last})

    def forbidden(self, history: History) -> Sequence[int]:
        found: list[int] = []
        count = len(history.decoder_ids)
        longest = self._lengths[-1] if self._lengths else 0
        tail: list[int] = history.decoder_ids[max(0, count - longest) :].tolist()
        for length in self._lengths:
            if length > count:
                break
            found += self._last.get(tuple(tail[len(tail) - length :]), ())
        return found


@dataclass(frozen=True)
class MinNewTokens(Forbids):
    """Forbid the end tokens until ``minimum`` tokens are generated."""

    minimum: int
    ends: tuple[int, ...]

    def forbidden(self, history: History) -> Sequence[int]:
        return self.ends if history.count < self.minimum else ()


@dataclass(frozen=True)
class SuppressTokens(Forbids):
    """Forbid these tokens always."""

    ids: tuple[int, ...]

    def forbidden(self, history: History) -> Sequence[int]:
        return self.ids


@dataclass(frozen=True)
class SuppressAtStart(Forbids):
    """Forbid these tokens as generated token ``index``: 0, or the first that is not forced."""

    ids: tuple[int, ...]
    index: int = 0

    def forbidden(self, history: History) -> Sequence[int]:
        return self.ids if history.count == self.index else ()


class ForcedTokens:
    """At a forced index among the generated tokens, leave one token: its logit is 0."""

    def __init__(self, forced: Iterable[tuple[int, int]]) -> None:
        self._forced = dict(forced)

    def apply(self, logits: Row, history: History) -> None:
        token = self._forced.get(history.count)
        if token is not None:
            logits[:] = -np.inf
            logits[token] = 0.0

    def spares(self, token: int, history: History) -> bool:
        return history.count not in self._forced


@dataclass(frozen=True, kw_only=True)
class WhisperTimestamps:
    """Whisper's timestamp rules (Radford et al., 2022, as transformers applies them).

    Ids from ``timestamp_begin`` up are times. Times come in pairs (or one before the end token),
    never go back, and the first token is a time of at most ``max_initial`` steps. When all times
    together are likelier than the likeliest other token, only times are left. Rules start after
    ``begin`` generated tokens, so tokens forced at the start are no text.
    """

    timestamp_begin: int
    no_timestamps: int
    end: int
    max_initial: int | None = 50
    begin: int = 0

    def apply(self, logits: Row, history: History) -> None:
        if history.count < self.begin:
            return
        first = self.timestamp_begin
        text = history.generated[self.begin :]
        logits[self.no_timestamps] = -np.inf
        if len(text) == 0:
            logits[:first] = -np.inf
            if self.max_initial is not None:
                logits[first + self.max_initial + 1 :] = -np.inf
        else:
            self._pair(logits, text)
        self._prefer_times(logits)

    def spares(self, token: int, history: History) -> bool:
        return history.count < self.begin

    def _pair(self, logits: Row, text: Ids) -> None:
        first = self.timestamp_begin
        last_is_time = int(text[-1]) >= first
        closes = len(text) < 2 or int(text[-2]) >= first
        if last_is_time and closes:
            logits[first:] = -np.inf
        elif last_is_time:
            logits[: self.end] = -np.inf
        times = text[text >= first]
        if len(times):
            # An opened segment may end at the very time it began; any other time must advance.
            again = last_is_time and not closes
            logits[first : int(times[-1]) + (0 if again else 1)] = -np.inf

    def _prefer_times(self, logits: Row) -> None:
        times, others = logits[self.timestamp_begin :], logits[: self.timestamp_begin]
        top = float(times.max())
        if top == -math.inf:
            return
        # The softmax's denominator is on both sides of the comparison and cancels.
        if top + math.log(float(np.exp(times - np.float32(top)).sum())) > float(others.max()):
            others[:] = -np.inf


def build_filters(
    options: GenerationOptions,
    defaults: GenerationDefaults,
    *,
    vocabulary: int,
    speech: Speech | None = None,
    encode: Encode | None = None,
    most: int = 0,
) -> tuple[LogitsFilter, ...]:
    """The filters in the order they apply; empty when none is active.

    ``most`` is how many tokens may be generated, for a token the bundle forces at that limit.
    ``encode`` turns a bad word into ids without special tokens. Forced tokens come last: nothing
    can forbid them. Raises ``InputError`` for ids outside the vocabulary, bad words without a
    tokenizer, and timestamps asked of a model that has none.
    """
    forced, rules = _forced(options, defaults, most), options.rules(defaults)
    words = _bad_words(options, defaults, encode)
    suppress = tuple(sorted({*defaults.suppress, *options.suppress}))
    _check_ids(vocabulary, forced=forced.values(), suppress=suppress, bad_words=sum(words, ()))
    opening = next(index for index in range(len(forced) + 1) if index not in forced)
    filters: list[LogitsFilter] = []
    if rules.repetition_penalty != 1:
        filters.append(RepetitionPenalty(rules.repetition_penalty))
    if rules.no_repeat_ngram_size:
        filters.append(NoRepeatNgram(rules.no_repeat_ngram_size))
    if rules.encoder_no_repeat_ngram_size:
        filters.append(EncoderNoRepeatNgram(rules.encoder_no_repeat_ngram_size))
    if words:
        filters.append(BadWords(words))
    if rules.min_new_tokens and defaults.end:
        filters.append(MinNewTokens(rules.min_new_tokens, defaults.end))
    if suppress:
        filters.append(SuppressTokens(suppress))
    if defaults.suppress_at_start:
        filters.append(SuppressAtStart(defaults.suppress_at_start, opening))
    if options.timestamps:
        filters.append(_timestamps(defaults, speech, opening))
    if forced:
        filters.append(ForcedTokens(forced.items()))
    return tuple(filters)


def _forced(options: GenerationOptions, defaults: GenerationDefaults, most: int) -> dict[int, int]:
    """Token by index: the limit's wins over the bundle's at the same one, the caller's over all."""
    last = {most - 1: defaults.forced_end} if most and defaults.forced_end >= 0 else {}
    return {**dict(defaults.forced), **last, **dict(options.forced)}


def _bad_words(
    options: GenerationOptions, defaults: GenerationDefaults, encode: Encode | None
) -> list[tuple[int, ...]]:
    words = [*defaults.bad_words_ids, *options.bad_words_ids]
    if options.bad_words and encode is None:
        raise InputError("bad_words: this bundle has no tokenizer; give bad_words_ids instead.")
    if encode is not None:
        for word in options.bad_words:
            words += [tuple(encode(word)), tuple(encode(f" {word}"))]
    # A text must be able to end: a lone end token is never a bad word.
    ends = {(end,) for end in defaults.end}
    return [word for word in dict.fromkeys(words) if word and word not in ends]


def _timestamps(
    defaults: GenerationDefaults, speech: Speech | None, opening: int
) -> WhisperTimestamps:
    if speech is None or speech.timestamp_begin <= 0 or not defaults.end:
        raise InputError("timestamps=True: this bundle has no timestamp tokens; leave it False.")
    return WhisperTimestamps(
        timestamp_begin=speech.timestamp_begin,
        no_timestamps=speech.no_timestamps,
        end=defaults.end[0],
        max_initial=speech.max_initial_timestamp,
        begin=opening,
    )


def _check_ids(vocabulary: int, **named: Iterable[int]) -> None:
    faults = [
        f"{name} has id {token}"
        for name, ids in named.items()
        for token in sorted(set(ids))
        if not 0 <= token < vocabulary
    ]
    if faults:
        raise InputError(f"{'; '.join(faults)}; ids must be from 0 to {vocabulary - 1}.")


def _known(ids: Ids, vocabulary: int) -> Ids:
    return ids[(ids >= 0) & (ids < vocabulary)]
