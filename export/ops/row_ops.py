"""Products of 8-bit integers throughout: activations are rounded a row at a time, as they come.

A row has one scale, its largest magnitude over 127, and sums of integers are exact, so it comes out
the same bits among any others (dynamic quantisation per token; Yao et al., "ZeroQuant", NeurIPS
2022). A weight's row has one too. ``MatMulNBits``, made for one row, takes a row after another;
here many rows cost ONNX Runtime little more than one: an encoder's are two to five times as fast,
and a decoder verifies sixteen in about the time of two.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import DENSE_ORIGINS, Weight
from ..quantisers.base import Quantiser
from .fused_ops import FusedOps
from .memory_ops import LARGEST_CODE

Floats = NDArray[np.float32]
ZERO_CODE = 128  # of unsigned codes: what 0.0 is


class RowProducts(FusedOps):
    """Every product of quantised weights."""

    lowering = "rows"
    # What a decoder multiplies has the rows of its call, and from some layer on those of logits.
    rows = "call"

    def chosen_rows(self, x: str) -> str:
        self.rows = "chosen"
        return super().chosen_rows(x)

    def quantised_product(self, x: str, names: Sequence[str], bias: str | None) -> str:
        assert self.quantiser is not None
        found = [by_channel(self.weights[name], self.quantiser) for name in names]
        rounded, scale = self.row_codes(x, self.weights[names[0]].shape[1])
        name = "+".join(names)
        matrix = self.initialiser(f"{name}.bytes", np.concatenate([c for c, _ in found]).T.copy())
        scales = self.initialiser(f"{name}.channels", np.concatenate([s for _, s in found]))
        one, zero = self.constant(1.0), self.constant(ZERO_CODE, "uint8")
        product = self.contrib("MatMulIntegerToFloat", [rounded, matrix, one, scales, zero], 1)[0]
        product = self.mul(product, scale)
        return product if bias is None else self.add(product, bias)

    def row_codes(self, x: str, width: int) -> tuple[str, str]:
        """``uint8 [B, S, width]`` of ``x``, and each row's scale ``[B, S, 1]``."""

        def scales() -> str:  # 0 of a row of zeros, whose codes it makes zeros of again
            return self.scale(self.maximum(self.unary("abs", x), [2]), 1 / LARGEST_CODE)

        def zeros() -> str:
            shape = self.node("Shape", [scale])
            return self.node("Expand", [self.constant(ZERO_CODE, "uint8"), shape])

        def codes() -> str:
            same = self.rows if self.graph.name == "decode" else x
            middle = self.once(("zero codes", same), zeros)
            return self.node("QuantizeLinear", [x, scale, middle], axis=2, block_size=width)

        scale = self.once(("row scale", x), scales)
        return self.once(("row codes", x), codes), scale


def by_channel(weight: Weight, quantiser: Quantiser) -> tuple[NDArray[np.int8], Floats]:
    """``int8 [out, in]`` codes of at most 127 in magnitude, and a scale for each output."""
    if weight.origin not in DENSE_ORIGINS:
        quantiser.tally.requantised.add(id(weight))
    matrix = weight.read()
    scales = np.abs(matrix).max(1) / np.float32(LARGEST_CODE)
    safe = np.where(scales == 0, np.float32(1), scales)[:, None]
    return np.rint(matrix / safe).astype(np.int8), np.asarray(scales, np.float32)
