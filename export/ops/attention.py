"""Attention as the field knows it: masks, positions, rotations, self, cross and encoder attention.

Written once over the primitives, so it is the torch truth and the ``plain`` lowering at the same
time; a faster lowering overrides methods and nothing else.
"""

from __future__ import annotations

from .primitives import Primitives, V
from .specs import (
    HIDDEN,
    CrossAttention,
    Norm,
    RelativeBias,
    Rope,
    SelfAttention,
)


class AttentionOps(Primitives[V]):
    """Values: ``x`` is ``[B, n, width]``; heads are ``[B, heads, n, head_dim]``."""

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
