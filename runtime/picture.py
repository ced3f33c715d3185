"""Pictures as the encoder takes them: ``pixel_values`` from a file or from bytes in memory.

Files are read and pictures resized by Pillow, loaded on first use; a picture that already has the
right size needs numpy alone.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.errors import InputError
from edgegen.manifest import Image

Bytes = NDArray[np.uint8]
# A file of some kilobytes may unfold to gigabytes; scans of a whole page stay far below this.
MOST_PIXELS = 2**28


def pixels(source: Any, wanted: Image) -> NDArray[np.float32]:
    """``float32 [3, height, width]`` of a picture file's path or of ``uint8 [height, width, 3]``.

    Raises ``InputError`` for a file that is absent or no picture, and for other arrays.
    """
    shown = _opened(Path(source)) if isinstance(source, str | Path) else _checked(source)
    size = (wanted.resize_height, wanted.resize_width)
    if size != (0, 0):
        shown = _resized(shown, size, wanted.resample)
    cut = _middle(np.asarray(shown, np.uint8), wanted.height, wanted.width)
    mean, std = (np.asarray(three, np.float32) for three in (wanted.mean, wanted.std))
    scaled = (cut * np.float64(wanted.scale)).astype(np.float32)
    return np.ascontiguousarray(((scaled - mean) / std).transpose(2, 0, 1))


def _checked(source: Any) -> Bytes:
    array = np.asarray(source)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or 0 in array.shape:
        raise InputError(
            f"picture {list(array.shape)} of {array.dtype}: expected uint8 [height, width, 3], "
            "red, green and blue, or the path of a picture file."
        )
    return array


def _opened(path: Path) -> Any:
    """A file as RGB, turned the way its camera was held."""
    pillow = _library("Image")
    try:
        with pillow.open(path) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise InputError(
                    f"picture {path}: {picture.width} x {picture.height}; expected at most "
                    f"{MOST_PIXELS} pixels. Make it smaller first."
                )
            upright = _library("ImageOps").exif_transpose(picture)
            return upright.convert("RGB")
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
        said = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(
            f"picture {path}: it cannot be read ({said}); expected PNG, JPEG or another format of "
            "Pillow."
        ) from error


def _resized(shown: Any, size: tuple[int, int], resample: str) -> Any:
    if isinstance(shown, np.ndarray):
        if shown.shape[:2] == size:
            return shown
        shown = _library("Image").fromarray(shown)
    filters = _library("Image").Resampling
    return shown.resize((size[1], size[0]), getattr(filters, resample.upper()))


def _middle(shown: Bytes, height: int, width: int) -> Bytes:
    rows, columns = shown.shape[:2]
    if rows < height or columns < width:
        raise InputError(
            f"picture of {rows} x {columns}: the model takes {height} x {width} and resizes "
            "nothing; give a larger one."
        )
    top, left = (rows - height) // 2, (columns - width) // 2
    return shown[top : top + height, left : left + width]


def _library(name: str) -> ModuleType:
    try:
        return import_module(f"PIL.{name}")
    except ImportError as error:
        raise InputError(
            "reading and resizing pictures needs the package Pillow, which is not installed here: "
            "pip install 'edgegen[image]'."
        ) from error
