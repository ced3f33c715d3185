"""Lowerings with the source's keys and values in 8 bits: a quarter of the bytes.

Codes are whole numbers of -127 to 127. Each number of a row has a scale of its own for all of a
source, its largest magnitude over 127, found in ``encode``. ``decode`` multiplies queries by the
keys' scales and what is mixed by the values'. The kernel of the ``fused`` lowering
(GroupQueryAttention over a cache in 8 bits, to which no row is added) then knows no scale but 1. It
computes every row of a call by itself, so the cross-attention needs no companion row. OpenVINO has
no such kernel, and its decoder makes numbers of the codes in every call; its encoder is what such a
bundle has it for.
"""

from __future__ import annotations

from edgegen.errors import ExportError

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
        packed, sizes = self.linear_packed(encoded, (spec.k, spec.v), (spec.k_bias, spec.v_bias))
        keys, values = self.split(packed, sizes)
        keys = self.as_key(keys, spec, counted=encoded)
        for part, rows in (("key", keys), ("value", values)):
            largest = self.maximum(self.unary("abs", rows), [1])
            scale = self.scale(largest, 1 / LARGEST_CODE)
            scale = self.binary("max", scale, self.constant(SMALLEST_SCALE))
            codes = self.cast(self.node("Round", [self.binary("div", rows, scale)]), "int8")
            self.output(f"cross_{part}_{layer}", self.heads(codes, spec.kv_heads, spec.head_dim))
            self.output(f"cross_scale_{part}_{layer}", scale)


class GrainedMemoryOps(CodedMemory, GrainedOps):
    """OpenVINO's."""

    def recall(self, q: str, layer: int, spec: CrossAttention, masked: bool) -> str:
        asked = self.mul(q, self.input(f"cross_scale_key_{layer}"))
        keys, values = (
            self.cast(self.input(f"cross_{part}_{layer}"), "float32") for part in ("key", "value")
        )
        mixed = self.attention(
            self.grouped(asked, spec), self.transpose(keys, (0, 1, 3, 2)), values, None, spec
        )
        return self.mul(mixed, self.input(f"cross_scale_value_{layer}"))


class MemoryOps(CodedMemory, FusedOps):
    """ONNX Runtime's."""

    def cross_attend(self, x: str, layer: int, spec: CrossAttention, masked: bool = True) -> str:
        mixed = self.recall(self.cross_query(x, spec), layer, spec, masked)
        return self.linear(mixed, spec.o, spec.o_bias)

    def recall(self, q: str, layer: int, spec: CrossAttention, masked: bool) -> str:
        if masked:
            raise ValueError("a memory in 8 bits has no mask; see check_memory")
        none, one = self.no_rows(spec), self.constant([1.0])
        memory = [self.input(f"cross_{part}_{layer}") for part in ("key", "value")]
        mixed, keys, values = self.contrib(
            "GroupQueryAttention",
            [self.mul(q, self.input(f"cross_scale_key_{layer}")), none, none, *memory,
             *self.extent(layer), "", "", "", "", "", one, one],
            3,
            num_heads=spec.heads,
            kv_num_heads=spec.kv_heads,
            scale=spec.scale,
            softcap=spec.softcap,
            causal=0,
            **EIGHT_BITS,
        )  # fmt: skip
        self.output(f"cross_key_out_{layer}", keys)
        self.output(f"cross_value_out_{layer}", values)
        return self.mul(mixed, self.input(f"cross_scale_value_{layer}"))

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
        held = next(port for port in self.graph.inputs if port.name == f"cross_key_{layer}")
        length = int(held.shape[2])

        def last() -> str:
            return self.node("Expand", [self.constant([length - 1], "int32"), self.texts()])

        return [self.once(("last memory row", length), last), self.constant(length, "int32")]


def check_memory(family: Family) -> None:
    """Raises ``ExportError`` for a family whose memory cannot be held in 8 bits: the kernel takes
    no more rows a call than the source has, and hides none of the source's."""
    shape, most = family.shape, family.generation().max_positions
    if shape.cross_layers and not shape.source_masked and 0 < most <= shape.source_length:
        return
    raise ExportError(
        f"memory int8: it needs a source of one length, all of it seen and no shorter than the "
        f"text, as Whisper's is; {family.checkpoint.model_type} has none. Leave --memory out."
    )
