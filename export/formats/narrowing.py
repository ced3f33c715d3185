"""Floats in 16 bits, for graphs of any format: what is narrowed, and what they cannot hold."""

from __future__ import annotations

from typing import Any, Literal

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from edgegen.errors import ExportError
from edgegen.manifest import Precision

# Up to this a constant is a norm's weight, a mask value or an epsilon: kept in float32.
NARROWED_BYTES = 65536
# Audio features keep float32 whatever is asked for.
FEATURES = Precision(weight_format="fp32", rows="rounding")
DTYPES: dict[str, Any] = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}


def narrowed(
    values: NDArray[Any], weight_format: Literal["fp16", "bf16"], graph: str, name: str
) -> NDArray[Any]:
    """The nearest values of 16 bits. Raises ``ExportError`` where one is past the largest."""
    with np.errstate(over="ignore"):
        found = values.astype(DTYPES[weight_format])
    if not np.isfinite(found).all():
        raise ExportError(
            f"graph {graph}: {name} has values {weight_format} cannot hold; "
            "use --weight-format fp32 or int8."
        )
    return found
