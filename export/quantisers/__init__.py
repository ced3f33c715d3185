"""Number formats of weights: one line each. ``None`` entries are dense formats.

A quantiser is made with the block size and symmetry the user asked for.
"""

from __future__ import annotations

from edgegen.registry import Registry

from .base import Quantiser

QUANTISERS: Registry[type[Quantiser]] = Registry(
    "quantiser",
    {
        "int8": "edgegen.export.quantisers.int8:Int8",
        "int4": "edgegen.export.quantisers.int4:Int4",
    },
)
