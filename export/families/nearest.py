"""The family nearest to an architecture no family is for, so that who adds one has a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from ..checkpoint import Checkpoint

# How alike two names are that one may be the other misspelt.
ALIKE = 0.8
# What transformers' classes end in, by the model type of the family that computes such things.
ENDINGS: Mapping[str, str] = {
    "ForMaskedLM": "modernbert",
    "ForSequenceClassification": "modernbert",
    "ForTokenClassification": "modernbert",
    "ForSpeechSeq2Seq": "whisper",
    "ForCausalLM": "llama",
    "LMHeadModel": "gpt2",
}


def nearest(checkpoint: Checkpoint, known: Iterable[str]) -> str | None:
    """The known model type it is most like: by name, else by class, else by having two halves."""
    found, types = checkpoint.model_type, list(known)
    inside = [name for name in types if name in found]
    around = [name for name in types if found in name]
    if inside or around:
        return max(inside, key=len) if inside else min(around, key=len)
    if alike := get_close_matches(found, types, n=1, cutoff=ALIKE):
        return alike[0]
    for named in checkpoint.config.get("architectures") or ():
        for ending, model_type in ENDINGS.items():
            if str(named).endswith(ending):
                return model_type
    return "bart" if checkpoint.config.get("is_encoder_decoder") else None
