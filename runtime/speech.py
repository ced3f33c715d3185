"""Speech to text: audio of any length, in the language spoken or in English."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgegen.errors import BundleError, InputError

from . import audio
from .engine import Engine
from .languages import ENGLISH, code_of
from .options import GenerationOptions
from .recording import Recording
from .task import Running, Source
from .tokenizer import Tokenizer
from .transcription import Transcription


class SpeechTask:
    """Transcription, and translation into English, by models that hear windows of audio.

    A source is the path of an audio file, or samples at the bundle's rate. ``max_new_tokens`` and
    ``min_new_tokens`` hold for each window; a stop string ends the whole. ``segments`` come with
    ``timestamps=True`` only. A window without sound, or that the model itself takes for no
    speech, adds no text. Raises ``InputError`` for a language or task the model does not know.
    """

    def __init__(self, engine: Engine, tokenizers: Mapping[str, Tokenizer]) -> None:
        speech = engine.manifest.speech
        if speech is None:
            raise BundleError(
                f"{engine.bundle.path}: a speech model's manifest needs the record speech; "
                "export it again."
            )
        self.engine, self.speech = engine, speech
        self.tokenizer = tokenizers.get("target") or tokenizers["source"]

    def run(self, source: Source, options: GenerationOptions) -> Running:
        return (
            yield from Transcription(
                engine=self.engine,
                speech=self.speech,
                tokenizer=self.tokenizer,
                recording=self.recording(source),
                options=options,
                task=self.task(options),
                language=self.language(options),
            ).run()
        )

    def recording(self, source: Source) -> Recording:
        rate, size = self.speech.sample_rate, self.speech.window_samples
        if isinstance(source, str | Path):
            return Recording(audio.blocks(source, rate, size / rate), size)
        return Recording([audio.as_waveform(source, rate, rate)], size)

    def language(self, options: GenerationOptions) -> str | None:
        """The code of the language asked for; None lets the model hear which it is."""
        if options.source_language is not None:
            raise InputError("source_language is for translations of text; speech's is language.")
        if options.language is not None:
            return code_of(options.language, self.speech.languages)
        return None if self.speech.languages else ENGLISH

    def task(self, options: GenerationOptions) -> str:
        task, known = options.task or "transcribe", list(self.speech.tasks) or ["transcribe"]
        if task not in known:
            raise InputError(f"task {task!r}: this model can only {', '.join(known)}.")
        return task
