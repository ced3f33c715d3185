"""The gate of encoders that stand alone: the same texts through the checkpoint and the bundle.

What they give is compared as numbers, and the texts once more as one padded batch with themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgegen.devices import DeviceOptions, Session, device_named
from edgegen.errors import ExportError
from edgegen.graph import HIDDEN
from edgegen.manifest import Parity, PromptParity, Variant

from .families.base import Family
from .ops.torch_ops import TorchOps
from .options import ExportOptions
from .parity import DEVICES, encode, judge, relative
from .reference import Logits, TorchReference, TransformersReference
from .stepper import run

Outputs = Mapping[str, Logits]


class EncoderReference(TransformersReference):
    """transformers' class for the task, under the graph's names."""

    @torch.no_grad()
    def outputs(self, ids: Sequence[int]) -> Outputs:
        """``hidden [S, width]`` and ``embedding [width]``, or ``logits`` of the task's shape."""
        found = self.model(input_ids=torch.tensor([list(ids)]))
        if self.family.task != "feature-extraction":
            return {"logits": np.asarray(found.logits[0].numpy(), np.float32)}
        hidden = np.asarray(found.last_hidden_state[0].numpy(), np.float32)
        return {"hidden": hidden, "embedding": self.pooled(hidden)}

    def pooled(self, hidden: Logits) -> Logits:
        said = self.family.encoding()
        assert said is not None
        ways = {"cls": hidden[0], "mean": hidden.mean(0), "max": hidden.max(0)}
        vector = ways[said.pooling]
        length = np.float32(np.linalg.norm(vector)) if said.unit else np.float32(1)
        return np.asarray(vector / length, np.float32)


class TorchEncoderReference:
    """The family's own graph, evaluated in torch."""

    name = TorchReference.name

    def __init__(self, family: Family) -> None:
        self.family, self.weights = family, family.weights()

    @torch.no_grad()
    def outputs(self, ids: Sequence[int]) -> Outputs:
        feeds = {
            "input_ids": [list(ids)],
            "source_mask": np.zeros((1, len(ids)), np.float32),
            "logit_rows": np.arange(len(ids)),
        }
        ops = TorchOps(self.weights, feeds)
        self.family.encode(ops)
        return {name: np.asarray(value[0], np.float32) for name, value in ops.results.items()}


class EncoderGate:
    """Runs the reference once and any number of variants against it."""

    def __init__(self, family: Family, options: ExportOptions) -> None:
        self.family, self.options = family, options
        make = EncoderReference if family.in_transformers else TorchEncoderReference
        reference = make(family)
        self.name = reference.name
        tokenizers = family.checkpoint.tokenizers
        if not tokenizers:
            raise ExportError("the checkpoint has no tokenizer; use --no-parity to export anyway.")
        self.texts = options.parity_prompts or family.parity_prompts
        self.ids = [encode(tokenizers["source"], text) for text in self.texts]
        self.truths = [reference.outputs(ids) for ids in self.ids]

    def check(self, folder: Path, variant: Variant) -> Parity:
        """Raises ``ParityError`` with the worst text."""
        device = device_named(DEVICES[variant.format])
        session = device.compile(folder / variant.file, variant, DeviceOptions())
        try:
            alone = [called(session, [ids])[0] for ids in self.ids]
            together = called(session, self.ids)
        finally:
            session.close()
        said = self.family.encoding()
        scores = "softmax" if said is None else said.scores
        rows = zip(alone, self.truths, self.texts, self.ids, strict=True)
        texts = [
            PromptParity(
                prompt=text,
                tokens=len(ids),
                agreement=agreement(found, truth, scores),
                error=max(relative(found[name], truth[name]) for name in truth),
            )
            for found, truth, text, ids in rows
        ]
        apart = zip(together, alone, strict=True)
        parity = Parity(
            format=variant.format,
            weight_format=variant.precision.weight_format,
            reference=self.name,
            max_error=max(text.error for text in texts),
            rows_error=max(relative(one[n], other[n]) for one, other in apart for n in other),
            agreement=float(np.mean([text.agreement for text in texts])),
            prompts=tuple(texts),
        )
        judge(parity, self.options, "answers")
        return parity


def agreement(found: Outputs, truth: Outputs, scores: str) -> float:
    """What ``scores`` makes of logits decides: the share of equal arg-maxes, of labels given alike,
    or where numbers are asked for (one logit, a regression) 1 less their error. Of embeddings the
    cosine, 0 for opposite ones."""
    if "logits" in truth:
        here, there = found["logits"], truth["logits"]
        if there.shape[-1] == 1 or scores == "none":
            return max(0.0, 1.0 - relative(here, there))
        if scores == "sigmoid":
            return float(np.mean((here > 0) == (there > 0)))
        return float(np.mean(here.argmax(-1) == there.argmax(-1)))
    one, other = found["embedding"], truth["embedding"]
    cosine = float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))
    return min(max(cosine, 0.0), 1.0)


def called(session: Session, texts: Sequence[Sequence[int]]) -> list[Outputs]:
    """One call over texts padded on the right; each text's own rows."""
    longest = max(len(ids) for ids in texts)
    ids = np.zeros((len(texts), longest), np.int64)
    mask = np.full(ids.shape, HIDDEN, np.float32)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = text, 0
    feeds: dict[str, Any] = {
        "input_ids": ids, "source_mask": mask, "logit_rows": np.arange(longest)
    }  # fmt: skip
    found = run(session, feeds)
    return [
        {name: own(array[row], len(text)) for name, array in found.items()}
        for row, text in enumerate(texts)
    ]


def own(rows: Logits, length: int) -> Logits:
    """What is given by token is cut to a text's tokens."""
    return rows[:length] if rows.ndim == 2 else rows
