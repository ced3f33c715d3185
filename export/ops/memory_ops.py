"""Lowerings with the source's keys and values in 8 bits: a quarter of the bytes.

Codes are whole numbers of -127 to 127. Each number of a row has a scale of its own for all of a
source, its largest magnitude over 127 in rows that are not hidden, found in ``encode``; hidden rows
are zeros, so a source has the same codes however far it is padded. ``decode`` multiplies queries by
the keys' scales and what is mixed by the values'. The kernel of the ``fused`` lowering
(GroupQueryAttention over a cache in 8 bits, to which no row is added) then knows no scale but 1. It
computes every row of a call by itself, so the cross-attention needs no companion row; it takes no
more rows a call than the memory has, which a runtime sees to (``edgegen.coded``). OpenVINO has no
such kernel, and its decoder makes numbers of the codes in every call; its encoder is what such a
bundle has it for.
"""

from __future__ import annotations

from typing import Any

from edgegen.coded import given_back
from edgegen.errors import ExportError
from edgegen.graph import HIDDEN, Graph, Port

from ..families.base import Family
from .fused_ops import FusedOps
from .grained_ops import GrainedOps
from .onnx_ops import OnnxOps
from .specs import Attention, CrossAttention

LARGEST_CODE = 127
# Below any scale that matters: a column of zeros divides by it.
SMALLEST_SCALE = 1e-30
EIGHT_BITS = {"k_quant_type": "PER_TENSOR", "v_quant_type": "PER_TENSOR", "kv_cache_bit_width": 8}


