"""What a backend must give: the operations everything else is composed of.

A torch body evaluates them, an ONNX body records them. Shapes given to ``reshape`` use ONNX's
words: 0 keeps a dimension, -1 is what is left.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from .specs import Activation, Norm

V = TypeVar("V")


class Primitives(ABC, Generic[V]):
    """One backend's body for a graph. ``inputs`` and ``results`` are the graph's ports by name."""

    cache_kind = "append"

    def __init__(self) -> None:
        self.results: dict[str, V] = {}
        self._shared: dict[Any, V] = {}

    @abstractmethod
    def input(self, name: str) -> V: ...
    @abstractmethod
    def constant(self, value: Any, dtype: str = "float32") -> V: ...
    @abstractmethod
    def parameter(self, name: str) -> V:
        """A dense parameter as it is."""

    @abstractmethod
    def linear(self, x: V, weight: str, bias: str | None = None) -> V:
        """``x @ weight.T + bias`` with ``weight [out, in]``; where quantised weights live."""

    @abstractmethod
    def gather_rows(self, table: str, ids: V) -> V:
        """Rows of a parameter table: ids ``[B, n]`` -> ``[B, n, width]``; may be quantised."""

    @abstractmethod
    def unary(self, kind: str, x: V) -> V:
        """relu, sigmoid, tanh, erf, sqrt, log, cos, sin, neg, abs."""

    @abstractmethod
    def binary(self, kind: str, x: V, y: V) -> V:
        """add, sub, mul, div, max, min, greater, less_equal."""

    @abstractmethod
    def matmul(self, x: V, y: V) -> V: ...
    @abstractmethod
    def softmax(self, x: V) -> V: ...
    @abstractmethod
    def transpose(self, x: V, order: Sequence[int]) -> V: ...
    @abstractmethod
    def reshape(self, x: V, shape: Sequence[int]) -> V: ...
    @abstractmethod
    def unsqueeze(self, x: V, axis: int) -> V: ...
    @abstractmethod
    def split(self, x: V, sizes: Sequence[int]) -> list[V]:
        """Along the last axis."""

    @abstractmethod
    def concat(self, values: Sequence[V], axis: int) -> V: ...
    @abstractmethod
    def gather(self, x: V, indices: V, axis: int) -> V: ...
    @abstractmethod
    def where(self, condition: V, x: V, y: V) -> V: ...
    @abstractmethod
    def cast(self, x: V, dtype: str) -> V: ...
    @abstractmethod
    def mean(self, x: V, axis: int) -> V:
        """Keeps the axis."""

    @abstractmethod
    def maximum(self, x: V, axes: Sequence[int]) -> V:
        """Reduction; keeps the axes."""

    @abstractmethod
    def conv1d(self, x: V, weight: str, bias: str | None, stride: int, padding: int) -> V:
        """x ``[B, channels, time]``."""

    @abstractmethod
    def pad_reflect(self, x: V, left: int, right: int) -> V:
        """Mirror ``[B, time]`` at its ends, the edge itself not repeated."""

    @abstractmethod
    def arange(self, like: V, axis: int) -> V:
        """``int64 [size of axis]``: 0, 1, ... as many as ``like`` has along ``axis``."""

    @abstractmethod
    def size(self, x: V, axis: int) -> V:
        """``int64`` scalar."""

    @abstractmethod
    def latest(self, x: V, rows: V, axis: int) -> V:
        """The last ``rows``, an ``int64`` scalar of 1 or more, along ``axis``."""

    @abstractmethod
    def norm(self, x: V, spec: Norm) -> V: ...
    @abstractmethod
    def follow_parents(self, keep: V, gain: V, states: V, parents: V, positions: V) -> V:
        """``c[j] = keep[j] * c[parents[j]] + gain[j]`` over the rows of a call, flattened.

        keep, gain ``[B, n, D]``, parents and positions ``[B, n]`` -> ``[B, n, D]``. ``states``
        ``[states, D]`` are those of rows that stand, the newest last: parent -1 is the last of
        them, -2 the one before. A row's position is one more than its parent's. Every row is
        computed by the expression a single step computes, so results are bit-equal.
        """

    # --------------------------------------------------------- small helpers

    def projections(self, x: V, weights: Sequence[str], biases: Sequence[str | None]) -> list[V]:
        """Several projections of one input, ``[B, n, out]`` each, in one product where that is
        faster."""
        return self.apart(x, weights, biases)

    def apart(self, x: V, weights: Sequence[str], biases: Sequence[str | None]) -> list[V]:
        """The same with a product each."""
        return [self.linear(x, w, b) for w, b in zip(weights, biases, strict=True)]

    def output(self, name: str, value: V) -> None:
        self.results[name] = value

    def add(self, x: V, y: V) -> V:
        return self.binary("add", x, y)

    def mul(self, x: V, y: V) -> V:
        return self.binary("mul", x, y)

    def scale(self, x: V, factor: float) -> V:
        return x if factor == 1.0 else self.mul(x, self.constant(factor))

    def capped(self, x: V, bound: float) -> V:
        """``bound tanh(x / bound)``; as it is for a bound of 0."""
        return self.scale(self.unary("tanh", self.scale(x, 1 / bound)), bound) if bound else x

    def once(self, key: Any, make: Any) -> V:
        """A value computed once a graph and shared by its layers (masks, rotations)."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def activate(self, kind: Activation, x: V) -> V:
        if kind == "relu":
            return self.unary("relu", x)
        if kind == "silu":
            return self.mul(x, self.unary("sigmoid", x))
        if kind == "gelu":
            wave = self.unary("erf", self.scale(x, 0.5**0.5))
        else:
            cube = self.mul(self.mul(x, x), x)
            inner = self.add(x, self.scale(cube, 0.044715))
            wave = self.unary("tanh", self.scale(inner, (2.0 / 3.141592653589793) ** 0.5))
        return self.scale(self.mul(x, self.add(wave, self.constant(1.0))), 0.5)

    def heads(self, x: V, heads: int, head_dim: int) -> V:
        """``[B, n, heads * head_dim]`` -> ``[B, heads, n, head_dim]``."""
        return self.transpose(self.reshape(x, (0, 0, heads, head_dim)), (0, 2, 1, 3))

    def merge(self, x: V, width: int) -> V:
        """``[B, heads, n, head_dim]`` -> ``[B, n, width]``."""
        return self.reshape(self.transpose(x, (0, 2, 1, 3)), (0, 0, width))
