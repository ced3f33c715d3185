"""The lowering that reads a decoder's output table from coarse to fine: all of it in 4 bits, and
the words those put first once more in the weights' own.

The table is the largest matrix of a small decoder, and a token is chosen among its first few rows
(SVD-softmax: Shim et al., NeurIPS 2017, which previews by fewer columns where this does by fewer
bits). Words on top are multiplied without rounding activations, which the kernel for whole tables
does. Logits of other words keep their 4 bits.
"""

from __future__ import annotations

from edgegen.errors import ExportError

from ..checkpoint import Blocks
from ..families.base import Family
from ..quantisers.base import Quantiser
from .fused_ops import FusedOps

COARSE_BITS = 4
# Words whose logits are computed anew, a row of logits.
REFINED = 16
# Of a model whose weights have no blocks.
DENSE_BLOCK = 32


class RefinedHead(FusedOps):
    """For ``decode``; the rows of a call stay as independent as they are without."""

    def by_table(self, x: str, table: str, bias: str | None) -> str:
        """``[B, m, width]`` -> ``[B, m, V]``."""
        vocabulary = self.weights[table].shape[0]
        offset = None if bias is None else self.parameter(bias)
        coarse = self.product_of_blocks(x, f"{table}.coarse", self.coarse(table), offset)
        count = self.constant([min(REFINED, vocabulary)], "int64")
        _, words = self.nodes_of("TopK", [coarse, count], 2, axis=-1, sorted=0)
        rows = self.gather_rows(table, words)
        fine = self.reshape(self.matmul(rows, self.unsqueeze(x, 3)), (0, 0, -1))
        if offset is not None:
            fine = self.add(fine, self.gather(offset, words, 0))
        return self.node("ScatterElements", [coarse, words, fine], axis=-1)

    def coarse(self, table: str) -> Blocks:
        """The table in 4 bits, in blocks as the graph's other matrices have."""
        quantiser = coarse_quantiser(self.quantiser)
        found = quantiser.quantise(self.weights[table])
        if self.quantiser is not None:
            self.quantiser.tally.requantised |= quantiser.tally.requantised
        return found


def coarse_quantiser(like: Quantiser | None = None) -> Quantiser:
    """Of a table whose graph's other matrices ``like`` quantises, or nothing does."""
    if like is None:
        return Quantiser(COARSE_BITS, DENSE_BLOCK, symmetric=True)
    return Quantiser(COARSE_BITS, like.block, like.symmetric)


def check_head(family: Family) -> None:
    """Raises ``ExportError`` for a model without a decoder, or with rows no kernel reads."""
    kind, shape = family.checkpoint.model_type, family.shape
    if "decode" not in family.graph_names():
        raise ExportError(f"head refined: a {kind} model has no decoder; leave --head out.")
    if not coarse_quantiser().takes((shape.vocabulary, shape.width)):
        raise ExportError(
            f"head refined: this {kind} model's output table has rows of {shape.width} numbers, "
            "which 4 bits do not hold (multiples of 16 from 32 on); leave --head out."
        )
