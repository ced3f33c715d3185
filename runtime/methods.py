"""What a bundle is asked for, by its task: ``generate``, or a method of encoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

from edgegen.errors import InputError

if TYPE_CHECKING:
    from edgegen.manifest import Manifest

METHODS: Mapping[str, str] = {
    "feature-extraction": "embed",
    "text-classification": "classify",
    "token-classification": "tag",
    "fill-mask": "fill_mask",
}


def check_method(manifest: Manifest, asked: str) -> None:
    """Raises ``InputError`` that names what the bundle is for, unless it is for ``asked``."""
    if METHODS.get(manifest.task, "generate") != asked:
        refuse_method(manifest, asked)


def refuse_method(manifest: Manifest, asked: str) -> NoReturn:
    """Raises ``InputError`` that names what the bundle is for."""
    method = METHODS.get(manifest.task, "generate")
    raise InputError(
        f"{manifest.name} is for {manifest.task} and cannot {asked.replace('_', ' ')}; "
        f"use {method}(...)."
    )
