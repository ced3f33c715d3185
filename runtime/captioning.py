"""Pictures to text: what is to be seen, or what is written there."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter

from edgegen.errors import BundleError

from .engine import Engine
from .options import GenerationOptions
from .picture import pixels
from .result import Result, Timings, weakest
from .task import Opening, Record, Running, Source, decode
from .text import refuse_speech
from .tokenizer import Tokenizer


class ImageTask:
    """A source is the path of a picture file, or ``uint8 [height, width, 3]``."""

    def __init__(self, engine: Engine, tokenizers: Mapping[str, Tokenizer]) -> None:
        image = engine.manifest.image
        if image is None:
            raise BundleError(
                f"{engine.bundle.path}: the manifest of a model of pictures needs the record "
                "image; export it again."
            )
        self.engine, self.image = engine, image
        self.tokenizer = tokenizers.get("target") or tokenizers["source"]

    def run(self, source: Source, options: GenerationOptions) -> Running:
        refuse_speech(options)
        record = Record()
        read = perf_counter()
        values = pixels(source, self.image)
        read_seconds = perf_counter() - read
        opening = Opening(
            prompt=self.engine.manifest.generation.start,
            memory=self.engine.remember_pixels(
                values, draft=self.engine.drafts_with_model(options)
            ),
            stop=options.stop,
        )
        text = yield from decode(self.engine, self.tokenizer, opening, options, record)
        return Result(
            text=text,
            tokens=tuple(record.tokens),
            finish_reason=weakest(record.reasons),
            timings=Timings(
                passes=tuple(record.passes),
                wall_seconds=perf_counter() - record.started,
                read_seconds=read_seconds,
            ),
            lossless=self.engine.lossless(options),
            speculation=self.engine.speculation.note(options),
            logprobs=tuple(record.scores),
            hypotheses=record.best(),
            warnings=tuple(record.warnings),
        )
