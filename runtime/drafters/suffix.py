"""Suffix: copy what followed the longest match of the text's end, as long as the match is strong.

Suffix automata over source and output and over a corpus, the router between the two and the draft
lengths are those of SAM-Decoding (Hu et al., 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from edgegen.errors import InputError

from ..verify import Draft, Lossless
from .automaton import SuffixAutomaton
from .base import Context, Materials
from .haystack import Haystack

if TYPE_CHECKING:
    from ..tokenizer import Tokenizer

# No token: parts of a text never match across it. -1 is the start mark of some models.
BORDER = -2
MOST, PER_MATCHED = 40, 4
# A match in the corpus must be so much longer than one in the text at hand.
HANDICAP = 5
# The shortest match worth following where another drafter could speak instead.
SHORTEST_FOLLOWED = 3


class Corpus:
    """Documents, as token ids, that drafts may be copied from: made once, then shared.

    An automaton takes about half a kilobyte a token.
    """

    def __init__(self, documents: Sequence[Sequence[int]]) -> None:
        self.tokens = [token for document in documents for token in (*document, BORDER)]
        self.automaton = SuffixAutomaton()
        for token in self.tokens:
            self.automaton.append(token)

    @classmethod
    def read(cls, path: Path, tokenizer: Tokenizer) -> Self:
        """The text of a file as one document, in the target's ids. Raises ``InputError``."""
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except OSError as error:
            raise InputError(f"corpus {path}: cannot be read ({error.strerror}).") from error
        except UnicodeDecodeError as error:
            raise InputError(
                f"corpus {path}: not UTF-8 text (byte {error.start} is "
                f"0x{error.object[error.start]:02x}); give a text file."
            ) from None
        if "\0" in text:
            raise InputError(f"corpus {path}: it has NUL bytes, as no text has; give a text file.")
        if not text.strip():
            raise InputError(f"corpus {path}: there is no text in it; leave it out.")
        return cls([tokenizer.encode(text, add_special=False)])

    def following(self, place: int, limit: int, ends: frozenset[int]) -> list[int]:
        """At most ``limit`` tokens from ``place`` on, within a document and up to an end token."""
        found: list[int] = []
        for token in self.tokens[place : place + limit]:
            if token == BORDER:
                break
            found.append(token)
            if token in ends:
                break
        return found


class Suffix:
    """The draft grows by four tokens with every token matched, up to forty."""

    lossless: ClassVar[Lossless] = "sample-identical"

    def __init__(
        self,
        ends: frozenset[int] = frozenset(),
        corpus: Corpus | None = None,
        shortest: int = 1,
    ) -> None:
        self._ends, self._corpus, self._shortest = ends, corpus, shortest
        self._hay = Haystack(ends)
        self._automaton: SuffixAutomaton | None = None
        self._at, self._matched = 0, 0  # in the corpus

    @classmethod
    def make(cls, materials: Materials) -> Self:
        shortest = SHORTEST_FOLLOWED if materials.followed else 1
        return cls(materials.ends, materials.corpus, shortest)

    def draft(self, context: Context, limit: int) -> Draft:
        automaton = self._read(context)
        matched = max(automaton.match_length, self._matched - HANDICAP)
        if matched < self._shortest:
            return Draft()
        limit = min(limit, MOST, 1 + PER_MATCHED * matched)
        if matched == automaton.match_length:
            hay = self._hay
            # The automaton counts the border between source and output.
            place = automaton.match_place - (automaton.match_place > hay.border > 0)
            copied = hay.following(place, limit)
        else:
            assert self._corpus is not None
            place = self._corpus.automaton.recent[self._at] + 1
            copied = self._corpus.following(place, limit, self._ends)
        return Draft.chain(copied, evidence=matched)

    def commit(self, length: int) -> None:
        """Only committed tokens are ever read, so nothing is forgotten."""

    def _read(self, context: Context) -> SuffixAutomaton:
        hay, automaton = self._hay, self._automaton
        unread = hay.unread(context)
        if automaton is None:
            automaton = self._automaton = SuffixAutomaton(barred=hay.border or -1)
        for token in unread:
            if len(hay.tokens) == hay.border > 0:
                automaton.append(BORDER)
            automaton.append(token)
            hay.tokens.append(token)
            if self._corpus is not None:
                follow = self._corpus.automaton.follow
                self._at, self._matched = follow(self._at, self._matched, token)
        return automaton
