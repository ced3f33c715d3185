"""``load`` a bundle, ``generate`` from it, ``stream`` its text as it comes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast, overload

import numpy as np
from numpy.typing import NDArray

from edgegen.bundle import Bundle
from edgegen.errors import InputError
from edgegen.registry import Registry

from .asking import finished
from .batch import together
from .engine import Engine
from .fallback import retried, steadily
from .methods import check_method
from .options import GenerationOptions
from .placement import Placed
from .result import Result
from .task import Gaps, Message, Source, Task

if TYPE_CHECKING:
    from .encoding import EncoderTask, Filling, Label
    from .tags import Span

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
T = TypeVar("T")
Texts = list[str] | tuple[str, ...]
Batch = list[str] | list[Path] | list[list[int]] | list[Gaps] | list[NDArray[Any]]


class Stream(Iterator[str]):
    """Pieces of text as they are made; ``result`` once they are out.

    ``close`` (or leaving a ``with`` block) stops the generation and frees its caches at once.
    """

    def __init__(self, running: Generator[str, None, Result]) -> None:
        self._running = running
        self._result: Result | None = None

    def __next__(self) -> str:
        try:
            return next(self._running)
        except StopIteration as end:
            self._result = end.value or self._result
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

    def __init__(
        self, engine: Engine, task: Task, load_seconds: float, plan: Placed | None = None
    ) -> None:
        self.engine, self.task = engine, task
        self.load_seconds = load_seconds
        # The file that decided where parts run, and what requests without options are made with.
        self.placement = "" if plan is None else str(plan.file)
        plain = plan is not None and plan.plan.draft == "none"
        self.defaults = DEFAULTS.with_changes(draft="none") if plain else DEFAULTS

    @property
    def bundle(self) -> Bundle:
        return self.engine.bundle

    @overload
    def generate(
        self,
        source: Batch,
        options: GenerationOptions | None = None,
        *,
        batch_size: int = 1,
        workers: int = 1,
    ) -> list[Result]: ...
    @overload
    def generate(
        self,
        source: Source,
        options: GenerationOptions | None = None,
        *,
        batch_size: int = 1,
        workers: int = 1,
    ) -> Result: ...
    def generate(
        self,
        source: Any,
        options: GenerationOptions | None = None,
        *,
        batch_size: int = 1,
        workers: int = 1,
    ) -> Result | list[Result]:
        """Text for a source: text, token ids, a conversation (messages with ``role`` and
        ``content``), a text with gaps (``Gaps``), samples (float32 mono at the bundle's rate) or an
        audio file's path.

        A list of sources gives a list of results in the same order, ``batch_size`` of them decoded
        together: more words a second and no drafts, with ``draft="auto"`` too. Texts are then
        those of one at a time up to rounding. ``workers`` threads do so each, on graphs loaded
        once: where cores are free, two with ``threads=1`` write more than one with ``threads=2``.
        Raises ``InputError``, ``CacheFull`` and ``DeviceError``.
        """
        for name, given in (("batch_size", batch_size), ("workers", workers)):
            if given < 1:
                raise InputError(f"{name} must be at least 1, got {given!r}.")
        if is_batch(source):
            if max(batch_size, workers) > 1 and self.bundle.manifest.encoding is None:
                return self._together(source, options or self.defaults, batch_size, workers)
            return [self.generate(one, options) for one in source]
        options = options or self.defaults
        self._check(source, options)
        return self._told(self._retried(lambda: finished(self.task.run(source, options))))

    def _together(
        self, sources: Sequence[Any], options: GenerationOptions, batch_size: int, workers: int
    ) -> list[Result]:
        if batch_size > 1 and options.draft not in ("auto", "none"):
            raise InputError(
                f"draft {options.draft!r} is for one text at a time: leave batch_size at 1 "
                "(workers may be more), or the draft out."
            )
        if batch_size > 1:
            options = options.with_changes(draft="none")

        def run() -> list[Result]:
            writings = [self.task.run(source, options) for source in sources]
            return together(self.engine, writings, batch_size, workers)

        return [self._told(result) for result in self._retried(run)]

    def stream(self, source: Source, options: GenerationOptions | None = None) -> Stream:
        """The same, piece by piece: whole characters that join to the result's text."""
        options = options or self.defaults
        self._check(source, options)
        return Stream(self._running(source, options))

    def _check(self, source: Source, options: GenerationOptions) -> None:
        """Raises ``InputError`` for what this bundle cannot be asked, before anything runs."""
        check_method(self.bundle.manifest, "generate")
        if isinstance(source, Gaps):
            from .infill import marks_of

            marks_of(self.bundle.manifest)
        self.engine.drafts_with_model(options)

    def _encoder(self, asked: str) -> EncoderTask:
        """The task, for one of its methods. Raises ``InputError``."""
        from .encoding import encoder_for

        return encoder_for(self.task, self.bundle.manifest, asked)

    def _running(self, source: Source, options: GenerationOptions) -> Generator[str, None, Result]:
        start = partial(self.task.run, source, options)
        return self._told((yield from steadily(start, self.engine.give_way)))

    def _told(self, result: Result) -> Result:
        """The result with where it was made."""
        engine = self.engine
        return replace(
            result,
            devices=engine.devices,
            fallbacks=engine.fallbacks,
            placement=self.placement,
        )

    def _retried(self, call: Callable[[], T]) -> T:
        return retried(call, self.engine.give_way)

    def infill(
        self, prefix: str, suffix: str | None = None, options: GenerationOptions | None = None
    ) -> Result:
        """``generate`` of ``Gaps(prefix, suffix)``: the text with what comes in between, alone in
        the result's ``spans``. Without a suffix the prefix is a text with marks for its gaps."""
        return self.generate(Gaps(prefix, suffix), options)

    # ------------------------------------------------- encoders that stand alone

    def embed(self, texts: str | Texts) -> NDArray[np.float32]:
        """A vector a text, ``float32 [texts, width]``; one text is ``[1, width]``."""
        found = self._encoder("embed")
        many = [texts] if isinstance(texts, str) else texts
        return self._retried(lambda: found.embed(many))

    @overload
    def classify(self, texts: str) -> list[Label]: ...
    @overload
    def classify(self, texts: Texts) -> list[list[Label]]: ...
    def classify(self, texts: str | Texts) -> list[Label] | list[list[Label]]:
        """Every class of a text with its score, the likeliest first; a list of texts, a list of
        those."""
        found = self._encoder("classify")
        many = [texts] if isinstance(texts, str) else texts
        labels = self._retried(lambda: found.classify(many))
        return labels[0] if isinstance(texts, str) else labels

    @overload
    def tag(self, texts: str, aggregation: str = ...) -> list[Span]: ...
    @overload
    def tag(self, texts: Texts, aggregation: str = ...) -> list[list[Span]]: ...
    def tag(self, texts: str | Texts, aggregation: str = "simple") -> list[Span] | list[list[Span]]:
        """Spans of a text with a class other than ``O``, by character; a list of texts, a list of
        those. ``aggregation`` says how a word's class comes of its tokens': ``simple`` does not
        look at words, ``first``, ``average`` and ``max`` do, ``none`` gives tokens as they are."""
        found = self._encoder("tag")
        many = [texts] if isinstance(texts, str) else texts
        spans = self._retried(lambda: found.tag(many, aggregation))
        return spans[0] if isinstance(texts, str) else spans

    def fill_mask(self, text: str, top_k: int = 5) -> list[list[Filling]]:
        """The ``top_k`` likeliest tokens for each mask of the text, in the text's order."""
        found = self._encoder("fill_mask")
        return self._retried(lambda: found.fill_mask(text, top_k))

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
    if isinstance(items[0], np.ndarray) and items[0].ndim:
        return True
    return not isinstance(items[0], int | float | Mapping) and not hasattr(items[0], "__index__")


__all__ = ["DEFAULTS", "Gaps", "Message", "Pipeline", "Result", "Stream"]