class CodedMemory(OnnxOps):
    """``remember`` writes codes and scales, ``recall`` reads them."""

    def remember(self, encoded: str, layer: int, spec: Attention) -> None:
        biases = [spec.k_bias, spec.v_bias, spec.k_norm and spec.k_norm.bias]
        unbiased = not any(biases)
        if unbiased:  # zeros stay zeros: what is hidden need not be hidden in each layer
            encoded = self.once(("shown", encoded), lambda: self.shown(encoded))
        keys, values = self.memory_rows(encoded, spec)
        keys = self.as_key(keys, spec, counted=encoded)
        width = spec.kv_heads * spec.head_dim
        for part, rows in (("key", keys), ("value", values)):
            # Heads first: OpenVINO would turn [B, S, width] over to find the largest of a column.
            rows = rows if unbiased else self.shown(rows)
            rows = self.heads(rows, spec.kv_heads, spec.head_dim)
            largest = self.maximum(self.unary("abs", rows), [2])
            scale = self.scale(largest, 1 / LARGEST_CODE)
            scale = self.binary("max", scale, self.constant(SMALLEST_SCALE))
            self.output(f"cross_{part}_{layer}", self.whole(self.binary("div", rows, scale)))
            self.output(f"cross_scale_{part}_{layer}", self.reshape(scale, (0, 1, width)))

    def whole(self, x: str) -> str:
        """``int8``: the nearest whole number, the even one of two."""
        return self.cast(self.node("Round", [x]), "int8")

    def by_scale(self, x: str, scale: str, spec: CrossAttention) -> str:
        """``[B, n, heads * head_dim]`` times a scale for each number of a key head."""
        if spec.heads == spec.kv_heads:
            return self.mul(x, self.input(scale))
        each = (spec.kv_heads, spec.heads // spec.kv_heads, spec.head_dim)
        wide = self.reshape(self.input(scale), (0, 1, spec.kv_heads, 1, spec.head_dim))
        scaled = self.mul(self.reshape(x, (0, 0, *each)), wide)
        return self.reshape(scaled, (0, 0, spec.heads * spec.head_dim))

    def shown(self, rows: str) -> str:
        """``[B, S, width]`` with zeros where the source is hidden."""
        if not any(port.name == "source_mask" for port in self.graph.inputs):
            return rows

        def make() -> str:
            mask = self.reshape(self.input("source_mask"), (0, -1, 1))
            return self.binary("greater", mask, self.constant(HIDDEN / 2))

        return self.where(self.once("shown", make), rows, self.constant(0.0))


class GrainedMemoryOps(CodedMemory, GrainedOps):
    """OpenVINO's."""

    def recall(self, q: str, layer: int, spec: CrossAttention, masked: bool) -> str:
        asked = self.by_scale(q, f"cross_scale_key_{layer}", spec)
        keys, values = (
            self.cast(self.input(f"cross_{part}_{layer}"), "float32") for part in ("key", "value")
        )
        mixed = self.attention(
            self.grouped(asked, spec),
            self.transpose(keys, (0, 1, 3, 2)),
            values,
            self.source_mask() if masked else None,
            spec,
        )
        return self.by_scale(mixed, f"cross_scale_value_{layer}", spec)


class MemoryOps(CodedMemory, FusedOps):
    """ONNX Runtime's. The kernel gives the codes back as the cache it takes them for."""

    def __init__(self, graph: Graph, *given: Any, **options: Any) -> None:
        codes = [p for p in graph.inputs if p.dtype == "int8" and p.name.startswith("cross_")]
        back = [Port(name=given_back(p.name), dtype=p.dtype, shape=p.shape) for p in codes]
        graph = Graph(name=graph.name, inputs=graph.inputs, outputs=(*graph.outputs, *back))
        super().__init__(graph, *given, **options)

    def whole(self, x: str) -> str:
        return self.node("QuantizeLinear", [x, self.constant(1.0), self.constant(0, "int8")])

    def cross_attend(self, x: str, layer: int, spec: CrossAttention, masked: bool = True) -> str:
        mixed = self.recall(self.cross_query(x, spec), layer, spec, masked)
        return self.linear(mixed, spec.o, spec.o_bias)

    def recall(self, q: str, layer: int, spec: CrossAttention, masked: bool) -> str:
        hidden = self.full_rows(self.source_mask(), self.input("tokens")) if masked else ""
        none, one = self.no_rows(spec), self.constant([1.0])
        memory = [self.input(f"cross_{part}_{layer}") for part in ("key", "value")]
        mixed, keys, values = self.contrib(
            "GroupQueryAttention",
            [self.by_scale(q, f"cross_scale_key_{layer}", spec), none, none, *memory,
             *self.extent(layer), "", "", "", hidden, "", one, one],
            3,
            num_heads=spec.heads,
            kv_num_heads=spec.kv_heads,
            scale=spec.scale,
            softcap=spec.softcap,
            causal=0,
            **EIGHT_BITS,
        )  # fmt: skip
        self.output(given_back(f"cross_key_{layer}"), keys)
        self.output(given_back(f"cross_value_{layer}"), values)
        return self.by_scale(mixed, f"cross_scale_value_{layer}", spec)

    def texts(self) -> str:
        """``int64 [1]``: B."""
        return self.once(
            "texts", lambda: self.node("Shape", [self.input("tokens")], start=0, end=1)
        )

    def no_rows(self, spec: CrossAttention) -> str:
        """``[B, 0, width]``: what a call adds to the memory."""
        width = spec.kv_heads * spec.head_dim

        def make() -> str:
            shape = self.concat([self.texts(), self.constant([0, width], "int64")], 0)
            return self.node("Expand", [self.constant([[[0.0]]]), shape])

        return self.once(("no rows", width), make)

    def extent(self, layer: int) -> list[str]:
        """The memory's last row for each text, and its length: GroupQueryAttention's own words."""

        def rows() -> str:
            return self.cast(self.size(self.input(f"cross_key_{layer}"), 2), "int32")

        def last() -> str:
            end = self.binary("sub", self.once("memory rows", rows), self.constant(1, "int32"))
            return self.node("Expand", [self.reshape(end, (1,)), self.texts()])

        return [self.once("last memory row", last), self.once("memory rows", rows)]


def check_memory(family: Family) -> None:
    """Raises ``ExportError`` for a family whose memory cannot be held in 8 bits: the kernel takes
    no more rows a call than the source has, so there must be a mask to hide rows added to it, or a
    length that no text exceeds."""
    shape, most = family.shape, family.generation().max_positions
    tall = shape.source_masked or 0 < most <= shape.source_length
    if shape.cross_layers and not shape.merged and tall:
        return
    raise ExportError(
        f"memory int8: it needs cross-attention over tokens, or over a source no shorter than the "
        f"text, as Whisper's is; {family.checkpoint.model_type} has none. Leave --memory out."
    )
