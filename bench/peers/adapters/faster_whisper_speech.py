"""faster-whisper, greedy, English: no fallback to higher temperatures, no voice detection, and no
window told of the one before, as all others here."""

from __future__ import annotations

from faster_whisper import (  # type: ignore[import-not-found,unused-ignore] # pyright: ignore
    WhisperModel,
)

from ..protocol import Outcome, Request, Run, Settings
from .audio import samples

PACKAGES = ("faster-whisper", "ctranslate2")


def load(settings: Settings, threads: int) -> Run:
    model = WhisperModel(
        settings["model"],
        device="cpu",
        compute_type=settings["compute_type"],
        cpu_threads=threads,
        num_workers=1,
        local_files_only=True,
    )

    def run(request: Request) -> Outcome:
        texts: list[str] = []
        for path in request.audio:
            segments, _ = model.transcribe(
                samples(path),
                language="en",
                beam_size=1,
                temperature=0.0,
                condition_on_previous_text=False,
                without_timestamps=settings.get("without_timestamps", False),
            )
            texts.append("".join(segment.text for segment in segments).strip())
        return Outcome(texts=texts)

    return run
