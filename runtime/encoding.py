"""Encoders that stand alone: vectors, classes, tagged spans and masked words of texts.

Texts are read in batches of about equal length, padded on the right and masked, so each gives what
it would alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgegen.devices.device import Tensor
from edgegen.errors import BundleError, InputError
from edgegen.graph import HIDDEN
from edgegen.manifest import Encoding

from .engine import Engine
from .methods import check_method, refuse_method
from .options import GenerationOptions
from .tags import AGGREGATIONS, Span, Token, spans_of
from .task import Record, Running, Source
from .tokenizer import JsonTokenizer, Located, Tokenizer

if TYPE_CHECKING:
    from edgegen.manifest import Manifest

Floats = NDArray[np.float32]
# Texts a call.
BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Label:
    """A class and how sure the model is of it: a probability, or the logit where the checkpoint
    makes none of it."""

    label: str
    score: float


@dataclass(frozen=True, kw_only=True)
class Filling:
    """A token for a mask, its probability, and the text with it."""

    token: str
    id: int
    score: float
    text: str


class EncoderTask:
    """What ``embed``, ``classify``, ``tag`` and ``fill_mask`` do."""

    def __init__(self, engine: Engine, tokenizers: Mapping[str, Tokenizer]) -> None:
        self.engine = engine
        self.tokenizer = tokenizers["source"]
        found = engine.manifest.encoding
        if found is None:
            raise BundleError(f"{engine.bundle.path}: an encoder's bundle has no encoding record.")
        self.encoding: Encoding = found

    def run(self, source: Source, options: GenerationOptions) -> Running:
        refuse_method(self.engine.manifest, "generate")

    # ------------------------------------------------------------------ answers

    def embed(self, texts: Sequence[str]) -> Floats:
        """``float32 [texts, width]``."""
        found = np.zeros((len(texts), self.encoding.width), np.float32)
        for at, _, outputs, row in self._read(texts):
            found[at] = outputs["embedding"][row]
        return found

    def classify(self, texts: Sequence[str]) -> list[list[Label]]:
        """All classes of each text, the likeliest first."""
        found: list[list[Label]] = [[] for _ in texts]
        for at, _, outputs, row in self._read(texts):
            scores = probabilities(outputs["logits"][row], self.encoding.scores)
            order = np.argsort(-scores, kind="stable")
            found[at] = [
                Label(label=self.encoding.labels[i], score=float(scores[i])) for i in order
            ]
        return found

    def tag(self, texts: Sequence[str], aggregation: str) -> list[list[Span]]:
        if aggregation not in AGGREGATIONS:
            raise InputError(
                f"unknown aggregation {aggregation!r}; expected one of {', '.join(AGGREGATIONS)}."
            )
        found: list[list[Span]] = [[] for _ in texts]
        for at, located, outputs, row in self._read(texts):
            scores = probabilities(outputs["logits"][row, : len(located.ids)], "softmax")
            tokens = [
                Token(start=start, end=end, inside=inside, scores=scores[i])
                for i, ((start, end), inside, special) in enumerate(
                    zip(located.spans, located.inside, located.special, strict=True)
                )
                if not special
            ]
            found[at] = spans_of(texts[at], tokens, self.encoding.labels, aggregation)
        return found

    def fill_mask(self, text: str, top_k: int) -> list[list[Filling]]:
        """The likeliest tokens of each mask in turn."""
        if not 1 <= top_k <= self.engine.manifest.vocabulary:
            raise InputError(
                f"top_k {top_k}: expected 1 to the vocabulary's {self.engine.manifest.vocabulary}."
            )
        located = self._located(text)
        places = [i for i, token in enumerate(located.ids) if token == self.encoding.mask]
        if not places:
            mask = self.tokenizer.decode([self.encoding.mask], skip_special=False)
            raise InputError(f"the text has no mask; write {mask} where a word is to be found.")
        logits = self._call([located], places)["logits"][0]
        rows = zip(places, probabilities(logits, "softmax"), strict=True)
        return [self._fillings(located.ids, place, scores, top_k) for place, scores in rows]

    def _fillings(
        self, ids: Sequence[int], place: int, scores: Floats, top_k: int
    ) -> list[Filling]:
        best = np.argsort(-scores, kind="stable")[:top_k]
        return [
            Filling(
                token=self.tokenizer.decode([int(token)], skip_special=False).strip(),
                id=int(token),
                score=float(scores[token]),
                text=self.tokenizer.decode([*ids[:place], int(token), *ids[place + 1 :]]),
            )
            for token in best
        ]

    # ------------------------------------------------------------------ reading

    def _read(
        self, texts: Sequence[str]
    ) -> Iterator[tuple[int, Located, Mapping[str, Tensor], int]]:
        """Each text's place, tokens, the outputs of its batch and its row there."""
        located = [self._located(text) for text in texts]
        order = sorted(range(len(texts)), key=lambda at: len(located[at].ids))
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            outputs = self._call([located[at] for at in batch])
            for row, at in enumerate(batch):
                yield at, located[at], outputs, row

    def _located(self, text: str) -> Located:
        tokenizer = self.tokenizer
        if not isinstance(tokenizer, JsonTokenizer):
            raise BundleError("an encoder alone needs a tokenizer.json; export the model again.")
        found = tokenizer.located(text)
        if not found.ids:
            raise InputError("the text is empty; give some text to read.")
        most = self.engine.manifest.generation.max_source
        if not most or len(found.ids) <= most:
            return found
        Record().warn(
            f"a text has {len(found.ids)} tokens and the model takes {most}; its end was left out."
        )
        return found.first(most)

    def _call(
        self, texts: Sequence[Located], rows: Sequence[int] | None = None
    ) -> Mapping[str, Tensor]:
        """One call over texts padded to the longest; ``rows`` are the places with logits."""
        longest = max(len(text.ids) for text in texts)
        ids = np.full((len(texts), longest), self.engine.manifest.generation.pad, np.int64)
        mask = np.full(ids.shape, HIDDEN, np.float32)
        for row, text in enumerate(texts):
            ids[row, : len(text.ids)], mask[row, : len(text.ids)] = text.ids, 0
        feeds: dict[str, Tensor] = {"input_ids": ids, "source_mask": mask}
        if rows is not None:
            feeds["logit_rows"] = np.asarray(rows, np.int64)
        session = self.engine.session("encode")
        wanted = session.graph.input_names()
        # A request of its own: its buffers live as long as what is read from them.
        return session.request().run({k: v for k, v in feeds.items() if k in wanted})


def probabilities(logits: Floats, kind: str) -> Floats:
    """``[..., classes]`` by the manifest's word: ``softmax``, ``sigmoid`` or ``none``."""
    if kind == "none":
        return logits
    if kind == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-logits)), np.float32)
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True), np.float32)


def encoder_for(task: object, manifest: Manifest, asked: str) -> EncoderTask:
    """The task, if it is the one ``asked`` is a method of. Raises ``InputError``."""
    check_method(manifest, asked)
    assert isinstance(task, EncoderTask)
    return task
