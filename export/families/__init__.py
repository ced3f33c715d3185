"""Architectures: one file each, one line here; ``family_of`` picks by ``model_type``."""

from __future__ import annotations

from edgegen.errors import CheckpointError
from edgegen.registry import Registry, unknown

from ..checkpoint import Checkpoint
from .base import Family

FAMILIES: Registry[type[Family]] = Registry(
    "family",
    {
        "t5": "edgegen.export.families.t5:T5",
        "whisper": "edgegen.export.families.whisper:Whisper",
        "marian-ssru": "edgegen.export.families.marian_ssru:MarianSsru",
        "causal": "edgegen.export.families.causal:Causal",
    },
)


def family_of(checkpoint: Checkpoint) -> tuple[str, Family]:
    """The table's name and the family bound to this checkpoint; ``CheckpointError`` if none is."""
    known: list[str] = []
    for name in FAMILIES:
        family = FAMILIES[name]
        if checkpoint.model_type in family.model_types:
            return name, family(checkpoint)
        known += family.model_types
    raise CheckpointError(
        unknown("model type", checkpoint.model_type, known)
        + " docs/extend.md tells how to add a family."
    )
