"""``load`` a bundle, ``generate`` from it, ``stream`` its text as it comes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, Self, cast, overload

import numpy as np
from numpy.typing import NDArray

from edgegen.bundle import Bundle
from edgegen.devices import DeviceOptions, device_named
from edgegen.errors import InputError
from edgegen.registry import Registry

from .asking import answered
from .batch import Batch as Together
from .calibration import Store
from .companion import Companion
from .drafters.suffix import Corpus
from .encoding import Filling, Label, encoder_for, refuse_method
from .engine import Engine
from .infill import marks_of
from .options import GenerationOptions
from .result import Result
from .tags import Span
from .task import EdgegenWarning, Gaps, Message, Running, Source, Task
from .tokenizer import Tokenizer, load_tokenizer

TASKS: Registry[Any] = Registry(
    "task",
    {
        "text2text-generation": "edgegen.runtime.text:TextTask",
        "text-generation": "edgegen.runtime.text:TextTask",
        "automatic-speech-recognition": "edgegen.runtime.speech:SpeechTask",
        "feature-extraction": "edgegen.runtime.encoding:EncoderTask",
        "text-classification": "edgegen.runtime.encoding:EncoderTask",
        "token-classification": "edgegen.runtime.encoding:EncoderTask",
        "fill-mask": "edgegen.runtime.encoding:EncoderTask",
        "image-to-text": "edgegen.runtime.captioning:ImageTask",
    },
)
DEFAULTS = GenerationOptions()
Texts = list[str] | tuple[str, ...]
Batch = list[str] | list[Path] | list[list[int]] | list[Gaps] | list[NDArray[Any]]


class Stream(Iterator[str]):
    """Pieces of text as they are made; ``result`` once they are out.

    ``close`` (or leaving a ``with`` block) stops the generation and frees its caches at once.
    """

    def __init__(self, running: Running) -> None:
        self._running = answered(running)
        self._result: Result | None = None

    def __next__(self) -> str:
        try:
            return next(self._running)
        except StopIteration as end:
            self._result = cast("Result | None", end.value) or self._result
            raise StopIteration from None

    @property
    def result(self) -> Result:
        """The whole result. Raises ``InputError`` while the stream runs or after a ``close``."""
        if self._result is None:
            raise InputError("the stream has no result yet: read it to its end first.")
        return self._result

    def close(self) -> None:
        self._running.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Pipeline:
    """A loaded bundle. One pipeline may be used by several threads at a time."""

    def __init__(self, engine: Engine, task: Task, load_seconds: float) -> None:
        self.engine, self.task = engine, task
        self.load_seconds = load_seconds

    @property
    def bundle(self) -> Bundle:
        return self.engine.bundle

    @overload
    def generate(
        self, source: Batch, options: GenerationOptions | None = None, *, batch_size: int = 1
    ) -> list[Result]: ...
    @overload
    def generate(
        self, source: Source, options: GenerationOptions | None = None, *, batch_size: int = 1
    ) -> Result: ...
    def generate(
        self, source: Any, options: GenerationOptions | None = None, *, batch_size: int = 1
    ) -> Result | list[Result]:
        """Text for a source: text, token ids, a conversation (messages with ``role`` and
        ``content``), a text with gaps (``Gaps``), samples (float32 mono at the bundle's rate) or an
        audio file's path.

        A list of sources gives a list of results in the same order, ``batch_size`` of them decoded
        together: more words a second and no drafts. Texts are then those of one at a time up to
        rounding. Raises ``InputError``, ``CacheFull`` and ``DeviceError``.
        """
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size!r}.")
        if is_batch(source):
            if batch_size > 1 and self.bundle.manifest.encoding is None:
                return self._together(source, options or DEFAULTS, batch_size)
            return [self.generate(one, options) for one in source]
        stream = self.stream(source, options)
        for _ in stream:
            pass
        return stream.result

    def _together(
        self, sources: Sequence[Any], options: GenerationOptions, batch_size: int
    ) -> list[Result]:
        if options.draft == "auto":
            options = options.with_changes(draft="none")
        batch = Together(self.engine, batch_size)
        return batch.run([self.task.run(source, options) for source in sources])

    def stream(self, source: Source, options: GenerationOptions | None = None) -> Stream:
        """The same, piece by piece: whole characters that join to the result's text."""
        options = options or DEFAULTS
        if self.bundle.manifest.encoding is not None:
            refuse_method(self.bundle.manifest, "generate")
        if isinstance(source, Gaps):
            marks_of(self.bundle.manifest)
        self.engine.drafts_with_model(options)
        return Stream(self.task.run(source, options))

    def infill(
        self, prefix: str, suffix: str | None = None, options: GenerationOptions | None = None
    ) -> Result:
        """``generate`` of ``Gaps(prefix, suffix)``: the text with what comes in between, alone in
        the result's ``spans``. Without a suffix the prefix is a text with marks for its gaps."""
        return self.generate(Gaps(prefix, suffix), options)

    # ------------------------------------------------- encoders that stand alone

    def embed(self, texts: str | Texts) -> NDArray[np.float32]:
        """A vector a text, ``float32 [texts, width]``; one text is ``[1, width]``."""
        found = encoder_for(self.task, self.bundle.manifest, "embed")
        return found.embed([texts] if isinstance(texts, str) else texts)

    @overload
    def classify(self, texts: str) -> list[Label]: ...
    @overload
    def classify(self, texts: Texts) -> list[list[Label]]: ...
    def classify(self, texts: str | Texts) -> list[Label] | list[list[Label]]:
        """Every class of a text with its score, the likeliest first; a list of texts, a list of
        those."""
        found = encoder_for(self.task, self.bundle.manifest, "classify")
        return found.classify([texts])[0] if isinstance(texts, str) else found.classify(texts)

    @overload
    def tag(self, texts: str, aggregation: str = ...) -> list[Span]: ...
    @overload
    def tag(self, texts: Texts, aggregation: str = ...) -> list[list[Span]]: ...
    def tag(self, texts: str | Texts, aggregation: str = "simple") -> list[Span] | list[list[Span]]:
        """Spans of a text with a class other than ``O``, by character; a list of texts, a list of
        those. ``aggregation`` says how a word's class comes of its tokens': ``simple`` does not
        look at words, ``first``, ``average`` and ``max`` do, ``none`` gives tokens as they are."""
        found = encoder_for(self.task, self.bundle.manifest, "tag")
        if isinstance(texts, str):
            return found.tag([texts], aggregation)[0]
        return found.tag(texts, aggregation)

    def fill_mask(self, text: str, top_k: int = 5) -> list[list[Filling]]:
        """The ``top_k`` likeliest tokens for each mask of the text, in the text's order."""
        return encoder_for(self.task, self.bundle.manifest, "fill_mask").fill_mask(text, top_k)

    def close(self) -> None:
        """Free the compiled graphs."""
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def is_batch(source: object) -> bool:
    """Several sources: a list whose items are neither numbers nor messages."""
    if not isinstance(source, list | tuple):
        return False
    items = cast(Sequence[object], source)
    if not items:
        return True
    return not isinstance(items[0], int | float | Mapping) and not hasattr(items[0], "__index__")


def load(
    path: str | Path,
    device: str = "ort-cpu",
    threads: int = 1,
    *,
    precision: str | None = None,
    exact: bool = True,
    cache_dir: Path | None = None,
    verify: bool = True,
    draft_model: str | Path | None = None,
    draft_device: str | None = None,
    draft_threads: int | None = None,
    corpus: str | Path | None = None,
    calibrate: bool = False,
) -> Pipeline:
    """Open a bundle on a device, ready to generate.

    ``precision`` picks among a bundle's variants (the smallest weights by default). ``exact`` False
    lets the device compute float graphs in what it declares faster. ``verify`` checks every file's
    hash. ``draft_model`` is the bundle of a smaller model for ``draft="model"``, on the same device
    and threads unless said. ``corpus`` is a UTF-8 text file that the drafter ``suffix``, alone, in
    a combination or in ``auto``, may copy from: texts like those that will be written; it takes
    about half a kilobyte of memory a token. ``calibrate`` measures what drafts cost here, once for
    all loads alike and in about a second: ``draft="auto"`` needs it. ``cache_dir`` keeps what was
    compiled and measured; measurements go to the user's cache folder where none is given. Raises
    ``BundleError``, ``UnknownName``, ``DeviceError``, and ``InputError`` for a corpus that is no
    text.
    """
    start = perf_counter()
    fewest = threads if draft_threads is None else min(threads, draft_threads)
    if fewest < 1:
        raise InputError(f"threads must be at least 1, got {fewest}.")
    bundle = Bundle.open(path, verify=verify)
    options = DeviceOptions(threads=threads, exact=exact, cache_dir=cache_dir)
    tokenizers = {
        role: load_tokenizer(bundle.path, record)
        for role, record in bundle.manifest.tokenizers.items()
    }
    copied = None if corpus is None else read_corpus(Path(corpus), tokenizers)
    companion = None
    if draft_model is not None:
        companion = Companion.open(
            draft_model,
            bundle,
            tokenizers,
            draft_device or device,
            replace(options, threads=draft_threads or threads),
            verify=verify,
        )
    engine = Engine(bundle, device_named(device), options, precision, companion)
    engine.corpus = copied
    task: Task = TASKS[bundle.manifest.task](engine, tokenizers)
    for component in engine.opened_first:
        engine.session(component)
    seconds = perf_counter() - start
    if calibrate and "decode" in engine.variants:
        store = Store((cache_dir or user_cache()) / "calibration")
        engine.speculation.calibrate(engine, store, warn)
    return Pipeline(engine, task, seconds)


def read_corpus(path: Path, tokenizers: Mapping[str, Tokenizer]) -> Corpus:
    """What drafts may be copied from, in the ids that the target writes."""
    return Corpus.read(path, tokenizers.get("target") or tokenizers["source"])


def user_cache() -> Path:
    """Where this user's programs keep what they can make again."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgegen"


def warn(message: str) -> None:
    """To whoever called ``load``."""
    warnings.warn(message, EdgegenWarning, stacklevel=6)


__all__ = ["DEFAULTS", "Gaps", "Message", "Pipeline", "Result", "Stream", "load"]
