"""Encoders that stand alone: embeddings, classes of texts and of tokens, masked words.

An architecture writes ``contextual``; which task a checkpoint is for is the matter of its class.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

from edgegen.errors import CheckpointError
from edgegen.graph import Graph, Port
from edgegen.manifest import Encoding, GenerationDefaults, MemoryFormat

from ..checkpoint import Checkpoint, Pooling, Weight
from ..ops.base import Ops, V
from .base import Family, Shape, Task

# What transformers' classes end in.
CLASSES: Mapping[str, Task] = {
    "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "Model": "feature-extraction",
}
MASKS = ("[MASK]", "<mask>")


class EncoderFamily(Family):
    """``encode`` alone. Every checkpoint gives embeddings; further tasks need its head."""

    every_task = tuple(CLASSES.values())

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.task = task_of(checkpoint)
        self.pooling = checkpoint.pooling or Pooling(how="mean")

    @property
    def tasks(self) -> tuple[Task, ...]:
        return tuple(dict.fromkeys((self.task, "feature-extraction")))

    # ----------------------------------------------------- an architecture's own

    @property
    @abstractmethod
    def width(self) -> int: ...
    @property
    @abstractmethod
    def output_table(self) -> str:
        """The table masked words are chosen from."""

    @property
    def classifier_pooling(self) -> Literal["cls", "mean"]:
        """What of a text its class is read off."""
        return "cls"

    @abstractmethod
    def contextual(self, ops: Ops[V]) -> V:
        """``input_ids`` and ``source_mask`` to the last layer's ``[B, S, width]``."""

    @abstractmethod
    def before_outputs(self, ops: Ops[V], x: V) -> V:
        """What stands before the classifier or the output table."""

    # ------------------------------------------------------------------- graphs

    @property
    def shape(self) -> Shape:
        return Shape(
            vocabulary=int(self.config["vocab_size"]), width=self.width, layers=0, encoder=True
        )

    def graph_names(self) -> tuple[str, ...]:
        return ("encode",)

    def graph(self, name: str, cache_kind: str, memory: MemoryFormat = "fp32") -> Graph:
        labels = len(self.labels)
        outputs: Mapping[str, tuple[Port, ...]] = {
            "feature-extraction": embedding_ports(self.width),
            "text-classification": (floats("logits", "B", labels),),
            "token-classification": (floats("logits", "B", "S", labels),),
            "fill-mask": (floats("logits", "B", "m", self.shape.vocabulary),),
        }
        return encoder_graph(outputs[self.task])

    def encode(self, ops: Ops[V]) -> None:
        x = self.contextual(ops)
        if self.task == "feature-extraction":
            give_embedding(ops, x, self.pooling)
        elif self.task == "fill-mask":
            bias = "decoder.bias" if "decoder.bias" in self.checkpoint.weights else None
            ops.head(self.before_outputs(ops, ops.chosen_rows(x)), self.output_table, bias)
        else:
            texts = self.task == "text-classification"
            read = ops.pool(x, self.classifier_pooling) if texts else x
            ready = self.before_outputs(ops, read)
            ops.output("logits", ops.linear(ready, "classifier.weight", "classifier.bias"))

    # ------------------------------------------------------------------ records

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes in the order of the classifier's rows."""
        if self.task not in ("text-classification", "token-classification"):
            return ()
        count = self.checkpoint.weights["classifier.weight"].shape[0]
        said: Any = self.config.get("id2label") or {}
        named = {int(key): str(name) for key, name in said.items()}
        return tuple(named.get(i, f"LABEL_{i}") for i in range(count))

    def encoding(self) -> Encoding:
        embeds = self.task == "feature-extraction"
        kind = self.config.get("problem_type")
        sigmoid = kind == "multi_label_classification" or (kind is None and len(self.labels) == 1)
        return Encoding(
            width=self.width,
            pooling=self.pooling.how if embeds else "none",
            unit=embeds and self.pooling.unit,
            labels=self.labels,
            scores="none" if kind == "regression" else "sigmoid" if sigmoid else "softmax",
            mask=mask_id(self.checkpoint) if self.task == "fill-mask" else -1,
        )

    def generation(self) -> GenerationDefaults:
        most = int(self.config.get("max_position_embeddings") or 0)
        lengths = [length for length in (most, self.pooling.max_tokens) if length]
        return GenerationDefaults(
            start=(),
            end=(),
            pad=int(self.config.get("pad_token_id") or 0),
            max_source=min(lengths, default=0),
        )

    def reference_weights(self) -> Mapping[str, Weight]:
        """A bare stack's class in transformers names its layers without ``model.``."""
        weights = self.checkpoint.weights
        if self.task != "feature-extraction":
            return weights
        inside = {n.removeprefix("model."): w for n, w in weights.items() if n.startswith("model.")}
        return inside or weights


def floats(name: str, *shape: int | str) -> Port:
    return Port(name=name, dtype="float32", shape=shape)


def embedding_ports(width: int) -> tuple[Port, ...]:
    return floats("hidden", "B", "S", width), floats("embedding", "B", width)


def encoder_graph(outputs: tuple[Port, ...]) -> Graph:
    """``encode`` of an encoder that stands alone."""
    inputs = (
        Port(name="input_ids", dtype="int64", shape=("B", "S")),
        floats("source_mask", "B", "S"),
        Port(name="logit_rows", dtype="int64", shape=("m",)),
    )
    return Graph(name="encode", inputs=inputs, outputs=outputs)


def give_embedding(ops: Ops[V], x: V, pooling: Pooling) -> None:
    """The last layer's rows, and the vector of the text they are pooled into."""
    ops.output("hidden", x)
    pooled = ops.pool(x, pooling.how)
    ops.output("embedding", ops.unit(pooled) if pooling.unit else pooled)


def task_of(checkpoint: Checkpoint) -> Task:
    """By the class the checkpoint was saved from; sentence-transformers' are for embeddings."""
    named = [str(name) for name in checkpoint.config.get("architectures") or ()]
    if checkpoint.pooling is not None or not named:
        return "feature-extraction"
    for ending, task in CLASSES.items():
        if named[0].endswith(ending):
            return task
    raise CheckpointError(
        f"{named[0]}: this class is not supported; expected one that ends in {', '.join(CLASSES)} "
        "(or export its layers with --task feature-extraction from a checkpoint of those alone)."
    )


def mask_id(checkpoint: Checkpoint) -> int:
    """The id of the token that stands for a word to be found; -1 where there is none."""
    if checkpoint.config.get("mask_token_id") is not None:
        return int(checkpoint.config["mask_token_id"])
    files = checkpoint.tokenizers.get("source")
    if files is None or not files.data:
        return -1
    said: Any = checkpoint.tokenizer_config.get("mask_token")
    named = said.get("content") if isinstance(said, Mapping) else said
    tokens = {t["content"]: t["id"] for t in json.loads(files.data).get("added_tokens", ())}
    return next((int(tokens[name]) for name in (named, *MASKS) if name in tokens), -1)
