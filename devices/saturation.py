"""Whether products of unsigned and signed bytes come out exact on this processor.

Processors without VNNI add two such products in 16 bits, and what does not fit is cut off without a
word (oneDNN's documentation, "Nuances of int8 computations"). ONNX Runtime has exact kernels
besides, which are slower, and takes them when told to. Told so on a processor that needs no such
thing, it takes them too, so this is asked of the kernel itself and not of a list of processors.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

# ONNX Runtime's session option that has signed weights made unsigned.
EXACT = ("session.x64quantprecision", "1")
ROWS, INPUTS, OUTPUTS = 4, 64, 16
# y = MatMulInteger(a, b): a uint8 [4, 64], b int8 [64, 16], y int32 [4, 16]; operator set 21.
PRODUCT = (
    b'\x08\n:\\\n\x18\n\x01a\n\x01b\x12\x01y"\rMatMulInteger\x12\x01g'
    b"Z\x13\n\x01a\x12\x0e\n\x0c\x08\x02\x12\x08\n\x02\x08\x04\n\x02\x08@"
    b"Z\x13\n\x01b\x12\x0e\n\x0c\x08\x03\x12\x08\n\x02\x08@\n\x02\x08\x10"
    b"b\x13\n\x01y\x12\x0e\n\x0c\x08\x06\x12\x08\n\x02\x08\x04\n\x02\x08\x10"
    b"B\x04\n\x00\x10\x15"
)


@cache
def saturates() -> bool:
    """Whether sums are cut off. Run once a process, on the CPU."""
    import onnxruntime

    settings: Any = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    cpu: list[Any] = [("CPUExecutionProvider", {})]
    session = onnxruntime.InferenceSession(PRODUCT, settings, providers=cpu)
    a, b = np.full((ROWS, INPUTS), 255, np.uint8), np.full((INPUTS, OUTPUTS), 127, np.int8)
    found = np.asarray(session.run(None, {"a": a, "b": b})[0])
    return bool((found != INPUTS * 255 * 127).any())
