"""Conditions on a text: rules that say whether they hold, and an estimate of whether they will.

A condition is rules joined by ``+``, e.g. ``not-empty+length:3-20``. Rules see tokens alone, end
tokens and marks left out, and know nothing of beams.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from edgegen.errors import InputError
from edgegen.manifest import GenerationDefaults, Speech
from edgegen.registry import Registry

Tokens = Sequence[int]
# Tokens that are counted together by ``not-repetitive``, and the share of them that may be repeats.
RUN, REPEATED = 3, 0.2
# Ids of more digits are no vocabulary's.
DIGITS = 9


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What bounds a text: its most tokens, those that end it, and how many there are (0 where that
    is not known yet)."""

    most: int
    ends: Collection[int] = ()
    vocabulary: int = 0


class Rule(Protocol):
    """Says of a text, as tokens, whether it is as it should be."""

    @classmethod
    def read(cls, argument: str, limits: Limits) -> Self:
        """The rule as written behind its name. Raises ``ValueError`` saying what is wanted."""
        ...

    def holds(self, tokens: Tokens) -> bool:
        """Of a text that ended."""
        ...

    def possible(self, tokens: Tokens) -> bool:
        """False when no text that begins so can hold any more."""
        ...

    def missing(self, tokens: Tokens) -> int:
        """How many certain tokens have to come yet, at least."""
        ...

    def wanted(self, tokens: Tokens) -> Collection[int]:
        """Next tokens to be looked at however unlikely they are."""
        ...


@dataclass(frozen=True)
class NotEmpty:
    """``not-empty``: there is a token besides marks."""

    @classmethod
    def read(cls, argument: str, limits: Limits) -> Self:
        if argument:
            raise ValueError("takes nothing behind its name")
        return cls()

    def holds(self, tokens: Tokens) -> bool:
        return len(tokens) > 0

    def possible(self, tokens: Tokens) -> bool:
        return True

    def missing(self, tokens: Tokens) -> int:
        return 0

    def wanted(self, tokens: Tokens) -> Collection[int]:
        return ()


@dataclass(frozen=True)
class NotRepetitive:
    """``not-repetitive[:SHARE]``: of the runs of three tokens at most this share were there before
    (0.2)."""

    share: float
    most: int

    @classmethod
    def read(cls, argument: str, limits: Limits) -> Self:
        try:
            share = float(argument) if argument else REPEATED
        except ValueError:
            share = -1.0
        if not 0 <= share < 1:
            raise ValueError(f"takes a share from 0 to below 1, e.g. {REPEATED}")
        return cls(share, limits.most)

    def holds(self, tokens: Tokens) -> bool:
        return repeats(tokens) <= self.share * runs(len(tokens))

    def possible(self, tokens: Tokens) -> bool:
        """Repeats never become fewer, and runs no more than the longest text has."""
        return repeats(tokens) <= self.share * runs(self.most)

    def missing(self, tokens: Tokens) -> int:
        return 0

    def wanted(self, tokens: Tokens) -> Collection[int]:
        return ()


def runs(length: int) -> int:
    """Runs of ``RUN`` tokens in a text."""
    return max(0, length - RUN + 1)


def repeats(tokens: Tokens) -> int:
    """Those of them that were there before."""
    every = {tuple(tokens[i : i + RUN]) for i in range(runs(len(tokens)))}
    return runs(len(tokens)) - len(every)


@dataclass(frozen=True)
class LengthRange:
    """``length:MIN-MAX``: so many tokens besides marks; one of the two may be left out."""

    least: int
    most: int
    ends: tuple[int, ...]

    @classmethod
    def read(cls, argument: str, limits: Limits) -> Self:
        low, dash, high = argument.partition("-")
        fits = dash and (low or high) and all(not w or w.isdecimal() for w in (low, high))
        if not fits or (high and int(low or 0) > int(high)):
            raise ValueError("takes MIN-MAX, e.g. 3-20, 3- or -20")
        least, most = int(low or 0), int(high or limits.most)
        if least > limits.most:
            raise ValueError(
                f"wants more tokens than the {limits.most} of max_new_tokens; raise that or ask "
                "for fewer"
            )
        return cls(least, most, tuple(limits.ends))

    def holds(self, tokens: Tokens) -> bool:
        return self.least <= len(tokens) <= self.most

    def possible(self, tokens: Tokens) -> bool:
        return len(tokens) <= self.most

    def missing(self, tokens: Tokens) -> int:
        return 0

    def wanted(self, tokens: Tokens) -> Collection[int]:
        return self.ends if len(tokens) == self.most else ()


