"""Fakes that stand where a real part would: drafters that know everything or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from edgegen.runtime.drafters.base import Context
from edgegen.runtime.verify import Draft, Lossless


class Oracle:
    """Knows the text, prompt included, and drafts it as a chain."""

    lossless: ClassVar[Lossless] = "sample-identical"

    def __init__(self, text: Sequence[int]) -> None:
        self.text = tuple(text)

    def draft(self, context: Context, limit: int) -> Draft:
        at = len(context.tokens)
        return Draft.chain(self.text[at : at + limit])

    def commit(self, length: int) -> None:
        """Knows it all already."""


class Adversary:
    """Random trees of random size: wrong tokens, repeated siblings, end tokens in the middle."""

    lossless: ClassVar[Lossless] = "sample-identical"

    def __init__(self, vocabulary: int, seed: int = 0) -> None:
        self.vocabulary = vocabulary
        self.random = np.random.default_rng(seed)
        self.commits: list[int] = []

    def draft(self, context: Context, limit: int) -> Draft:
        count = int(self.random.integers(0, limit + 1))
        tokens = self.random.integers(0, self.vocabulary, count)
        parents = [int(self.random.integers(-1, node)) if node else -1 for node in range(count)]
        return Draft(tuple(map(int, tokens)), tuple(parents))

    def commit(self, length: int) -> None:
        self.commits.append(length)


class Forest:
    """Knows the text, prompt included, and hides it in a tree of noise, its nodes far apart."""

    lossless: ClassVar[Lossless] = "sample-identical"

    def __init__(self, text: Sequence[int], vocabulary: int, seed: int = 0) -> None:
        self.text, self.vocabulary = tuple(text), vocabulary
        self.random = np.random.default_rng(seed)

    def draft(self, context: Context, limit: int) -> Draft:
        truth = list(self.text[len(context.tokens) :])
        tokens: list[int] = []
        parents: list[int] = []
        tip = -1
        for node in range(limit):
            if truth and self.random.random() < 0.5:
                tokens.append(truth.pop(0))
                parents.append(tip)
                tip = node
            else:
                tokens.append(int(self.random.integers(0, self.vocabulary)))
                parents.append(int(self.random.integers(-1, node)) if node else -1)
        return Draft(tuple(tokens), tuple(parents))

    def commit(self, length: int) -> None:
        """Knows it all already."""


class ToyTarget:
    """A causal toy model: logits [V] are a fixed random function of the last three tokens."""

    def __init__(self, vocabulary: int, seed: int = 0) -> None:
        self.vocabulary, self.seed = vocabulary, seed

    def logits(self, text: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        tail = [int(token) + 1 for token in text[-3:]]
        random = np.random.default_rng([self.seed, *tail])
        return random.normal(size=self.vocabulary, scale=1.5).astype(np.float32)

    def rows(
        self, text: Sequence[int], draft: Draft
    ) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        """Logits [1+n, V]: what follows the text, and what follows each draft node."""
        paths = [draft.path_to(node) for node in range(-1, len(draft))]
        return np.stack(
            [self.logits([*text, *(draft.tokens[node] for node in path)]) for path in paths]
        )
