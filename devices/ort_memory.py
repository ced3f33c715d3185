"""Arrays in the memory of an execution provider of ONNX Runtime, a GPU's."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from edgegen.errors import DeviceError

from .device import DeviceArray, Tensor


class OrtMemory:
    """Of a provider, by ONNX Runtime's name of where it is. Raises ``DeviceError`` when it is full
    or lost."""

    def __init__(self, library: Any, place: str, device: str) -> None:
        self._values: Any = library.OrtValue
        self._place, self._device = place, device

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceArray:
        make = self._values.ortvalue_from_shape_and_type
        return self._made(shape, dtype, make, list(shape), dtype.type)

    def put(self, array: Tensor) -> DeviceArray:
        make = self._values.ortvalue_from_numpy
        return self._made(array.shape, array.dtype, make, np.ascontiguousarray(array))

    def write(self, array: DeviceArray, values: Tensor) -> None:
        self._tried("did not take", array.shape, array.dtype, array.owner.update_inplace, values)

    def get(self, array: DeviceArray) -> Tensor:
        return np.asarray(self._tried("did not give", array.shape, array.dtype, array.owner.numpy))

    def _made(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], make: Callable[..., Any], *given: Any
    ) -> DeviceArray:
        made = self._tried("has no memory for", shape, dtype, make, *given, self._place, 0)
        return DeviceArray(tuple(shape), dtype, made.data_ptr(), made)

    def _tried(
        self,
        fault: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        call: Callable[..., Any],
        *given: Any,
    ) -> Any:
        try:
            return call(*given)
        except Exception as error:  # the provider's own types are not public
            size = prod(shape) * dtype.itemsize / 1e6
            raise DeviceError(
                f"{self._device} {fault} {size:.1f} MB: {first_line(error)}"
            ) from error


def first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300]
