"""transformers, eager, float32."""

from __future__ import annotations

import torch
import transformers

from ..protocol import Run, Settings
from .generate import runner

PACKAGES = ("transformers", "torch")


def load(settings: Settings, threads: int) -> Run:
    torch.set_num_threads(threads)
    encoder = bool(settings.get("encoder", True))
    auto = transformers.AutoModelForSeq2SeqLM if encoder else transformers.AutoModelForCausalLM
    model = auto.from_pretrained(settings["model"], dtype=torch.float32).eval()
    return runner(model, encoder=encoder)
