"""The companion row: one more than a call asks for, where rows must come out equal.

ONNX Runtime multiplies a single row by another kernel than several, so attention is given the
call's last row once more and never runs that kernel.
"""

from __future__ import annotations

from .onnx_ops import OnnxOps

# ONNX Runtime's scores: heads of more numbers than the second are summed in fewer parts up to as
# many keys as the first than beyond (onnxruntime/core/mlas/lib/sgemm.cpp, where strides of K double
# as long as those of N can be halved).
IN_ONE_GO = ((16, 512), (32, 256), (64, 128))


def keys_in_one_go(head_dim: int) -> tuple[int, ...]:
    """Counts of keys up to which scores are summed in another way than beyond, rising."""
    return tuple(keys for keys, numbers in IN_ONE_GO if head_dim > numbers)


class CompanionOps(OnnxOps):
    """What adds a companion row and takes it away again; nothing is done without ``equal_rows``."""

    equal_rows = False

    def spare(self) -> str:
        """``int64 [1]``: companion rows. Of several texts in a call none has any, since
        GroupQueryAttention takes one row of each."""

        def make() -> str:
            texts = self.node("Shape", [self.input("tokens")], start=0, end=1)
            two = self.constant([2], "int64")
            return self.binary("sub", two, self.binary("min", texts, two))

        return self.once("spare", make)

    def call_rows(self) -> str:
        """``int64 [1]``: n."""
        return self.once(
            "call_rows", lambda: self.node("Shape", [self.input("tokens")], start=1, end=2)
        )

    def companion(self, x: str) -> str:
        """``[B, n, ...]`` with its last row once more, when rows must come out equal."""
        if not self.equal_rows:
            return x

        def places() -> str:
            rows = self.arange(self.input("tokens"), 1)
            n, zero = self.call_rows(), self.constant([0], "int64")
            last = self.binary("sub", n, self.constant([1], "int64"))
            return self.concat([rows, self.node("Slice", [last, zero, self.spare()])], 0)

        return self.gather(x, self.once("companion", places), 1)

    def alone(self, x: str) -> str:
        """Drop the companion row."""
        if not self.equal_rows:
            return x
        zero, one = (self.constant([edge], "int64") for edge in (0, 1))
        return self.node("Slice", [x, zero, self.call_rows(), one])

    def widened(self, mask: str) -> str:
        """``[B, h, n, T]`` with a row and a column for the companion."""
        if not self.equal_rows:
            return mask

        def pads() -> str:
            none = self.constant([0, 0, 0, 0, 0, 0], "int64")
            return self.concat([none, self.spare(), self.spare()], 0)

        return self.once(
            ("widened", mask), lambda: self.node("Pad", [mask, self.once("pads", pads)])
        )

    def row_below(self) -> str:
        """What ``Pad`` adds to ``[B, h, n, T]`` for the companion to have a row."""

        def make() -> str:
            none, last = self.constant([0] * 6, "int64"), self.constant([0], "int64")
            return self.concat([none, self.spare(), last], 0)

        return self.once("row below", make)
