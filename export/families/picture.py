"""How a checkpoint wants pictures prepared: preprocessor_config.json as the manifest's record.

Keys and order of steps: transformers' ``image_processing_vit.py`` and ``image_processing_deit.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from edgegen.errors import CheckpointError
from edgegen.manifest import Image

# Pillow's numbers of its filters.
FILTERS: tuple[Any, ...] = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")


def image_of(said: Mapping[str, Any], height: int, width: int) -> Image:
    """``height`` and ``width`` are what the encoder takes. Raises ``CheckpointError``."""
    if not said:
        raise CheckpointError(
            "preprocessor_config.json is missing: it says how pictures are prepared; fetch the "
            "checkpoint with it."
        )
    resized = sides(said.get("size")) if said.get("do_resize", True) else (0, 0)
    given = resized
    if said.get("do_center_crop"):
        given = sides(said.get("crop_size"))
    if given not in ((height, width), (0, 0)) or (given != resized and min(resized) < min(given)):
        raise CheckpointError(
            f"preprocessor_config.json makes pictures of {given[0]} x {given[1]} from "
            f"{resized[0]} x {resized[1]}; expected {height} x {width}, what the encoder takes."
        )
    normal = said.get("do_normalize", True)
    return Image(
        height=height,
        width=width,
        resize_height=resized[0],
        resize_width=resized[1],
        resample=FILTERS[int(said.get("resample", 2))],
        scale=float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 1.0,
        mean=three(said.get("image_mean", 0.5)) if normal else (0.0, 0.0, 0.0),
        std=three(said.get("image_std", 0.5)) if normal else (1.0, 1.0, 1.0),
    )


def sides(size: Any) -> tuple[int, int]:
    """Height and width: one number for both, or a record of the two."""
    if isinstance(size, int):
        return size, size
    said = cast(Mapping[str, Any], size) if isinstance(size, Mapping) else {}
    if "height" not in said or "width" not in said:
        raise CheckpointError(
            f"preprocessor_config.json: size {size}; expected a height and a width, as ViT's and "
            "DeiT's have."
        )
    return int(said["height"]), int(said["width"])


def three(values: Any) -> tuple[float, float, float]:
    red, green, blue = values if isinstance(values, list | tuple) else (values,) * 3
    return float(red), float(green), float(blue)
