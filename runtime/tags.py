"""Tagged spans of a text from the classes of its tokens.

Words and spans are put together as transformers' token classification pipeline does
(``pipelines/token_classification.py``): tags ``B-X`` begin a span, ``I-X`` go on with one of X.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
# How tokens become words: not at all, or by the first token's, the surest or the mean class.
AGGREGATIONS = ("none", "simple", "first", "average", "max")
OUTSIDE = "O"


@dataclass(frozen=True, kw_only=True)
class Span:
    """``text[start:end]`` and its class; characters, not bytes."""

    label: str
    score: float
    start: int
    end: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Token:
    """Probabilities ``[classes]`` of what stands at ``start`` to ``end``. ``inside``: it goes on
    with a word."""

    start: int
    end: int
    inside: bool
    scores: Floats


@dataclass(frozen=True, kw_only=True)
class _Tagged:
    label: str
    score: float
    start: int
    end: int


def spans_of(
    text: str, tokens: Sequence[Token], labels: Sequence[str], aggregation: str
) -> list[Span]:
    """``none``: the tokens that are not outside; otherwise neighbours of a class as one."""
    words = aggregation in ("first", "average", "max")
    units = grouped_words(tokens) if words else [[token] for token in tokens]
    tagged = [tag_of(unit, labels, aggregation) for unit in units]
    if aggregation == "none":
        return [span(text, [one], one.label) for one in tagged if one.label != OUTSIDE]
    runs: list[list[_Tagged]] = []
    for one in tagged:
        begins, name = split_label(one.label)
        if runs and not begins and split_label(runs[-1][-1].label)[1] == name:
            runs[-1].append(one)
        else:
            runs.append([one])
    named = [(split_label(run[0].label)[1], run) for run in runs]
    return [span(text, run, name) for name, run in named if name != OUTSIDE]


def grouped_words(tokens: Sequence[Token]) -> list[list[Token]]:
    words: list[list[Token]] = []
    for token in tokens:
        if token.inside and words:
            words[-1].append(token)
        else:
            words.append([token])
    return words


def tag_of(unit: Sequence[Token], labels: Sequence[str], aggregation: str) -> _Tagged:
    """A token's or a word's class."""
    scores = unit[0].scores
    if aggregation == "average":
        scores = np.mean([token.scores for token in unit], axis=0)
    elif aggregation == "max":
        scores = max(unit, key=lambda token: float(token.scores.max())).scores
    best = int(scores.argmax())
    return _Tagged(
        label=labels[best], score=float(scores[best]), start=unit[0].start, end=unit[-1].end
    )


def split_label(label: str) -> tuple[bool, str]:
    """Whether it begins a span, and its name without the mark that says so."""
    marked = label[:2] in ("B-", "I-")
    return label.startswith("B-"), label[2:] if marked else label


def span(text: str, run: Sequence[_Tagged], label: str) -> Span:
    """A run of one class; spaces at its ends are not part of it."""
    start, end = run[0].start, run[-1].end
    found = text[start:end]
    start += len(found) - len(found.lstrip())
    return Span(
        label=label,
        score=float(np.mean([one.score for one in run])),
        start=start,
        end=start + len(found.strip()),
        text=found.strip(),
    )
