"""Architectures: one file each, one line here; ``family_of`` picks by ``model_type``."""

from __future__ import annotations

from edgegen.errors import CheckpointError
from edgegen.registry import Registry

from ..checkpoint import Checkpoint
from .base import Family
from .nearest import nearest

FAMILIES: Registry[type[Family]] = Registry(
    "family",
    {
        "t5": "edgegen.export.families.t5:T5",
        "bart": "edgegen.export.families.bart:Bart",
        "t5gemma": "edgegen.export.families.t5gemma:T5Gemma",
        "t5gemma2": "edgegen.export.families.t5gemma2:T5Gemma2",
        "whisper": "edgegen.export.families.whisper:Whisper",
        "marian-ssru": "edgegen.export.families.marian_ssru:MarianSsru",
        "gpt2": "edgegen.export.families.gpt2:Gpt2",
        "vision": "edgegen.export.families.vision:VisionEncoderDecoder",
        "moonshine": "edgegen.export.families.moonshine:Moonshine",
        "causal": "edgegen.export.families.causal:Causal",
        "codegen": "edgegen.export.families.codegen:CodeGen",
        "codet5p": "edgegen.export.families.codet5p:CodeT5p",
        "modernbert": "edgegen.export.families.modernbert:ModernBert",
        "modernbert-decoder": "edgegen.export.families.modernbert_decoder:ModernBertDecoder",
    },
)


def family_of(checkpoint: Checkpoint) -> tuple[str, Family]:
    """The table's name and the family bound to this checkpoint; ``CheckpointError`` if none is."""
    refuse_experts(checkpoint)
    known: dict[str, str] = {}
    for name in FAMILIES:
        family = FAMILIES[name]
        if checkpoint.model_type in family.model_types:
            return name, family(checkpoint)
        known |= dict.fromkeys(family.model_types, name)
    near = nearest(checkpoint, known)
    hint = f" The nearest is {near!r} (family {known[near]!r})." if near else ""
    raise CheckpointError(
        f"unknown model type {checkpoint.model_type!r}.{hint} Known: {', '.join(sorted(known))}. "
        "docs/extend.md tells how to add a family."
    )


def refuse_experts(checkpoint: Checkpoint) -> None:
    """Layers that choose among feed-forwards are no family's: weights would stay unread."""
    keys = ("num_experts", "num_local_experts", "n_routed_experts")
    counts = [int(checkpoint.config.get(key) or 0) for key in keys]
    if max(counts) > 1:
        raise CheckpointError(
            f"{checkpoint.model_type}: a mixture of {max(counts)} experts; expected one "
            "feed-forward a layer. Take a dense model, such as its family's smaller ones."
        )
