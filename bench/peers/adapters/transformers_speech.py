"""transformers' Whisper, eager, float32, greedy, English: windows one after another."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from ..protocol import Outcome, Request, Run, Settings
from .audio import RATE, samples

PACKAGES = ("transformers", "torch")
WINDOW = 30 * RATE


def load(settings: Settings, threads: int) -> Run:
    torch.set_num_threads(threads)
    folder: str = settings["model"]
    library: Any = transformers  # much of it has no types
    model = library.WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    model.eval()
    extractor = library.WhisperFeatureExtractor.from_pretrained(folder)
    tokenizer = library.WhisperTokenizerFast.from_pretrained(folder)

    @torch.inference_mode()
    def run(request: Request) -> Outcome:
        texts: list[str] = []
        for path in request.audio:
            sound = samples(path)
            long = len(sound) > WINDOW
            # What is longer than a window is cut at the times the model itself writes.
            cut = {"truncation": False, "padding": "longest"} if long else {}
            features = extractor(
                sound, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True, **cut
            )
            ids = model.generate(
                **features, language="en", task="transcribe", return_timestamps=long,
                do_sample=False, num_beams=1,
            )  # fmt: skip
            texts.append(tokenizer.batch_decode(ids, skip_special_tokens=True)[0].strip())
        return Outcome(texts=texts)

    return run
