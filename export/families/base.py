"""What an architecture must say to become graphs.

A family reads a ``Checkpoint`` and writes ``encode`` and ``decode`` over the operation set. It
knows layers and special ids; it knows no backend, file or number format.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from edgegen.errors import CheckpointError
from edgegen.graph import Graph, Port
from edgegen.manifest import (
    Encoding,
    GenerationDefaults,
    Image,
    Infill,
    MemoryFormat,
    Speech,
    Translation,
)
from edgegen.shortlist import BIAS, ROWS, WORDS

from ..checkpoint import Checkpoint, Lexicon, Weight
from ..ops.base import Ops, V

Task = Literal[
    "text2text-generation",
    "automatic-speech-recognition",
    "text-generation",
    "image-to-text",
    "feature-extraction",
    "text-classification",
    "token-classification",
    "fill-mask",
]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The numbers ports are made of. ``recurrent_width`` > 0: a state per layer, no self cache.

    ``source`` is what ``encode`` takes: token ids, what a graph of its own makes of sound, sound as
    it is, or a picture. ``source_length``: rows of the memory it leaves; 0 is as many as it gets.
    ``merged``: self-attention sees the memory as the first rows of its past.
    """

    vocabulary: int
    width: int
    layers: int
    cache_heads: int = 0
    head_dim: int = 0
    recurrent_width: int = 0
    # Layers that see the last ``window`` positions only, and so need not keep others.
    window: int = 0
    window_layers: tuple[int, ...] = ()
    encoder: bool = False
    cross_layers: int = 0
    cross_heads: int = 0
    cross_head_dim: int = 0
    merged: bool = False
    source: Literal["ids", "features", "samples", "pixels"] = "ids"
    source_length: int = 0
    feature_bins: int = 0
    feature_frames: int = 0
    picture: tuple[int, int, int] = (0, 0, 0)  # channels, height, width
    source_masked: bool = True
    shortlisted: bool = False
    bidirectional_prompt: bool = False


class Family(ABC):
    """One architecture bound to one checkpoint."""

    model_types: ClassVar[tuple[str, ...]]
    task: Task
    # All tasks its checkpoints are exported for, where they are others than ``task``.
    every_task: ClassVar[tuple[Task, ...]] = ()
    # One line for docs/families.md: what it does not do.
    limits: ClassVar[str] = ""
    # Whether several of its texts can be decoded together.
    batched: ClassVar[bool] = True
    # transformers has this architecture, so its class is the parity gate's truth.
    in_transformers: bool = True
    parity_prompts: ClassVar[tuple[str, ...]] = (
        "The quick brown fox jumps over the lazy dog.",
        "In 1969, three astronauts flew to the Moon; two of them walked on it!",
        "a",
        "Please send the signed documents to our office before Friday, March 14th, "
        "and let us know whether the meeting on the following Tuesday still suits you.",
    )

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.config: Mapping[str, Any] = checkpoint.config
        # What the words of a text are chosen among, where that is asked for.
        self.lexicon: Lexicon | None = None

    @property
    @abstractmethod
    def shape(self) -> Shape: ...

    @property
    def source_vocabulary(self) -> int:
        """Rows of the table that ``encode`` looks ids up in."""
        return self.shape.vocabulary

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What the checkpoint can be exported for, its own task first."""
        return (self.task,)

    def decode(self, ops: Ops[V]) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no decoder")

    @abstractmethod
    def generation(self) -> GenerationDefaults: ...

    def encode(self, ops: Ops[V]) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no encoder")

    def weights(self) -> dict[str, Weight]:
        """The checkpoint's weights and what the family derives from them (exact folds)."""
        return dict(self.checkpoint.weights)

    def features(self, ops: Ops[V]) -> None:
        raise NotImplementedError(f"{type(self).__name__} takes no audio")

    def speech(self) -> Speech | None:
        return None

    def image(self) -> Image | None:
        return None

    def translation(self) -> Translation | None:
        return None

    def infill(self) -> Infill | None:
        return None

    def encoding(self) -> Encoding | None:
        """What an encoder that stands alone gives; None where there is a decoder."""
        return None

    def reference_weights(self) -> Mapping[str, Weight]:
        """The checkpoint's weights under the names of transformers' class for the task."""
        return self.checkpoint.weights

    def graph(self, name: str, cache_kind: str, memory: MemoryFormat = "fp32") -> Graph:
        """Ports of ``encode``, ``decode`` or ``features`` for one kind of cache and of memory."""
        if name == "features":
            return features_graph(self.shape, self.speech())
        if name == "encode":
            return encode_graph(self.shape, memory)
        return decode_graph(self.shape, cache_kind, memory)

    def graph_names(self) -> tuple[str, ...]:
        if not self.shape.encoder:
            return ("decode",)
        return ("features",) * (self.shape.source == "features") + ("encode", "decode")


