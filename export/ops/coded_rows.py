"""The lowering that holds a text's own keys and values in 8 bits: a quarter of what a step reads.

Each number of a head has a scale of its own, fixed when the graph is written (``row_scales``):
a row that stands is never rounded again. The kernel rounds rows as they come and reads codes ever
after, in the call that brings them too, row by row, so no companion row is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgegen.graph import Graph, Port
from edgegen.manifest import CACHE_PORTS

from .fused_ops import FusedOps
from .specs import SelfAttention

# By part, "key" or "value", and layer: ``float32 [heads, head_dim]``.
RowScales = Mapping[tuple[str, int], NDArray[np.float32]]
BY_CHANNEL: Mapping[str, Any] = {
    "k_quant_type": "PER_CHANNEL",
    "v_quant_type": "PER_CHANNEL",
    "kv_cache_bit_width": 8,
}


class CodedRows(FusedOps):
    """Caches are int8; for ``decode`` with a cache in place."""

    def __init__(self, graph: Graph, *given: Any, row_scales: RowScales, **options: Any) -> None:
        super().__init__(with_codes(graph), *given, **options)
        self.row_scales = row_scales

    def self_attend(self, x: str, layer: int, spec: SelfAttention, bias: str | None = None) -> str:
        rows = self.recent_rows(layer)
        scales = [
            self.initialiser(f"{part}_scale_{layer}", self.row_scales[part, layer][None, :, None])
            for part in ("key", "value")
        ]
        mixed = self.attend_in_place(
            self.asked(x, spec),
            layer,
            spec,
            self.lengths(spec.merged, rows, False),
            self.row_mask(spec, rows, bias),
            scales,
            **BY_CHANNEL,
        )
        return self.linear(mixed, spec.o, spec.o_bias)


def with_codes(graph: Graph) -> Graph:
    """The graph with its caches in int8."""

    def coded(ports: tuple[Port, ...]) -> tuple[Port, ...]:
        return tuple(
            msgspec.structs.replace(port, dtype="int8")
            if port.name.startswith(CACHE_PORTS)
            else port
            for port in ports
        )

    return Graph(name=graph.name, inputs=coded(graph.inputs), outputs=coded(graph.outputs))
