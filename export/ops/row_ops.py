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
from .specs import FeedForward

Floats = NDArray[np.float32]
ZERO_CODE = 128  # of unsigned codes: what 0.0 is
LARGEST_BYTE = 255


class RowProducts(FusedOps):
    """Every product of quantised weights."""

    lowering = "rows"
    # What a decoder multiplies has the rows of its call, and from some layer on those of logits.
    rows = "call"

    def chosen_rows(self, x: str) -> str:
        self.rows = "chosen"
        return super().chosen_rows(x)

    def projections(
        self, x: str, weights: Sequence[str], biases: Sequence[str | None]
    ) -> list[str]:
        """The row's codes are found once, and nothing has to be split."""
        return self.apart(x, weights, biases)

    def quantised_product(self, x: str, names: Sequence[str], bias: str | None) -> str:
        codes, scale = self.row_codes(x, self.weights[names[0]].shape[1])
        return self.rescaled(self.product_of_codes(codes, names), scale, bias)

    def product_of_codes(self, codes: str, names: Sequence[str], zero: int = ZERO_CODE) -> str:
        """``float32 [B, S, outputs]``, still without the rows' scale: ``uint8 [B, S, inputs]``,
        whose 0.0 is the code ``zero``, by the named matrices, stacked along their outputs."""
        assert self.quantiser is not None
        found = [by_channel(self.weights[name], self.quantiser) for name in names]
        name = "+".join(names)
        matrix = self.initialiser(f"{name}.bytes", np.concatenate([c for c, _ in found]).T.copy())
        scales = self.initialiser(f"{name}.channels", np.concatenate([s for _, s in found]))
        inputs = [codes, matrix, self.constant(1.0), scales, self.constant(zero, "uint8")]
        return self.contrib("MatMulIntegerToFloat", inputs, 1)[0]

    def rescaled(self, product: str, scale: str, bias: str | None) -> str:
        """A product of codes times its rows' scale ``[B, S, 1]``, and the bias."""
        scaled = self.mul(product, scale)
        return scaled if bias is None else self.add(scaled, bias)

    def row_codes(self, x: str, width: int) -> tuple[str, str]:
        """``uint8 [B, S, width]`` of ``x``, and each row's scale ``[B, S, 1]``."""

        def scales() -> str:  # 0 of a row of zeros, whose codes it makes zeros of again
            return self.scale(self.maximum(self.unary("abs", x), [2]), 1 / LARGEST_CODE)

        scale = self.once(("row scale", x), scales)
        return self.once(("row codes", x), lambda: self.codes(x, scale, width, ZERO_CODE)), scale

    def codes(self, x: str, scale: str, width: int, zero: int) -> str:
        """``uint8 [B, S, width]`` of ``x`` by the scales of its rows; 0.0 is the code ``zero``."""

        def zeros() -> str:
            shape = self.node("Shape", [scale])
            return self.node("Expand", [self.constant(zero, "uint8"), shape])

        same = self.rows if self.graph.name == "decode" else x
        middle = self.once(("zero codes", zero, same), zeros)
        return self.node("QuantizeLinear", [x, scale, middle], axis=2, block_size=width)

    def ffn(self, x: str, spec: FeedForward) -> str:
        """Behind a ReLU codes begin at 0: rounding drops what is below it, and a row's scale, which
        changes no code of a row without bias, is applied once, behind the second product."""
        plain = spec.gate is None and spec.activation == "relu"
        if not (plain and self.takes(spec.up) and self.takes(spec.down)):
            return super().ffn(x, spec)
        waiting = None  # the scale of x's rows
        if spec.up_bias is None:
            codes, waiting = self.row_codes(x, self.weights[spec.up].shape[1])
            inner = self.product_of_codes(codes, (spec.up,))
        else:
            inner = self.linear(x, spec.up, spec.up_bias)
        largest = self.unary("relu", self.maximum(inner, [2]))
        scale = self.scale(largest, 1 / LARGEST_BYTE)
        codes = self.codes(inner, scale, self.weights[spec.down].shape[1], zero=0)
        product = self.product_of_codes(codes, (spec.down,), zero=0)
        whole = scale if waiting is None else self.mul(scale, waiting)
        bias = None if spec.down_bias is None else self.parameter(spec.down_bias)
        return self.rescaled(product, whole, bias)


def by_channel(weight: Weight, quantiser: Quantiser) -> tuple[NDArray[np.int8], Floats]:
    """``int8 [out, in]`` codes of at most 127 in magnitude, and a scale for each output."""
    if weight.origin not in DENSE_ORIGINS:
        quantiser.tally.requantised.add(id(weight))
    matrix = weight.read()
    scales = np.abs(matrix).max(1) / np.float32(LARGEST_CODE)
    safe = np.where(scales == 0, np.float32(1), scales)[:, None]
    return np.rint(matrix / safe).astype(np.int8), np.asarray(scales, np.float32)
