"""The ``plain`` lowering as OpenVINO wants it: the decoder's keys in a whole number of grains.

Libraries multiply by kernels made for a length, with another for what is left over, and sum in
another order there. So a row would come out with other bits among several rows, whose call has
more keys than it alone has. Over whole grains nothing is left over: what is filled up is hidden,
adds zeros and changes no bit. Kernels are also made once a grain instead of once a token.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgegen.graph import HIDDEN

from .onnx_ops import OnnxOps
from .specs import Attention, SelfAttention

# Numbers of one vector of AVX-512, and what OpenVINO's kernels take at once.
GRAIN = 16


class GrainedOps(OnnxOps):
    """Filled rows come last, behind a call's own."""

    def joined(self, parts: Sequence[str], spec: SelfAttention) -> str:
        def zeros() -> str:
            texts = self.node("Shape", [parts[-1]], start=0, end=1)
            shape = [texts, self.wanting(parts), self.constant([spec.kv_heads], "int64")]
            shape.append(self.constant([spec.head_dim], "int64"))
            return self.node("Expand", [self.constant(0.0), self.concat(shape, 0)])

        sort = (spec.merged, bool(spec.window), spec.kv_heads, spec.head_dim)
        return self.concat([*parts, self.once(("fill", *sort), zeros)], 1)

    def wanting(self, parts: Sequence[str]) -> str:
        """``int64 [1]``: how many rows the last grain lacks."""
        rows = self.size(parts[0], 1)
        for part in parts[1:]:
            rows = self.add(rows, self.size(part, 1))
        lacking = self.node("Mod", [self.unary("neg", rows), self.constant(GRAIN, "int64")])
        return self.reshape(lacking, (1,))

    def attend_rows(self, q: str, keys: str, values: str, mask: str, spec: SelfAttention) -> str:
        """The mask as wide as the keys."""

        def widened() -> str:
            lacking = self.binary("sub", self.size(keys, 1), self.size(mask, 3))
            pads = [self.constant([0] * 7, "int64"), self.reshape(lacking, (1,))]
            return self.node("Pad", [mask, self.concat(pads, 0), self.constant(HIDDEN)])

        wide = self.once(("whole grains", mask), widened)
        return super().attend_rows(q, keys, values, wide, spec)

    def memory_rows(self, encoded: str, spec: Attention) -> tuple[str, str]:
        """Two products: of one, OpenVINO turns all numbers over to split them, which took 57 of the
        320 ms of Whisper base's encoder."""
        keys, values = self.apart(encoded, (spec.k, spec.v), (spec.k_bias, spec.v_bias))
        return keys, values

    def scores(self, q: str, keys: str, scale: float) -> str:
        """Queries are scaled: OpenVINO would move a factor of the scores on to the keys, which are
        as many as the source is long."""
        return self.matmul(self.scale(q, scale), keys)
