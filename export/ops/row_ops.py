"""Encoders in 8-bit integers throughout: activations are rounded a row at a time, as they come.

A row has one scale, its largest magnitude over 127, so it comes out the same among any others
(dynamic quantisation per token; Yao et al., "ZeroQuant", NeurIPS 2022). A weight's row has one too.
ONNX Runtime multiplies many such rows two to five times as fast as by ``MatMulNBits``, whose
kernels are made for a decoder's few; decoders keep those.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import DENSE_ORIGINS, Weight
from ..quantisers.base import Quantiser
from .fused_ops import FusedOps
from .memory_ops import LARGEST_CODE, SMALLEST_SCALE, MemoryOps

Floats = NDArray[np.float32]
ZERO_CODE = 128  # of unsigned codes: what 0.0 is
# Processors without VNNI add two products in 16 bits: 2 * 255 * 64 still fits (ONNX Runtime's
# documentation calls it a reduced range).
LARGEST_WEIGHT = 64


class RowProducts(FusedOps):
    """Every product of quantised weights."""

    lowering = "rows"

    def linear_packed(
        self, x: str, weights: Sequence[str], biases: Sequence[str | None]
    ) -> tuple[str, list[int]]:
        quantiser = self.quantiser
        if quantiser is None or not quantiser.takes(self.weights[weights[0]].shape):
            return super().linear_packed(x, weights, biases)
        found = [by_channel(self.weights[name], quantiser) for name in weights]
        sizes = [codes.shape[0] for codes, _ in found]
        codes, scale = self.row_codes(x, self.weights[weights[0]].shape[1])
        name = "+".join(weights)
        matrix = self.initialiser(f"{name}.bytes", np.concatenate([c for c, _ in found]).T.copy())
        scales = self.initialiser(f"{name}.channels", np.concatenate([s for _, s in found]))
        one, zero = self.constant(1.0), self.constant(ZERO_CODE, "uint8")
        product = self.contrib("MatMulIntegerToFloat", [codes, matrix, one, scales, zero], 1)[0]
        flat = self.mul(product, scale)
        offset = self.packed_bias(weights, biases)
        if offset is not None:
            flat = self.add(flat, offset)
        shape = self.once(("rows of", x), lambda: self.node("Shape", [x], start=0, end=2))
        whole = self.concat([shape, self.constant([sum(sizes)], "int64")], 0)
        return self.node("Reshape", [flat, whole]), sizes

    def row_codes(self, x: str, width: int) -> tuple[str, str]:
        """``uint8 [B * S, width]`` of ``[B, S, width]``, and each row's scale ``[B * S, 1]``."""
        flat = self.once(("flat", x), lambda: self.reshape(x, (-1, width)))

        def scales() -> str:
            largest = self.maximum(self.unary("abs", flat), [1])
            least = self.constant(SMALLEST_SCALE)
            return self.binary("max", self.scale(largest, 1 / LARGEST_CODE), least)

        scale = self.once(("row scale", x), scales)

        def codes() -> str:
            alone = self.node("Squeeze", [scale, self.constant([1], "int64")])
            zero, rows = self.constant(ZERO_CODE, "uint8"), self.node("Shape", [alone])
            zeros = self.node("Expand", [zero, rows])
            return self.node("QuantizeLinear", [flat, alone, zeros], axis=0)

        return self.once(("row codes", x), codes), scale


class RowMemoryOps(RowProducts, MemoryOps):
    """The same where the source is held in 8 bits."""


def by_channel(weight: Weight, quantiser: Quantiser) -> tuple[NDArray[np.int8], Floats]:
    """``int8 [out, in]`` codes of at most 64 in magnitude, and a scale for each output."""
    if weight.origin not in DENSE_ORIGINS:
        quantiser.tally.requantised.add(id(weight))
    matrix = weight.read()
    scales = np.abs(matrix).max(1) / np.float32(LARGEST_WEIGHT)
    safe = np.where(scales == 0, np.float32(1), scales)[:, None]
    return np.rint(matrix / safe).astype(np.int8), np.asarray(scales, np.float32)
