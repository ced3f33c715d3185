"""A checkpoint: what every source yields and every family reads.

Weights carry transformers' parameter names and orientation (``[out, in]``) wherever transformers
has the architecture. Nothing here knows a file format or a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


# What a source calls matrices that it had not quantised.
DENSE_ORIGINS = ("float32", "float16", "bfloat16", "float64")


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """A matrix that its source had already quantised, in a form integer kernels can hold.

    ``value = (codes - zeros) * scales``, blocks run along the input axis.
    codes ``uint8 [out, in]`` (each below ``2**bits``), scales ``float32 [out, in / block]``,
    zeros ``uint8 [out, in / block]``.
    """

    codes: NDArray[np.uint8]
    scales: Array
    zeros: NDArray[np.uint8]
    block: int
    bits: int
    origin: str  # what the source calls it: "Q8_0", "intgemm8"

    def dense(self) -> Array:
        """``float32 [out, in]``."""
        rows, columns = self.codes.shape
        shaped = self.codes.reshape(rows, columns // self.block, self.block).astype(np.float32)
        spread = (shaped - self.zeros[..., None].astype(np.float32)) * self.scales[..., None]
        return np.ascontiguousarray(spread.reshape(rows, columns))


@dataclass(frozen=True)
class Weight:
    """One parameter, read when asked for. ``blocks`` is set when the source was quantised and the
    codes fit; ``origin`` names the source's own number format ("float32", "Q4_1", ...)."""

    shape: tuple[int, ...]
    read: Callable[[], Array]
    blocks: Callable[[], Blocks] | None = None
    origin: str = "float32"

    @classmethod
    def of(cls, array: NDArray[Any], origin: str | None = None) -> Weight:
        """A weight that is already in memory."""
        return cls(
            tuple(array.shape),
            lambda: np.ascontiguousarray(array, dtype=np.float32),
            origin=origin or str(array.dtype),
        )

    @classmethod
    def coded(cls, shape: tuple[int, ...], blocks: Callable[[], Blocks], origin: str) -> Weight:
        """A matrix in the codes of its source."""
        return cls(shape, lambda: blocks().dense(), blocks=blocks, origin=origin)

    def equals(self, other: Weight) -> bool:
        """Whether the values are the same: a tied table under another name."""
        return self is other or (
            self.shape == other.shape and np.array_equal(self.read(), other.read())
        )


@dataclass(frozen=True)
class TokenizerFiles:
    """A tokenizer as it goes into the bundle. ``kind``: ``tokenizers`` (a tokenizer.json in
    ``data``) or ``bytes`` (no file; byte values plus ``offset``, ByT5). ``vocabulary``: a JSON
    object that numbers the pieces ``data`` cuts text into, where ``data`` does not itself."""

    kind: str
    data: bytes = b""
    offset: int = 0
    vocabulary: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """How a checkpoint makes one vector of a text: of its first token (``cls``), by the ``mean`` or
    the ``max`` of its tokens, scaled to length 1 when ``unit``. ``max_tokens`` 0: the model's."""

    how: Literal["cls", "mean", "max"]
    unit: bool = False
    max_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Lexicon:
    """Words a translation is made of: the ``frequent`` first ids of the vocabulary, and for each
    source word the row of ``likely [vocabulary, most]`` (filled up with 0)."""

    likely: NDArray[np.int32]
    frequent: int


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a checkpoint came from, for the bundle's provenance."""

    source: str  # what the user named
    kind: str  # entry of the sources table
    revision: str = ""  # commit, package version or file hash
    licence: str = "unknown"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model on its way to becoming graphs.

    ``config``, ``generation`` and ``preprocessor`` have the keys of transformers' config.json,
    generation_config.json and preprocessor_config.json. ``tokenizers`` maps ``source`` and
    ``target`` to files; one entry, ``source``, when both are the same.
    """

    config: Mapping[str, Any]
    weights: Mapping[str, Weight]
    tokenizers: Mapping[str, TokenizerFiles]
    origin: Origin
    generation: Mapping[str, Any] = field(default_factory=dict)
    preprocessor: Mapping[str, Any] = field(default_factory=dict[str, Any])
    chat_template: str | None = None
    tokenizer_config: Mapping[str, Any] = field(default_factory=dict)
    pooling: Pooling | None = None
    # Read when it is asked for.
    lexicon: Callable[[], Lexicon] | None = None

    @property
    def model_type(self) -> str:
        return str(self.config.get("model_type", ""))


def watched(checkpoint: Checkpoint) -> tuple[Checkpoint, set[str]]:
    """The checkpoint again, and the names of those of its weights that were read so far."""
    read: set[str] = set()

    def note(name: str, weight: Weight) -> Array:
        read.add(name)
        return weight.read()

    def note_blocks(name: str, blocks: Callable[[], Blocks]) -> Blocks:
        read.add(name)
        return blocks()

    weights = {
        name: replace(
            one,
            read=partial(note, name, one),
            blocks=None if one.blocks is None else partial(note_blocks, name, one.blocks),
        )
        for name, one in checkpoint.weights.items()
    }
    return replace(checkpoint, weights=weights), read
