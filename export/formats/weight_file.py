"""One file of weights shared by every graph of a variant: each content stored once.

ONNX calls it external data. Tensors are addressed by the hash of their bytes, so tied tables,
shared encoders and two graphs over the same matrix cost the disk once and are mapped once.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

# ONNX Runtime maps external tensors; a page boundary lets it map large ones without a copy.
PAGE, LINE, INLINE = 4096, 64, 1024


class WeightFile:
    """Append-only; ``close`` when every graph is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb")
        self._places: dict[bytes, tuple[int, int]] = {}

    def tensor(self, name: str, array: NDArray[Any]) -> TensorProto:
        """An initialiser: inline when small, else a reference into this file."""
        array = np.asarray(array, order="C")  # ascontiguousarray makes a list of a scalar
        if array.nbytes <= INLINE:
            return onnx.numpy_helper.from_array(array, name)
        offset, length = self.place(array)
        tensor = TensorProto()
        tensor.name = name
        tensor.data_type = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        tensor.dims.extend(array.shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self.path.name), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        return tensor

    def place(self, array: NDArray[Any]) -> tuple[int, int]:
        """Offset and length of a contiguous array's bytes in this file, written if they are new."""
        data = array.data.cast("B")
        key = sha256(data).digest()
        if key not in self._places:
            align = PAGE if len(data) >= PAGE else LINE
            self._file.write(b"\0" * (-self._file.tell() % align))
            self._places[key] = (self._file.tell(), len(data))
            self._file.write(data)
        return self._places[key]

    def flush(self) -> None:
        """Let others read what was placed so far."""
        self._file.flush()

    def close(self) -> None:
        self._file.close()
