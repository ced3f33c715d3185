"""Whether contestants did the same: as many tokens, which of them, which words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .record import Entry, Made, WorkRecord


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Of one contestant with the reference, over all requests of a work.

    ``same`` of ``sources`` are equal throughout; ``prefix`` of ``tokens`` stand before the first
    difference of their source. ``short`` counts tokens fewer than asked for, where a number was.
    ``word_errors`` of ``words`` are edits of the reference's words. ``kept`` is False where drafts
    changed what is made without them.
    """

    sources: int
    same: int
    tokens: int = 0
    prefix: int = 0
    word_errors: int = 0
    words: int = 0
    short: int = 0
    steady: bool = True
    kept: bool = True

    @property
    def flagged(self) -> bool:
        """It did less than asked, not always the same, or not what it promises."""
        return self.short > 0 or not self.steady or not self.kept

    def __str__(self) -> str:
        if self.words:
            said = f"{self.same}/{self.sources} texts, {self.word_errors} of {self.words} words off"
        elif self.tokens:
            said = f"{self.same}/{self.sources} sources, {self.prefix}/{self.tokens} tokens before"
            said += " a difference"
        else:
            said = "nothing to compare"
        if self.short:
            said += f"; {self.short} TOKENS SHORT"
        said += "" if self.kept else "; NOT AS WITHOUT DRAFTS"
        return said if self.steady else f"{said}; NOT ALWAYS THE SAME"


def agreement(work: WorkRecord, entry: Entry) -> Agreement | None:
    """With the work's reference, or the first contestant there is; None where nothing was made."""
    reference = reference_of(work)
    if reference is None or not entry.made:
        return None
    totals = {name: 0 for name in ("sources", "same", "tokens", "prefix", "word_errors", "words")}
    short, steady = 0, True
    for request, made in entry.made.items():
        wanted = reference.made.get(request)
        if wanted is None:
            continue
        for name, value in compare(made, wanted).items():
            totals[name] += value
        short += sum(max(0, made.asked - len(one)) for one in made.tokens)
        steady = steady and made.steady
    plain = work.entry(entry.plain, entry.threads)
    kept = plain is None or all(
        (made.tokens, made.texts) == (plain.made[request].tokens, plain.made[request].texts)
        for request, made in entry.made.items()
        if request in plain.made
    )
    return Agreement(**totals, short=short, steady=steady, kept=kept)


def reference_of(work: WorkRecord) -> Entry | None:
    named = [one for one in work.present if one.contestant == work.reference and one.made]
    return next(iter([*named, *(one for one in work.present if one.made)]), None)


def compare(made: Made, wanted: Made) -> dict[str, int]:
    """By words where both wrote texts and one of them no tokens, by tokens otherwise."""
    if made.tokens and wanted.tokens:
        pairs = list(zip(made.tokens, wanted.tokens, strict=True))
        return {
            "sources": len(pairs),
            "same": sum(mine == theirs for mine, theirs in pairs),
            "tokens": sum(len(theirs) for _, theirs in pairs),
            "prefix": sum(common_prefix(mine, theirs) for mine, theirs in pairs),
        }
    texts = list(zip(made.texts, wanted.texts, strict=True))
    spoken = [(words(mine), words(theirs)) for mine, theirs in texts]
    return {
        "sources": len(texts),
        "same": sum(mine == theirs for mine, theirs in texts),
        "word_errors": sum(edits(mine, theirs) for mine, theirs in spoken),
        "words": sum(len(theirs) for _, theirs in spoken),
    }


def common_prefix(one: Sequence[object], other: Sequence[object]) -> int:
    for length, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return length
    return min(len(one), len(other))


def words(text: str) -> list[str]:
    """Lower case, without punctuation: what a listener would count."""
    return re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text.lower())


def edits(one: Sequence[str], other: Sequence[str]) -> int:
    """Insertions, deletions and replacements between two sequences (Levenshtein, 1966)."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        above, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (a != b))
    return row[-1]