@dataclass(frozen=True)
class Contains:
    """``contains:ID,ID...``: these tokens in a row; made in Python, one of several spellings."""

    spellings: tuple[tuple[int, ...], ...]

    @classmethod
    def read(cls, argument: str, limits: Limits) -> Self:
        words = argument.split(",")
        if not all(word.isdecimal() for word in words):
            raise ValueError("takes token ids, e.g. 12,57")
        most = limits.vocabulary or 10**DIGITS
        for word in words:
            if len(word.lstrip("0")) > DIGITS or int(word) >= most:
                raise ValueError(f"has token {word[:20]}, and ids are below {most}")
        return cls((tuple(map(int, words)),))

    def holds(self, tokens: Tokens) -> bool:
        return self.missing(tokens) == 0

    def possible(self, tokens: Tokens) -> bool:
        return True

    def missing(self, tokens: Tokens) -> int:
        text = tuple(tokens)
        return min(
            0 if occurs(word, text) else len(word) - begun(word, text) for word in self.spellings
        )

    def wanted(self, tokens: Tokens) -> Collection[int]:
        if self.holds(tokens):
            return ()
        text = tuple(tokens)
        return {word[at] for word in self.spellings for at in (0, begun(word, text))}


def occurs(word: tuple[int, ...], text: tuple[int, ...]) -> bool:
    size = len(word)
    return any(text[i : i + size] == word for i in range(len(text) - size + 1))


def begun(word: tuple[int, ...], text: tuple[int, ...]) -> int:
    """How much of a word, short of all, the text ends with."""
    sizes = range(min(len(word) - 1, len(text)), 0, -1)
    return next((size for size in sizes if text[-size:] == word[:size]), 0)


RULES: Registry[type[Rule]] = Registry(
    "condition",
    {
        "not-empty": "edgegen.runtime.conditions:NotEmpty",
        "not-repetitive": "edgegen.runtime.conditions:NotRepetitive",
        "length": "edgegen.runtime.conditions:LengthRange",
        "contains": "edgegen.runtime.conditions:Contains",
    },
)


def read_rules(text: str, limits: Limits) -> tuple[Rule, ...]:
    """``name[:argument]+...`` -> rules. Raises ``UnknownName`` and ``InputError``."""
    rules: list[Rule] = []
    for part in text.split("+"):
        name, _, argument = part.partition(":")
        kind = RULES[name]
        try:
            rules.append(kind.read(argument, limits))
        except ValueError as error:
            raise InputError(f"condition {part!r}: {name} {error}.") from None
    return tuple(rules)


class Classifier(Protocol):
    """Estimates whether a text will be as it should be."""

    def estimate(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """``[rows, width]``, the decoder's last states -> ``[rows]`` log-probabilities."""
        ...


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A = "all rules hold". ``marks`` are tokens that say nothing: rules do not see them.

    Of texts that ended it is known (``holds``), of one that goes on estimated: by ``classifier``
    from its last hidden state, or as certain, but for what rules know to be impossible.
    """

    rules: tuple[Rule, ...]
    most: int
    marks: frozenset[int] = frozenset()
    classifier: Classifier | None = None

    def holds(self, tokens: tuple[int, ...]) -> bool:
        text = self._text(tokens)
        return all(rule.holds(text) for rule in self.rules)

    def possible(self, tokens: tuple[int, ...]) -> bool:
        """Whether a text that goes on can hold yet, in the tokens that are left."""
        text = self._text(tokens)
        # The longest, not the sum: one token may be of several words.
        missing = max((rule.missing(text) for rule in self.rules), default=0)
        fits = len(tokens) + missing <= self.most
        return fits and all(rule.possible(text) for rule in self.rules)

    def missing(self, tokens: tuple[int, ...]) -> int:
        text = self._text(tokens)
        return sum(rule.missing(text) for rule in self.rules)

    def wanted(self, tokens: tuple[int, ...]) -> set[int]:
        text = self._text(tokens)
        return {token for rule in self.rules for token in rule.wanted(text)}

    def _text(self, tokens: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(token for token in tokens if token not in self.marks)


def marks_of(
    defaults: GenerationDefaults, speech: Speech | None, vocabulary: int
) -> frozenset[int]:
    """Tokens that are no part of what a text says: ends, languages forced, times."""
    times = range(0)
    if speech is not None and speech.timestamp_begin:
        times = range(speech.timestamp_begin, vocabulary)
    forced = [token for _, token in defaults.forced]
    return frozenset([*defaults.end, defaults.pad, *defaults.start, *forced, *times])


def forced_words(
    words: Sequence[str], encode: Callable[[str], Sequence[int]] | None
) -> tuple[Rule, ...]:
    """Texts that must occur, in the tokenizer's own spelling, with or without a space before."""
    if words and encode is None:
        raise InputError("force_words: this bundle has no tokenizer; use condition='contains:IDS'.")
    if encode is None:
        return ()
    spelled = [(tuple(encode(word)), tuple(encode(f" {word}"))) for word in words]
    return tuple(Contains(tuple({s: None for s in both if s})) for both in spelled)
