"""The ``fused`` lowering: ONNX Runtime's own operators where they are faster.

Self-attention is GroupQueryAttention with past and present bound to one buffer (cache kind
``in_place``), cross-attention is MultiHeadAttention, a decoder's RMS norms take the residual with
them, GELU is one operator, and quantised matrices are MatMulNBits, their tables
GatherBlockQuantized on the same bytes.
Operator contracts: ONNX Runtime, docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.graph import Graph

from ..checkpoint import Blocks, Weight
from ..formats.weight_file import WeightFile
from ..quantisers.base import Quantiser
from .companion_ops import CompanionOps
from .onnx_ops import OPSET
from .specs import Activation, Attention, CrossAttention, Norm, Rope, SelfAttention

Codes = NDArray[np.uint8]
MICROSOFT = "com.microsoft"
# MatMulNBits: quantise activations to int8 a block of a row at a time, so rows stay independent.
ACCURACY_LEVEL = 4
# How ONNX's operator approximates each.
GELU: Mapping[Activation, str] = {"gelu": "none", "gelu_tanh": "tanh"}


class FusedOps(CompanionOps):
    """``quantiser`` None keeps weights dense.

    ``equal_rows`` makes a row's result the same bits alone and among others: ONNX Runtime
    multiplies a single row by another kernel than several, so attention is given one row more than
    asked for and never runs that kernel. With ``appends`` past keys and values come in and new ones
    go out, and attention is MultiHeadAttention: GroupQueryAttention lets no row see a later one of
    its call, as a prefix-LM's prompt must, and on GPUs takes no mask.
    """

    lowering = "fused"
    cache_kind = "in_place"
    domains = (("", OPSET), (MICROSOFT, 1))

    def __init__(
        self,
        graph: Graph,
        weights: Mapping[str, Weight],
        file: WeightFile,
        *,
        half: bool = False,
        quantiser: Quantiser | None = None,
        equal_rows: bool = False,
        appends: bool = False,
    ) -> None:
        super().__init__(graph, weights, file, half=half)
        self.quantiser, self.appends = quantiser, appends
        self.equal_rows = equal_rows

    def contrib(
        self, kind: str, inputs: Sequence[str], outputs: int, **attributes: Any
    ) -> list[str]:
        return self.nodes_of(kind, inputs, outputs, MICROSOFT, **attributes)

    # --------------------------------------------------------- weights

    def linear_packed(
        self, x: str, weights: Sequence[str], biases: Sequence[str | None]
    ) -> tuple[str, list[int]]:
        if not self.takes(weights[0]):
            return super().linear_packed(x, weights, biases)
        sizes = [self.weights[name].shape[0] for name in weights]
        offset = self.packed_bias(weights, biases)
        return self.quantised_product(x, weights, offset), sizes

    def by_table(self, x: str, table: str, bias: str | None) -> str:
        offset = None if bias is None else self.parameter(bias)
        if self.takes(table):
            return self.quantised_product(x, (table,), offset)
        logits = self.contrib("FusedMatMul", [x, self.parameter(table)], 1, transB=1)[0]
        return logits if offset is None else self.add(logits, offset)

    def takes(self, name: str) -> bool:
        """Whether the named matrix is held in codes."""
        return self.quantiser is not None and self.quantiser.takes(self.weights[name].shape)

    def blocks(self, names: Sequence[str]) -> Blocks:
        """The named matrices quantised and stacked along their outputs."""
        assert self.quantiser is not None
        parts = [self.quantiser.quantise(self.weights[name]) for name in names]
        if len({part.block for part in parts}) > 1:
            parts = [self.quantiser.requantise(self.weights[name]) for name in names]
        return Blocks(
            codes=np.concatenate([part.codes for part in parts]),
            scales=np.concatenate([part.scales for part in parts]),
            zeros=np.concatenate([part.zeros for part in parts]),
            block=parts[0].block,
            bits=parts[0].bits,
            origin=parts[0].origin,
        )

    def quantised_tensors(self, name: str, blocks: Blocks, rows_shape: bool) -> list[str]:
        """codes, scales and (when not the default) zeros, in MatMulNBits' layout or, with
        ``rows_shape``, in GatherBlockQuantized's: the same bytes under another shape."""
        rows, columns = blocks.codes.shape
        count = columns // blocks.block
        codes, zeros = pack(blocks.codes, blocks.bits), pack(blocks.zeros, blocks.bits)
        kind = ".rows" if rows_shape else ""
        shape = (rows, -1) if rows_shape else (rows, count, blocks.block * blocks.bits // 8)
        names = [
            self.initialiser(f"{name}.codes{kind}", codes.reshape(shape)),
            self.initialiser(
                f"{name}.scales{kind}",
                blocks.scales if rows_shape else blocks.scales.reshape(-1),
            ),
        ]
        if np.any(blocks.zeros != 1 << (blocks.bits - 1)):
            flat = zeros.reshape(rows, -1) if rows_shape else zeros.reshape(-1)
            names.append(self.initialiser(f"{name}.zeros{kind}", flat))
        return names

    def quantised_product(self, x: str, names: Sequence[str], bias: str | None) -> str:
        """``[B, S, inputs]`` by the named matrices, stacked along their outputs."""
        return self.product_of_blocks(x, "+".join(names), self.blocks(names), bias)

    def product_of_blocks(self, x: str, name: str, blocks: Blocks, bias: str | None) -> str:
        """``[B, S, inputs]`` by a quantised matrix, held under ``name``."""
        tensors = self.quantised_tensors(name, blocks, rows_shape=False)
        rows, columns = blocks.codes.shape
        inputs = [x, *tensors]
        if bias is not None:
            inputs = [*inputs, *[""] * (5 - len(inputs)), bias]
        return self.contrib(
            "MatMulNBits",
            inputs,
            1,
            K=columns,
            N=rows,
            bits=blocks.bits,
            block_size=blocks.block,
            accuracy_level=ACCURACY_LEVEL,
        )[0]

    def gather_rows(self, table: str, ids: str) -> str:
        if not self.takes(table):
            return super().gather_rows(table, ids)
        blocks = self.blocks((table,))
        codes, scales, *zeros = self.quantised_tensors(table, blocks, rows_shape=True)
        return self.contrib(
            "GatherBlockQuantized",
            [codes, ids, scales, *zeros],
            1,
            bits=blocks.bits,
            block_size=blocks.block,
            gather_axis=0,
            quantize_axis=1,
        )[0]

    def activate(self, kind: Activation, x: str) -> str:
        """GELU of both kinds as one operator."""
        if kind not in GELU:
            return super().activate(kind, x)
        return self.node("Gelu", [x], approximate=GELU[kind])

    # ----------------------------------------------------------- norms

    def norm(self, x: str, spec: Norm) -> str:
        if spec.kind == "layer":
            return super().norm(x, spec)
        weight = self.parameter(spec.weight)
        return self.node("SimplifiedLayerNormalization", [x, weight], axis=-1, epsilon=spec.eps)

    def norm_add(self, x: str, delta: str, spec: Norm) -> tuple[str, str]:
        """By the operator that adds and norms at once where that is faster: on GPUs, and for RMS
        norms of a decoder's few rows. The CPU's goes through a row number by number."""
        layer = spec.kind == "layer"
        if self.graph.name == "encode" or (layer and not self.appends):
            return super().norm_add(x, delta, spec)
        inputs = [x, delta, self.parameter(spec.weight)]
        kind = "SkipLayerNormalization" if layer else "SkipSimplifiedLayerNormalization"
        inputs += [self.parameter(spec.bias)] if layer and spec.bias is not None else []
        normed, _, _, total = self.contrib(kind, inputs, 4, epsilon=spec.eps)
        return total, normed

    # ------------------------------------------------------- attention

    def turning(self, rope: Rope, head_dim: int, counted: str | None) -> tuple[str, str, str]:
        """cos and sin rows of this call's positions, and the ids that pick them in order."""

        def rows(wave: str) -> str:
            waves = self.rotation(wave, rope, head_dim, counted)
            return self.reshape(waves, (-1, rope.width(head_dim) // 2))

        def places() -> str:
            flat = self.arange(self.reshape(self.input("positions"), (-1,)), 0)
            shape = self.node("Shape", [self.input("positions")])
            return self.node("Reshape", [flat, shape])

        key = (rope, head_dim, counted is None)
        cos = self.once((*key, "cos rows"), lambda: rows("cos"))
        sin = self.once((*key, "sin rows"), lambda: rows("sin"))
        if counted is not None:  # one id: where the first row lies
            return self.constant([0], "int64"), cos, sin
        return self.once("rope_places", places), cos, sin

    def rotate(
        self, x: str, rope: Rope, heads: int, head_dim: int, counted: str | None = None
    ) -> str:
        turning = self.turning(rope, head_dim, counted)
        return self.contrib(
            "RotaryEmbedding", [x, *turning], 1, num_heads=heads,
            interleaved=int(rope.interleaved), rotary_embedding_dim=rope.width(head_dim),
        )[0]  # fmt: skip

    def recent_rows(self, layer: int) -> str | None:
        """How many of the latest rows a layer that keeps no others holds, new ones included."""
        held = next(p for p in self.graph.inputs if p.name == f"key_cache_{layer}")
        if "window_capacity" not in held.shape:
            return None

        def make() -> str:
            longest = self.node("Squeeze", [self.maximum(self.input("window_length"), [0])])
            return self.add(longest, self.size(self.input("tokens"), 1))

        return self.once("recent_rows", make)

    def lengths(self, merged: bool, rows: str | None, companions: bool) -> list[str]:
        """GroupQueryAttention's own words: last row's index per batch row, and the total.

        ``rows`` are those of a layer that holds the latest only. Of a ``merged`` attention the
        cache begins with the source's rows. ``companions`` are counted where there are any.
        """

        def with_spare(size: str) -> str:
            return self.add(size, self.node("Squeeze", [self.spare()])) if companions else size

        def behind_source(size: str) -> str:
            return self.add(size, self.size(self.input("source_mask"), 1)) if merged else size

        def last() -> str:
            n = self.size(self.input("tokens"), 1)
            past = self.input("past_length" if rows is None else "window_length")
            end = self.add(past, n)
            last = self.binary("sub", behind_source(end), self.constant(1, "int64"))
            return self.cast(with_spare(last), "int32")

        def total() -> str:
            size = self.size(self.input("visible"), 2) if rows is None else rows
            return self.cast(with_spare(behind_source(size)), "int32")

        key = (merged, rows is None)
        return [self.once(("last", *key), last), self.once(("total", *key), total)]

    def self_attend(self, x: str, layer: int, spec: SelfAttention, bias: str | None = None) -> str:
        if self.appends:
            return super().self_attend(x, layer, spec, bias)
        projected = [part and self.companion(part) for part in self.asked(x, spec)]
        rows = self.recent_rows(layer)
        mask = self.widened(self.row_mask(spec, rows, bias))
        lengths = self.lengths(spec.merged, rows, self.equal_rows)
        mixed = self.attend_in_place(projected, layer, spec, lengths, mask)
        return self.linear(self.alone(mixed), spec.o, spec.o_bias)

    def attend_in_place(
        self,
        projected: Sequence[str],
        layer: int,
        spec: SelfAttention,
        lengths: Sequence[str],
        mask: str,
        scales: Sequence[str] = (),
        **held: Any,
    ) -> str:
        """Rows of a call over the layer's cache, which they are written into. ``scales`` of keys
        and values belong to a cache ``held`` in codes."""
        caches = [self.input(f"key_cache_{layer}"), self.input(f"value_cache_{layer}")]
        inputs = [*projected, *caches, *lengths, "", "", "", mask]
        mixed, keys, values = self.contrib(
            "GroupQueryAttention",
            [*inputs, "", *scales] if scales else inputs,
            3,
            num_heads=spec.heads,
            kv_num_heads=spec.kv_heads,
            scale=spec.scale,
            softcap=spec.softcap,
            **held,
        )
        self.output(f"key_cache_out_{layer}", keys)
        self.output(f"value_cache_out_{layer}", values)
        return mixed

    def asked(self, x: str, spec: SelfAttention) -> list[str]:
        """Queries, keys and values of a call as GroupQueryAttention takes them: packed, or each."""
        if spec.rope is None and spec.q_norm is None:
            return [self.linear_packed(x, spec.projections, spec.biases)[0], "", ""]
        return list(self.project(x, spec))

    def row_mask(self, spec: SelfAttention, rows: str | None, bias: str | None) -> str:
        """What a layer adds to its scores, ``[B, 1 or h, n, T]``."""
        mask = self.decoder_mask(spec.window, spec.merged, rows)
        if bias is None:
            return mask
        return self.once(("biased", bias, spec.window), lambda: self.add(mask, bias))

    def attend_rows(self, q: str, keys: str, values: str, mask: str, spec: SelfAttention) -> str:
        if not has_kernel(spec):
            return super().attend_rows(q, keys, values, mask, spec)
        if self.equal_rows:  # the companion sees everything
            mask = self.once(("taller", mask), lambda: self.node("Pad", [mask, self.row_below()]))
        flat = (0, 0, spec.heads * spec.head_dim)
        inputs = [self.companion(q), self.reshape(keys, flat), self.reshape(values, flat)]
        mixed = self.contrib(
            "MultiHeadAttention",
            [*inputs, "", "", mask],
            1,
            num_heads=spec.heads,
            scale=spec.scale,
        )[0]
        return self.alone(mixed)

    def full_rows(self, mask: str, like: str, companions: bool = False) -> str:
        """``[B, h, 1, T]`` -> ``[B, h, n, T]``: MultiHeadAttention does not broadcast rows."""

        def make() -> str:
            n = self.node("Shape", [like], start=1, end=2)
            if companions:
                n = self.add(n, self.spare())
            ones = self.constant([1, 1], "int64")
            shape = self.node("Concat", [ones, n, self.constant([1], "int64")], axis=0)
            return self.node("Expand", [mask, shape])

        return self.once(("rows", mask), make)

    def encode_attend(self, x: str, spec: SelfAttention, mask: str | None) -> str:
        if not has_kernel(spec):
            return super().encode_attend(x, spec, mask)
        inputs = list(self.project(x, spec, counted=x))
        if mask is not None:
            wide = mask if mask != self._shared.get("source_mask") else self.full_rows(mask, x)
            inputs += ["", "", wide]
        mixed = self.contrib(
            "MultiHeadAttention", inputs, 1, num_heads=spec.heads, scale=spec.scale
        )[0]
        return self.linear(mixed, spec.o, spec.o_bias)

    def cross_attend(self, x: str, layer: int, spec: CrossAttention, masked: bool = True) -> str:
        q = self.companion(self.cross_query(x, spec))
        mixed = self.alone(self.recall(q, layer, spec, masked))
        return self.linear(mixed, spec.o, spec.o_bias)

    def recall(self, q: str, layer: int, spec: CrossAttention, masked: bool) -> str:
        if not has_kernel(spec):
            return super().recall(q, layer, spec, masked)
        inputs = [q, self.input(f"cross_key_{layer}"), self.input(f"cross_value_{layer}")]
        if masked:
            mask = self.full_rows(self.source_mask(), self.input("tokens"), self.equal_rows)
            inputs += ["", "", mask]
        return self.contrib(
            "MultiHeadAttention", inputs, 1, num_heads=spec.heads, scale=spec.scale
        )[0]


def has_kernel(spec: Attention) -> bool:
    """Whether MultiHeadAttention does it: it knows neither shared key heads nor bounded scores."""
    return spec.heads == spec.kv_heads and not spec.softcap


def pack(codes: Codes, bits: int) -> Codes:
    """Codes below ``2**bits`` along the last axis, two to a byte (low half first) at 4 bits."""
    if bits == 8:
        return codes
    if codes.shape[-1] % 2:
        codes = np.concatenate([codes, np.zeros((*codes.shape[:-1], 1), np.uint8)], -1)
    return np.asarray(codes[..., 0::2] | (codes[..., 1::2] << 4), np.uint8)
