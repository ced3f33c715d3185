"""The operation set families are written over.

``Ops`` has two halves. Primitives are what a backend must give (a torch body evaluates them, an
ONNX body records them). Composites are the field's blocks (attention, feed-forward, norms) written
once over the primitives: they are the torch truth and the ``plain`` lowering at the same time. A
faster lowering overrides composites and nothing else.

Values: ``x`` is ``[B, n, width]``; heads are ``[B, heads, n, head_dim]``. Shapes given to
``reshape`` use ONNX's words: 0 keeps a dimension, -1 is what is left.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from .specs import (
    HIDDEN,
    Activation,
    CrossAttention,
    FeedForward,
    Norm,
    RelativeBias,
    Rope,
    SelfAttention,
)

V = TypeVar("V")


class Ops(ABC, Generic[V]):
    """One backend's body for a graph. ``inputs`` and ``results`` are the graph's ports by name."""

    cache_kind = "append"

    def __init__(self) -> None:
        self.results: dict[str, V] = {}
        self._shared: dict[Any, V] = {}

    # ------------------------------------------------------------ primitives

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
    def linear_packed(
        self, x: V, weights: Sequence[str], biases: Sequence[str | None]
    ) -> tuple[V, list[int]]:
        """Several projections of one input as one product, and the width of each."""

    @abstractmethod
    def gather_rows(self, table: str, ids: V) -> V:
        """Rows of a parameter table: ids ``[B, n]`` -> ``[B, n, width]``; may be quantised."""

    @abstractmethod
    def unary(self, kind: str, x: V) -> V:
        """relu, sigmoid, tanh, erf, sqrt, exp, log, cos, sin, neg, abs."""

    @abstractmethod
    def binary(self, kind: str, x: V, y: V) -> V:
        """add, sub, mul, div, max, min, greater, less_equal, pow."""

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
    def scatter(self, x: V, indices: V, updates: V) -> V:
        """``x[b, indices[b, j]] = updates[b, j]`` on ``[B, T]``."""

    @abstractmethod
    def norm(self, x: V, spec: Norm) -> V: ...
    @abstractmethod
    def follow_parents(self, keep: V, gain: V, state: V, parents: V) -> V:
        """``c[j] = keep[j] * c[parents[j]] + gain[j]`` row by row, -1 being ``state``.

        keep, gain ``[B, n, D]``, state ``[B, D]``, parents ``[B, n]`` -> ``[B, n, D]``; B is 1.
        Every row is computed by the expression a single step computes, so results are bit-equal.
        """

    # --------------------------------------------------------- small helpers

    def output(self, name: str, value: V) -> None:
        self.results[name] = value

    def add(self, x: V, y: V) -> V:
        return self.binary("add", x, y)

    def mul(self, x: V, y: V) -> V:
        return self.binary("mul", x, y)

    def scale(self, x: V, factor: float) -> V:
        return x if factor == 1.0 else self.mul(x, self.constant(factor))

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

    # ------------------------------------------------------------ composites

    def norm_add(self, x: V, delta: V, spec: Norm) -> tuple[V, V]:
        """``(x + delta, norm(x + delta))``: the step between two sublayers."""
        total = self.add(x, delta)
        return total, self.norm(total, spec)

    def ffn(self, x: V, spec: FeedForward) -> V:
        if spec.gate is None:
            inner = self.activate(spec.activation, self.linear(x, spec.up, spec.up_bias))
            return self.linear(inner, spec.down, spec.down_bias)
        packed, sizes = self.linear_packed(x, (spec.gate, spec.up), (None, spec.up_bias))
        gate, up = self.split(packed, sizes)
        return self.linear(
            self.mul(self.activate(spec.activation, gate), up), spec.down, spec.down_bias
        )

    def head(self, x: V, table: str, bias: str | None = None) -> None:
        """The rows ``logit_rows`` asks for, times the output table -> ``logits [B, m, V]``."""
        self.output("logits", self.linear(x, table, bias))

    def chosen_rows(self, x: V) -> V:
        """``[B, n, width]`` -> ``[B, m, width]`` by ``logit_rows``."""
        return self.gather(x, self.input("logit_rows"), 1)

    def key_positions(self) -> V:
        """``int64 [B, past + n]``: a row that stands has its index, a new row what is given."""

        def make() -> V:
            visible, slots = self.input("visible"), self.input("slots")
            rows = self.arange(visible, 2)
            zero = self.binary(
                "mul", self.gather(slots, self.constant([0], "int64"), 1), self.constant(0, "int64")
            )
            base = self.binary("add", zero, self.reshape(rows, (1, -1)))
            return self.scatter(base, slots, self.input("positions"))

        return self.once("key_positions", make)

    def distances(self) -> V:
        """``int64 [B, n, past + n]``: key position minus query position."""

        def make() -> V:
            keys = self.reshape(self.key_positions(), (0, 1, -1))
            queries = self.reshape(self.input("positions"), (0, -1, 1))
            return self.binary("sub", keys, queries)

        return self.once("distances", make)

    def decoder_mask(self, window: int = 0) -> V:
        """Additive ``[B, 1, n, past + n]`` from ``visible``, older than ``window`` hidden too."""

        def make() -> V:
            mask = self.input("visible")
            if window:
                near = self.binary("greater", self.distances(), self.constant(-window, "int64"))
                mask = self.where(near, mask, self.constant(HIDDEN))
            return self.unsqueeze(mask, 1)

        return self.once(("mask", window), make)

    def relative_bias(self, spec: RelativeBias, distances: V) -> V:
        """``[B, n, T]`` distances -> ``[B, heads, n, T]``."""
        reach = self.constant(spec.reach, "int64")
        clamped = self.binary("min", self.binary("max", distances, self.unary("neg", reach)), reach)
        rows = self.gather(self.parameter(spec.table), self.binary("add", clamped, reach), 0)
        return self.transpose(rows, (0, 3, 1, 2))

    def rotation(self, wave: str, rope: Rope, head_dim: int) -> V:
        """``cos`` or ``sin`` of the positions' angles, ``[B, n, head_dim / 2]``."""
        half = head_dim // 2

        def angles() -> V:
            factors = rope.inverse_scale or (1.0,) * half
            rates = [f / rope.theta ** (2 * i / head_dim) for i, f in enumerate(factors)]
            places = self.reshape(self.cast(self.input("positions"), "float32"), (0, -1, 1))
            return self.mul(places, self.constant(rates))

        key = (rope, head_dim)
        return self.once((*key, wave), lambda: self.unary(wave, self.once(key, angles)))

    def rotate(self, x: V, spec: SelfAttention, rope: Rope, heads: int) -> V:
        """Rotary positions on ``[B, n, heads * head_dim]``, halves rotated."""
        cos = self.unsqueeze(self.rotation("cos", rope, spec.head_dim), 2)
        sin = self.unsqueeze(self.rotation("sin", rope, spec.head_dim), 2)
        half = spec.head_dim // 2
        first, second = self.split(self.reshape(x, (0, 0, heads, spec.head_dim)), (half, half))
        turned = self.concat(
            [
                self.binary("sub", self.mul(first, cos), self.mul(second, sin)),
                self.add(self.mul(second, cos), self.mul(first, sin)),
            ],
            3,
        )
        return self.reshape(turned, (0, 0, heads * spec.head_dim))

    def head_norm(self, x: V, spec: Norm, heads: int, head_dim: int) -> V:
        """A norm of each head of ``[B, n, heads * head_dim]``."""
        each = self.norm(self.reshape(x, (0, 0, heads, head_dim)), spec)
        return self.reshape(each, (0, 0, heads * head_dim))

    def project(self, x: V, spec: SelfAttention) -> tuple[V, V, V]:
        """Query, key, value ``[B, n, heads * head_dim]`` with head norms and rotations applied."""
        packed, sizes = self.linear_packed(x, spec.projections, spec.biases)
        q, k, v = self.split(packed, sizes)
        if spec.q_norm is not None:
            q = self.head_norm(q, spec.q_norm, spec.heads, spec.head_dim)
        if spec.k_norm is not None:
            k = self.head_norm(k, spec.k_norm, spec.kv_heads, spec.head_dim)
        if spec.rope is not None:
            q = self.rotate(q, spec, spec.rope, spec.heads)
            k = self.rotate(k, spec, spec.rope, spec.kv_heads)
        return q, k, v

    def self_attend(self, x: V, layer: int, spec: SelfAttention, bias: V | None = None) -> V:
        """Decoder self-attention over the cache of ``layer`` and the new rows.

        ``bias`` ``[B, heads, n, past + n]`` is added to the scores besides the mask.
        """
        q, k, v = self.project(x, spec)
        shape = (0, 0, spec.kv_heads, spec.head_dim)
        new_key, new_value = self.reshape(k, shape), self.reshape(v, shape)
        self.output(f"new_key_{layer}", new_key)
        self.output(f"new_value_{layer}", new_value)
        keys = self.concat([self.input(f"past_key_{layer}"), new_key], 1)
        values = self.concat([self.input(f"past_value_{layer}"), new_value], 1)
        mask = self.decoder_mask(spec.window)
        mixed = self.attention(
            self.grouped(q, spec),
            self.transpose(keys, (0, 2, 3, 1)),
            self.transpose(values, (0, 2, 1, 3)),
            mask if bias is None else self.add(mask, bias),
            spec,
        )
        return self.linear(mixed, spec.o, spec.o_bias)

    def grouped(self, q: V, spec: SelfAttention) -> V:
        """``[B, n, heads * head_dim]`` -> ``[B, heads, n, head_dim]``."""
        return self.heads(q, spec.heads, spec.head_dim)

    def attention(self, q: V, keys: V, values: V, mask: V | None, spec: SelfAttention) -> V:
        """softmax(q k scale + mask) v.

        Keys ``[B, kv_heads, head_dim, T]``, values ``[B, kv_heads, T, head_dim]``.
        Grouped queries share a key head by folding the group into the rows, so no key is copied.
        """
        group = spec.heads // spec.kv_heads
        width = spec.heads * spec.head_dim
        if group == 1:
            scores = self.scale(self.matmul(q, keys), spec.scale)
            scores = scores if mask is None else self.add(scores, mask)
            return self.merge(self.matmul(self.softmax(scores), values), width)
        folded = self.reshape(q, (0, spec.kv_heads, group, -1, spec.head_dim))
        wide = self.reshape(keys, (0, spec.kv_heads, 1, spec.head_dim, -1))
        scores = self.scale(self.matmul(folded, wide), spec.scale)
        if mask is not None:
            scores = self.add(scores, self.unsqueeze(mask, 2))
        tall = self.reshape(values, (0, spec.kv_heads, 1, -1, spec.head_dim))
        mixed = self.matmul(self.softmax(scores), tall)
        return self.merge(self.reshape(mixed, (0, spec.heads, -1, spec.head_dim)), width)

    def encode_attend(self, x: V, spec: SelfAttention, mask: V | None) -> V:
        """Bidirectional attention of an encoder; ``mask`` broadcasts to ``[B, heads, S, S]``."""
        q, k, v = self.project(x, spec)
        mixed = self.attention(
            self.grouped(q, spec),
            self.transpose(self.reshape(k, (0, 0, spec.kv_heads, spec.head_dim)), (0, 2, 3, 1)),
            self.heads(v, spec.kv_heads, spec.head_dim),
            mask,
            spec,
        )
        return self.linear(mixed, spec.o, spec.o_bias)

    def source_mask(self) -> V:
        """``source_mask [B, S]`` as ``[B, 1, 1, S]``."""
        return self.once(
            "source_mask", lambda: self.reshape(self.input("source_mask"), (0, 1, 1, -1))
        )

    def remember(self, encoded: V, layer: int, spec: CrossAttention) -> None:
        """Cross keys and values of a decoder layer, laid out ``[B, heads, S, head_dim]``."""
        packed, sizes = self.linear_packed(encoded, (spec.k, spec.v), (spec.k_bias, spec.v_bias))
        k, v = self.split(packed, sizes)
        self.output(f"cross_key_{layer}", self.heads(k, spec.heads, spec.head_dim))
        self.output(f"cross_value_{layer}", self.heads(v, spec.heads, spec.head_dim))

    def cross_attend(self, x: V, layer: int, spec: CrossAttention, masked: bool = True) -> V:
        """Attention over the memory ``encode`` left for this layer."""
        q = self.heads(self.linear(x, spec.q, spec.q_bias), spec.heads, spec.head_dim)
        keys = self.transpose(self.input(f"cross_key_{layer}"), (0, 1, 3, 2))
        scores = self.scale(self.matmul(q, keys), spec.scale)
        if masked:
            scores = self.add(scores, self.source_mask())
        mixed = self.matmul(self.softmax(scores), self.input(f"cross_value_{layer}"))
        return self.linear(self.merge(mixed, spec.heads * spec.head_dim), spec.o, spec.o_bias)
