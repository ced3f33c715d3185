"""The table of drafters: what may propose tokens for the target to verify."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgegen.registry import Registry

if TYPE_CHECKING:
    from .base import DrafterKind

DRAFTERS: Registry[DrafterKind] = Registry(
    "drafter",
    {
        "none": "edgegen.runtime.drafters.none:NoDraft",
        "lookup": "edgegen.runtime.drafters.lookup:Lookup",
        "model": "edgegen.runtime.drafters.model:ModelDrafter",
    },
)
