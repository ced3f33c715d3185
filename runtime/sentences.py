"""A text as sentences and the gaps between them, so that only what says something is translated.

Rules, not a model: they know European punctuation, the full stops of Chinese, Japanese, Hindi,
Arabic, Urdu, Armenian and Ethiopic, and abbreviations of six languages. Thai, which ends
sentences by a space, stays whole up to its line's end. A line break always ends a sentence.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from edgegen.errors import InputError

from .abbreviations import BEFORE_NUMBERS, MAY_END, NEVER_END, STARTERS

Count = Callable[[str], int]

CLOSERS = "\"'”’»›)\\]}）】」』》〉*_"
OPENERS = "\"'“‘«‹(\\[{（【「『《〈*_"
STOPS = ".!?…‼⁇⁈⁉؟۔।॥։።፧"
WIDE_STOPS = "。！？｡"  # full width: no space follows them
# A run of stops with the quotes and brackets after it (a no-break space may precede a French
# one). After wide stops anything may follow, after the others a space must.
END = re.compile(
    rf"(?:[{WIDE_STOPS}][{WIDE_STOPS}{STOPS}]*[{CLOSERS}]*(?![{WIDE_STOPS}])"
    rf"|(?<![{STOPS}])(?P<stop>[{STOPS}]++)(?:[{CLOSERS}]|[ \u00a0\u202f][»›])*+(?=\s))\s*"
)
# What comes before a line's words: indentation, quote marks, headings, bullets, numbering.
LEAD = re.compile(r"\s*(?:(?:[-+*•‣◦⁃·–]|#{1,6}|>+|\(?\d{1,3}[.)]|\(?[A-Za-z][)])[ \t\u00a0]+)*")
LINE = re.compile(r"[^\n\r\u2028\u2029\x0b\x0c\x85]*[\n\r\u2028\u2029\x0b\x0c\x85]*")
WORD = re.compile(rf"[^\s{OPENERS}]*\Z")
LONGEST_ABBREVIATION = 40  # how far back a word is looked for
INITIALS = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]|[^\W\d_]")  # U.S, e.g, J: before the last full stop
NEXT = re.compile(rf"[{OPENERS}\s—–-]*([¿¡]|\w+)?")
# Where an over-long sentence is cut, best first; a cut falls after the match.
CUTS = (
    re.compile(rf"[;；:：][{CLOSERS}]*\s+|[；：]"),
    re.compile(rf"[,，、،][{CLOSERS}]*\s+|[，、]|\s+(?=[—–(])|[—–)]\s+"),
    re.compile(r"\s+"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sentence:
    """``before`` + ``text`` + ``after``: the words, and the gaps to keep as they are.

    ``text`` has words in it, except that an input without any is one sentence of no text. Lines
    of dashes, emoji or blanks are gaps.
    """

    text: str
    before: str = ""
    after: str = ""


def split(text: str, *, max_tokens: int = 0, count: Count | None = None) -> list[Sentence]:
    """The sentences of ``text``, in order; gaps and sentences joined give ``text`` back.

    With ``max_tokens`` above 0, a sentence of which ``count`` says more (say, a tokenizer's ids)
    is cut at a clause's end, else at a space, else anywhere between characters; only a single
    character that alone counts more is left too long. An empty text has no sentences.
    """
    if max_tokens < 0 or (max_tokens and count is None):
        raise InputError(
            f"sentences: max_tokens {max_tokens}; expected 0, or a limit and a count of tokens."
        )
    sentences = _sentences(text)
    if count is None or not max_tokens:
        return sentences
    return [part for one in sentences for part in _within(one, max_tokens, count)]


def join(sentences: Sequence[Sentence], translations: Sequence[str]) -> str:
    """The translations in the gaps of the sentences: same paragraphs, indentation and lists."""
    if len(sentences) != len(translations):
        raise InputError(f"sentences: {len(translations)} translations for {len(sentences)}.")
    pairs = zip(sentences, translations, strict=True)
    return "".join([one.before + translation + one.after for one, translation in pairs])


def _sentences(text: str) -> list[Sentence]:
    """All lines' sentences; lines without words join the gap before or after them."""
    sentences: list[Sentence] = []
    gap = ""
    for line in LINE.findall(text):
        if any(character.isalnum() for character in line):
            first, *others = _of_line(line)
            sentences += [replace(first, before=gap + first.before), *others]
            gap = ""
        elif sentences:
            sentences[-1] = replace(sentences[-1], after=sentences[-1].after + line)
        else:
            gap += line
    return [Sentence(text="", before=gap)] if gap else sentences


def _of_line(line: str) -> Iterator[Sentence]:
    """One line's sentences. The line break that ends it goes to the last one's gap."""
    lead = LEAD.match(line)
    start = lead.end() if lead else 0
    if not line[start:].strip():  # a lone number is text, not numbering
        start = len(line) - len(line.lstrip())
    before = line[:start]
    for end in _ends(line, start):
        words = line[start:end].rstrip()
        yield Sentence(text=words, before=before, after=line[start + len(words) : end])
        start, before = end, ""


def _ends(line: str, start: int) -> Iterator[int]:
    """Where sentences end, the gap after them included; the line's end is the last."""
    for found in END.finditer(line, start):
        if found.end() < len(line) and _is_end(line, start, found):
            yield found.end()
    yield len(line)


def _is_end(line: str, start: int, found: re.Match[str]) -> bool:
    stop = found["stop"]
    if stop is None:  # full width; a Japanese quotation goes on after its closing bracket
        return found[0].rstrip()[-1] not in "」』）" or found[0][-1].isspace()
    follower = NEXT.match(line, found.end())
    word = (follower[1] or "") if follower else ""
    if word[:1].islower():
        return False
    if stop != ".":
        return True
    nearest = max(start, found.start() - LONGEST_ABBREVIATION)
    before = WORD.search(line, nearest, found.start())
    return _full_stop_ends(before[0] if before else "", word, closed=found[0].rstrip() != ".")


def _full_stop_ends(word: str, follower: str, *, closed: bool) -> bool:
    """Whether the full stop after ``word`` ends a sentence that ``follower`` would begin.

    ``closed``: a bracket or quote closes after the full stop, which then belongs to the inside.
    """
    name = word.casefold()
    if name in NEVER_END:
        return False
    if name in BEFORE_NUMBERS:
        return not follower[:1].isdigit()
    if closed or not (name in MAY_END or INITIALS.fullmatch(word)):
        return True
    return follower in STARTERS or follower in ("¿", "¡")


def _within(one: Sentence, limit: int, count: Count) -> Iterator[Sentence]:
    """``one`` if it fits, else pieces of it that do."""
    before, rest = one.before, one.text
    while True:
        head = _head(rest, limit, count)
        if len(head) < 2 or (len(head) == len(rest) and count(rest) <= limit):
            yield Sentence(text=rest, before=before, after=one.after)
            return
        words = rest[: _cut(head, limit, count)].rstrip()
        following = rest[len(words) :].lstrip()
        gap = rest[len(words) : len(rest) - len(following)]
        yield Sentence(text=words, before=before, after=gap)
        before, rest = "", following


def _head(text: str, limit: int, count: Count) -> str:
    """A beginning that is too long, or all: a text of a megabyte is not counted for each piece."""
    size = 16 * limit
    while size < len(text) and count(text[:size]) <= limit:
        size *= 2
    return text[:size]


def _cut(text: str, limit: int, count: Count) -> int:
    """The latest cut of the best kind that leaves a first piece within ``limit``.

    A clause mark early in the piece is passed over: pieces shorter than half of what fits cost
    more context than the mark is worth.
    """

    def fits(place: int) -> bool:
        return count(text[:place].rstrip()) <= limit

    kinds = [[found.end() for found in kind.finditer(text)] for kind in CUTS]
    furthest = _last(sorted({place for kind in kinds for place in kind} - {len(text)}), fits)
    if not furthest:
        everywhere = range(1, len(text))
        clusters = [i for i in everywhere if not _joins(text[i - 1], text[i])]
        return _last(clusters, fits) or _last(everywhere, fits) or 1
    for places in kinds:
        best = max((place for place in places if place <= furthest), default=0)
        if best * 2 >= furthest and fits(best):
            return best
    return furthest


def _joins(left: str, right: str) -> bool:
    """Whether the two are drawn as one character: a combining mark, an emoji sequence."""
    zero_width_joiner = "\u200d"
    return zero_width_joiner in (left, right) or unicodedata.category(right).startswith("M")


def _last(places: Sequence[int], fits: Callable[[int], bool]) -> int:
    """The last of the rising ``places`` that fits, 0 if none, by bisection.

    Counts rise with the text but for a token or so; then the place found fits, and the next one
    by chance may too.
    """
    low, high = 0, len(places)
    while low < high:
        middle = (low + high) // 2
        if fits(places[middle]):
            low = middle + 1
        else:
            high = middle
    return places[low - 1] if low else 0