def _port(name: str, dtype: str, *shape: int | str) -> Port:
    return Port(name=name, dtype=dtype, shape=shape)


def features_graph(shape: Shape, speech: Speech | None) -> Graph:
    if speech is None:
        raise CheckpointError("a family with audio features must say its speech settings.")
    return Graph(
        name="features",
        inputs=(_port("samples", "float32", "B", speech.window_samples),),
        outputs=(_port("features", "float32", "B", shape.feature_bins, shape.feature_frames),),
    )


def encode_graph(shape: Shape, memory: MemoryFormat = "fp32") -> Graph:
    sources = {
        "ids": _port("input_ids", "int64", "B", "S"),
        "features": _port("features", "float32", "B", shape.feature_bins, shape.feature_frames),
        "samples": _port("samples", "float32", "B", "T"),
        "pixels": _port("pixel_values", "float32", "B", *shape.picture),
    }
    inputs = [sources[shape.source]]
    if shape.source_masked:
        inputs.append(_port("source_mask", "float32", "B", "S"))
    outputs = _memory(shape, memory)
    if shape.shortlisted:
        outputs.append(_port(WORDS, "int64", "B", "K"))
    return Graph(name="encode", inputs=tuple(inputs), outputs=tuple(outputs))


def _memory(shape: Shape, memory: MemoryFormat) -> list[Port]:
    """Keys and values of the source, those of 8 bits with their scales, and what logits of its
    shortlist are made with."""
    found: list[Port] = []
    for name in (f"{part}_{i}" for i in range(shape.cross_layers) for part in ("key", "value")):
        found.append(_remembered(shape, f"cross_{name}", "int8" if memory == "int8" else "float32"))
        if memory == "int8":
            width = shape.cross_heads * (shape.cross_head_dim or shape.head_dim)
            found.append(_port(f"cross_scale_{name}", "float32", "B", 1, width))
    if shape.shortlisted:
        found.append(_port(ROWS, "float32", "B", "K", shape.width))
        found.append(_port(BIAS, "float32", "B", 1, "K"))
    return found


def _remembered(shape: Shape, name: str, dtype: str) -> Port:
    dim, length = shape.cross_head_dim or shape.head_dim, shape.source_length or "S"
    return _port(name, dtype, "B", shape.cross_heads, length, dim)


def decode_graph(shape: Shape, cache_kind: str, memory: MemoryFormat = "fp32") -> Graph:
    inputs = [
        _port("tokens", "int64", "B", "n"),
        _port("positions", "int64", "B", "n"),
        _port("past_length", "int64", "B"),
        _port("window_length", "int64", "B"),
        _port("key_positions", "int64", "B", "past+n"),
        _port("visible", "float32", "B", "n", "past+n"),
        _port("parents", "int64", "B", "n"),
        _port("logit_rows", "int64", "m"),
    ]
    if shape.encoder:
        if shape.source_masked:
            inputs.append(_port("source_mask", "float32", "B", "S"))
        inputs += _memory(shape, memory)
    columns = "K" if shape.shortlisted else shape.vocabulary
    outputs = [_port("logits", "float32", "B", "m", columns)]
    for i in range(shape.layers):
        cache_in, cache_out = _cache_ports(shape, cache_kind, i)
        inputs += cache_in
        outputs += cache_out
    return Graph(name="decode", inputs=tuple(inputs), outputs=tuple(outputs))


def _cache_ports(shape: Shape, kind: str, i: int) -> tuple[list[Port], list[Port]]:
    if kind == "recurrent":
        width = shape.recurrent_width
        return (
            [_port(f"state_{i}", "float32", "states", width)],
            [_port(f"new_state_{i}", "float32", "B", "n", width)],
        )
    heads, dim = shape.cache_heads, shape.head_dim
    parts, short = ("key", "value"), "window_" if i in shape.window_layers else ""
    if kind == "append":
        return (
            [_port(f"past_{p}_{i}", "float32", "B", f"{short}past", heads, dim) for p in parts],
            [_port(f"new_{p}_{i}", "float32", "B", "n", heads, dim) for p in parts],
        )
    rows = f"{short}capacity"
    return (
        [_port(f"{p}_cache_{i}", "float32", "B", heads, rows, dim) for p in parts],
        [_port(f"{p}_cache_out_{i}", "float32", "B", heads, rows, dim) for p in parts],
    )


def end_ids(said: Mapping[str, Any], default: int) -> tuple[int, ...]:
    """``eos_token_id`` as config files write it: a number, a list or nothing."""
    found = said.get("eos_token_id")
    if found is None:
        return (default,)
    return tuple(int(i) for i in found) if isinstance(found, list | tuple) else (int(found),)
