"""optimum-intel's OVModelForSeq2SeqLM: transformers' loop over a stateful OpenVINO model.

Arithmetic is what OpenVINO chooses on this processor, as it comes to every user.
"""

from __future__ import annotations

from optimum.intel import (  # type: ignore[import-not-found,unused-ignore] # pyright: ignore
    OVModelForSeq2SeqLM,
)

from ..protocol import Run, Settings
from .generate import runner

PACKAGES = ("optimum-intel", "openvino", "transformers", "torch")


def load(settings: Settings, threads: int) -> Run:
    import torch

    torch.set_num_threads(threads)
    chosen = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    model = OVModelForSeq2SeqLM.from_pretrained(settings["model"], ov_config=chosen)
    return runner(model, encoder=True)
