"""The ``plain`` lowering for graphs whose sizes are numbers: loops are written out."""

from __future__ import annotations

from collections.abc import Mapping

from edgegen.graph import Graph

from ..checkpoint import Weight
from ..formats.weight_file import WeightFile
from .onnx_ops import OnnxOps
from .specs import Activation


class StaticOps(OnnxOps):
    """``tokens`` has a number of rows when a decoder is recurrent; other graphs need none."""

    def follow_parents(
        self, keep: str, gain: str, states: str, parents: str, positions: str
    ) -> str:
        """As many turns as there are rows: a row is right when its parent is, and stays so."""
        rows = next(port for port in self.graph.inputs if port.name == "tokens").shape[1]
        if not isinstance(rows, int):
            raise ValueError(f"a static recurrent graph must say its rows, not {rows}")
        keeps = self.node("Flatten", [keep], axis=2)
        gains = found = self.node("Flatten", [gain], axis=2)
        standing = self.node("Shape", [states], start=0, end=1)
        places = self.add(self.reshape(parents, (-1,)), standing)
        for _ in range(rows):
            before = self.gather(self.concat([states, found], 0), places, 0)
            found = self.add(self.mul(keeps, before), gains)
        return self.unsqueeze(found, 0)


class QdqOps(StaticOps):
    """For activations of 16 bits: masks are raised to ``far``, near the scores they meet. Beside
    the usual -30000 a step of 16 bits would be half a unit of a score."""

    def __init__(
        self,
        graph: Graph,
        weights: Mapping[str, Weight],
        file: WeightFile,
        *,
        half: bool = False,
        far: float,
    ) -> None:
        super().__init__(graph, weights, file, half=half)
        self.far = far

    def input(self, name: str) -> str:
        found = super().input(name)
        if name not in ("visible", "source_mask"):
            return found
        far = self.constant(self.far)
        return self.once(("near", name), lambda: self.binary("max", found, far))

    def activate(self, kind: Activation, x: str) -> str:
        """One operator: the HTP has no ``Erf`` in 8 or 16 bits, and each step between rounds."""
        return self.node("Gelu", [x]) if kind == "gelu" else super().activate(kind, x)
