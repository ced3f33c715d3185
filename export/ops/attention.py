"""Attention as the field knows it: masks, positions, rotations, self, cross and encoder attention.

Written once over the primitives, so it is the torch truth and the ``plain`` lowering at the same
time; a faster lowering overrides methods and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgegen.graph import HIDDEN

from .primitives import Primitives, V
from .specs import (
    Attention,
    CrossAttention,
    Norm,
    RelativeBias,
    Rope,
    SelfAttention,
)

# Waves are computed so many at a time, and those left over at the end by other arithmetic, whose
# last bits differ from position 99 on: rows of whole lanes come out alike, wherever in a call.
LANES = 16


class AttentionOps(Primitives[V]):
    """Values: ``x`` is ``[B, n, width]``; heads are ``[B, heads, n, head_dim]``."""

    def distances(self) -> V:
        """``int64 [B, n, past + n]``: key position minus query position."""
        return self.once("distances", lambda: self.distances_to(self.input("key_positions")))

    def distances_to(self, key_positions: V) -> V:
        """The same to the keys given, ``int64 [B, T]`` -> ``[B, n, T]``."""
        keys = self.reshape(key_positions, (0, 1, -1))
        queries = self.reshape(self.input("positions"), (0, -1, 1))
        return self.binary("sub", keys, queries)

    def decoder_mask(self, window: int = 0, merged: bool = False, rows: V | None = None) -> V:
        """Additive ``[B, 1, n, past + n]`` from ``visible``, older than ``window`` hidden too.

        With ``rows``, how many of the latest the layer holds, new ones included: ``[B, 1, n,
        rows]``. ``merged`` ``[B, 1, n, S + past + n]``: the source comes first.
        """

        def make() -> V:
            mask, keys = self.input("visible"), self.input("key_positions") if window else None
            if keys is not None:
                if rows is not None:
                    mask, keys = self.latest(mask, rows, 2), self.latest(keys, rows, 1)
                far = self.constant(-window, "int64")
                near = self.binary("greater", self.distances_to(keys), far)
                mask = self.where(near, mask, self.constant(HIDDEN))
            return self.unsqueeze(mask, 1)

        mask = self.once(("mask", window, rows is None), make)
        if not merged:
            return mask
        return self.once(("merged", window), lambda: self.concat([self.source_rows(), mask], 3))

    def source_rows(self) -> V:
        """``source_mask`` for every row of a call, ``[B, 1, n, S]``."""

        def make() -> V:
            first = self.gather(self.input("visible"), self.constant([0], "int64"), 2)
            return self.add(self.unsqueeze(self.scale(first, 0.0), 1), self.source_mask())

        return self.once("source_rows", make)

    def relative_bias(self, spec: RelativeBias, distances: V) -> V:
        """``[B, n, T]`` distances -> ``[B, heads, n, T]``."""
        reach = self.constant(spec.reach, "int64")
        clamped = self.binary("min", self.binary("max", distances, self.unary("neg", reach)), reach)
        rows = self.gather(self.parameter(spec.table), self.binary("add", clamped, reach), 0)
        return self.transpose(rows, (0, 3, 1, 2))

    def rotation(self, wave: str, rope: Rope, head_dim: int, counted: V | None = None) -> V:
        """``cos`` or ``sin`` of the positions' angles, ``[B, n, turned numbers / 2]``.

        Positions are given to a decoder; an encoder's rows, those of ``counted``, are counted.
        """
        width = rope.width(head_dim)
        half = width // 2
        spare = -half % LANES

        def angles() -> V:
            factors = rope.inverse_scale or (1.0,) * half
            rates = [f / rope.theta ** (2 * i / width) for i, f in enumerate(factors)]
            rates += [0.0] * spare
            if counted is None:
                places = self.reshape(self.input("positions"), (0, -1, 1))
            else:
                places = self.reshape(self.arange(counted, 1), (1, -1, 1))
            return self.mul(self.cast(places, "float32"), self.constant(rates))

        def waves() -> V:
            found = self.unary(wave, self.once(key, angles))
            return self.split(found, (half, spare))[0] if spare else found

        key = (rope, width, counted is None)
        return self.once((*key, wave), waves)

    def rotate(self, x: V, rope: Rope, heads: int, head_dim: int, counted: V | None = None) -> V:
        """Rotary positions on ``[B, n, heads * head_dim]``; see ``Rope`` and ``rotation``."""
        cos = self.unsqueeze(self.rotation("cos", rope, head_dim, counted), 2)
        sin = self.unsqueeze(self.rotation("sin", rope, head_dim, counted), 2)
        width = rope.width(head_dim)
        each = self.reshape(x, (0, 0, heads, head_dim))
        turned, *rest = self.split(each, (width, head_dim - width)) if width < head_dim else [each]
        first, second = self.pairs(turned, rope, heads, width)
        first, second = (
            self.binary("sub", self.mul(first, cos), self.mul(second, sin)),
            self.add(self.mul(second, cos), self.mul(first, sin)),
        )
        if rope.interleaved:
            both = self.concat([self.unsqueeze(first, 4), self.unsqueeze(second, 4)], 4)
            turned = self.reshape(both, (0, 0, heads, width))
        else:
            turned = self.concat([first, second], 3)
        whole = self.concat([turned, *rest], 3) if rest else turned
        return self.reshape(whole, (0, 0, heads * head_dim))

    def pairs(self, x: V, rope: Rope, heads: int, width: int) -> tuple[V, V]:
        """The two numbers of every pair of ``[B, n, heads, width]``, ``[B, n, heads, width / 2]``
        each."""
        half = width // 2
        if not rope.interleaved:
            first, second = self.split(x, (half, half))
            return first, second
        columns = self.split(self.reshape(x, (0, 0, heads, half, 2)), (1, 1))
        first, second = (self.reshape(column, (0, 0, heads, half)) for column in columns)
        return first, second

    def head_norm(self, x: V, spec: Norm, heads: int, head_dim: int) -> V:
        """A norm of each head of ``[B, n, heads * head_dim]``."""
        each = self.norm(self.reshape(x, (0, 0, heads, head_dim)), spec)
        return self.reshape(each, (0, 0, heads * head_dim))

    def project(self, x: V, spec: SelfAttention, counted: V | None = None) -> tuple[V, V, V]:
        """Query, key, value ``[B, n, heads * head_dim]`` with head norms and rotations applied."""
        q, k, v = self.projections(x, spec.projections, spec.biases)
        return self.as_query(q, spec, counted), self.as_key(k, spec, counted), v

    def as_query(self, q: V, spec: Attention, counted: V | None = None) -> V:
        """A projection with the norm of each head and the rotation there are."""
        if spec.q_norm is not None:
            q = self.head_norm(q, spec.q_norm, spec.heads, spec.head_dim)
        if spec.rope is not None:
            q = self.rotate(q, spec.rope, spec.heads, spec.head_dim, counted)
        return q

    def as_key(self, k: V, spec: Attention, counted: V | None = None) -> V:
        """The same of keys."""
        if spec.k_norm is not None:
            k = self.head_norm(k, spec.k_norm, spec.kv_heads, spec.head_dim)
        if spec.rope is not None:
            k = self.rotate(k, spec.rope, spec.kv_heads, spec.head_dim, counted)
        return k

    def self_attend(self, x: V, layer: int, spec: SelfAttention, bias: V | None = None) -> V:
        """Decoder self-attention over the cache of ``layer`` and the new rows.

        ``bias`` ``[B, heads, n, past + n]`` is added to the scores besides the mask. Of a
        ``merged`` attention the memory of ``layer`` is part of the past.
        """
        q, k, v = self.project(x, spec)
        shape = (0, 0, spec.kv_heads, spec.head_dim)
        new_key, new_value = self.reshape(k, shape), self.reshape(v, shape)
        self.output(f"new_key_{layer}", new_key)
        self.output(f"new_value_{layer}", new_value)
        past = self.past(f"key_{layer}", spec.merged)
        keys = self.joined([*past, new_key], spec)
        values = self.joined([*self.past(f"value_{layer}", spec.merged), new_value], spec)
        rows = None
        if spec.window and not spec.merged:
            rows = self.add(self.size(past[0], 1), self.size(new_key, 1))
        mask = self.decoder_mask(spec.window, spec.merged, rows)
        if bias is not None:
            mask = self.once(("biased", mask, bias), lambda: self.add(mask, bias))
        mixed = self.attend_rows(q, keys, values, mask, spec)
        return self.linear(mixed, spec.o, spec.o_bias)

    def joined(self, parts: Sequence[V], spec: SelfAttention) -> V:
        """What stands and the new rows, ``[B, past + n, kv_heads, head_dim]``."""
        return self.concat(parts, 1)

    def attend_rows(self, q: V, keys: V, values: V, mask: V, spec: SelfAttention) -> V:
        """``[B, n, heads * head_dim]`` of queries of that shape over keys and values
        ``[B, past + n, kv_heads, head_dim]``."""
        return self.attention(
            self.grouped(q, spec),
            self.transpose(keys, (0, 2, 3, 1)),
            self.transpose(values, (0, 2, 1, 3)),
            mask,
            spec,
        )

    def past(self, name: str, merged: bool) -> list[V]:
        """What stands before the new rows, ``[B, rows, kv_heads, head_dim]`` each."""
        past = self.input(f"past_{name}")
        if not merged:
            return [past]
        return [self.transpose(self.input(f"cross_{name}"), (0, 2, 1, 3)), past]

    def grouped(self, q: V, spec: Attention) -> V:
        """``[B, n, heads * head_dim]`` -> ``[B, heads, n, head_dim]``."""
        return self.heads(q, spec.heads, spec.head_dim)

    def attention(self, q: V, keys: V, values: V, mask: V | None, spec: Attention) -> V:
        """softmax(capped(q k scale) + mask) v.

        Keys ``[B, kv_heads, head_dim, T]``, values ``[B, kv_heads, T, head_dim]``.
        Grouped queries share a key head by folding the group into the rows, so no key is copied.
        """
        group = spec.heads // spec.kv_heads
        width = spec.heads * spec.head_dim
        if group == 1:
            scores = self.capped(self.scores(q, keys, spec.scale), spec.softcap)
            scores = scores if mask is None else self.add(scores, mask)
            return self.merge(self.matmul(self.softmax(scores), values), width)
        folded = self.reshape(q, (0, spec.kv_heads, group, -1, spec.head_dim))
        wide = self.reshape(keys, (0, spec.kv_heads, 1, spec.head_dim, -1))
        scores = self.capped(self.scores(folded, wide, spec.scale), spec.softcap)
        if mask is not None:
            scores = self.add(scores, self.unsqueeze(mask, 2))
        tall = self.reshape(values, (0, spec.kv_heads, 1, -1, spec.head_dim))
        mixed = self.matmul(self.softmax(scores), tall)
        return self.merge(self.reshape(mixed, (0, spec.heads, -1, spec.head_dim)), width)

    def scores(self, q: V, keys: V, scale: float) -> V:
        """q k scale."""
        return self.scale(self.matmul(q, keys), scale)

    def encode_attend(self, x: V, spec: SelfAttention, mask: V | None) -> V:
        """Bidirectional attention of an encoder; ``mask`` broadcasts to ``[B, heads, S, S]``."""
        q, k, v = self.project(x, spec, counted=x)
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

    def source_window(self, x: V, before: int, after: int) -> V:
        """``source_mask`` and what is more than ``before`` rows before a row or ``after`` behind
        it, ``[B, 1, S, S]``; ``x`` is ``[B, S, width]``."""

        def make() -> V:
            rows, middle = self.arange(x, 1), (before - after) / 2
            keys, queries = self.reshape(rows, (1, 1, 1, -1)), self.reshape(rows, (1, 1, -1, 1))
            ahead = self.cast(self.binary("sub", keys, queries), "float32")
            away = self.unary("abs", self.add(ahead, self.constant(middle)))
            near = self.binary("less_equal", away, self.constant((before + after) / 2))
            return self.where(near, self.source_mask(), self.constant(HIDDEN))

        return self.once(("source_window", before, after), make)

    def remember(self, encoded: V, layer: int, spec: Attention) -> None:
        """Keys and values of the decoder's ``layer``-th cross-attention, ``[B, kv_heads, S,
        head_dim]``.

        Decoders with cross-attention in some layers only count those.
        """
        k, v = self.memory_rows(encoded, spec)
        k = self.as_key(k, spec, counted=encoded)
        self.output(f"cross_key_{layer}", self.heads(k, spec.kv_heads, spec.head_dim))
        self.output(f"cross_value_{layer}", self.heads(v, spec.kv_heads, spec.head_dim))

    def memory_rows(self, encoded: V, spec: Attention) -> tuple[V, V]:
        """Keys and values of a memory, ``[B, S, kv_heads * head_dim]`` each."""
        keys, values = self.projections(encoded, (spec.k, spec.v), (spec.k_bias, spec.v_bias))
        return keys, values

    def cross_query(self, x: V, spec: CrossAttention) -> V:
        """``[B, n, heads * head_dim]``, normed and turned where the attention asks for it."""
        return self.as_query(self.linear(x, spec.q, spec.q_bias), spec)

    def cross_attend(self, x: V, layer: int, spec: CrossAttention, masked: bool = True) -> V:
        """Attention over memory ``layer``: what ``encode`` left for the decoder's
        ``layer``-th cross-attention."""
        mixed = self.recall(self.cross_query(x, spec), layer, spec, masked)
        return self.linear(mixed, spec.o, spec.o_bias)

    def recall(self, q: V, layer: int, spec: CrossAttention, masked: bool) -> V:
        """``[B, n, heads * head_dim]``: memory ``layer`` mixed as each query asks."""
        return self.attention(
            self.grouped(q, spec),
            self.transpose(self.input(f"cross_key_{layer}"), (0, 1, 3, 2)),
            self.input(f"cross_value_{layer}"),
            self.source_mask() if masked else None,
            spec,
        )
