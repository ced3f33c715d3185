"""What ``load`` was told, and the engine it makes of it: bundle, devices, draft model, corpus."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgegen.bundle import Bundle
from edgegen.devices import DeviceOptions, device_named
from edgegen.errors import InputError

from .calibration import Store, user_cache
from .engine import Engine
from .fallback import retried
from .parts import DEFAULT
from .placement import Placed, Places, by_part, planned
from .sources import SourceCache
from .tokenizer import Tokenizer, load_tokenizers

if TYPE_CHECKING:
    from .companion import Companion
    from .drafters.suffix import Corpus

# The user's cache, for devices that take long to compile.
AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class Loading:
    """The arguments of ``load``, which tells what they are."""

    device: Places | None
    threads: int
    precision: Places | None
    static: bool
    exact: bool
    fallback: Sequence[str]
    placement: str | Path | None
    source_cache_bytes: int
    cache_dir: str | Path | None
    verify: bool
    draft_model: str | Path | None
    draft_device: str | None
    draft_threads: int | None
    corpus: str | Path | None
    calibrate: bool

    def open(
        self, bundle: Bundle, made: ExitStack, warn: Callable[[str], None]
    ) -> tuple[Engine, dict[str, Tokenizer], Placed | None]:
        """Everything compiled that each request needs. ``made`` closes it. Raises what ``load``
        does."""
        options = self._options(self.threads)
        plan = planned(self.placement, bundle, options, self.device, warn)
        places = by_part(self.device if plan is None else plan.places)
        if "draft" in places and self.draft_model is None and plan is None:
            raise InputError("a device is given for draft, and no draft model; give one, or none.")
        beside = places.pop("draft", "") or places.get("decode", places[DEFAULT])
        formats = self.precision if plan is None or self.precision is not None else plan.precision
        sources = SourceCache(self.source_cache_bytes) if self.source_cache_bytes else None
        drafting = self._options(self.threads if self.draft_threads is None else self.draft_threads)
        engine = Engine(
            bundle,
            {part: device_named(name) for part, name in places.items()},
            options,
            None if formats is None else by_part(formats, ""),
            static=self.static,
            fallback=tuple(map(device_named, self.fallback)),
            sources=sources,
        )
        made.callback(engine.close)
        if self.corpus is None and self.draft_model is None:
            with engine.parts.opening(engine.opened_first):
                return engine, load_tokenizers(bundle), plan
        # What may be named amiss is looked at before anything compiles.
        tokenizers = load_tokenizers(bundle)
        if self.corpus is not None:
            engine.corpus = read_corpus(Path(self.corpus), tokenizers)
        engine.companion = self._companion(
            bundle, tokenizers, self.draft_device or beside, drafting, sources
        )
        engine.parts.open(engine.opened_first)
        return engine, tokenizers, plan

    def measure(self, engine: Engine, warn: Callable[[str], None]) -> None:
        """What drafts cost here, if it was asked for."""
        if self.calibrate and "decode" in engine.variants:
            store = Store((engine.parts.options.cache_dir or user_cache()) / "calibration")
            retried(partial(engine.speculation.calibrate, engine, store, warn), engine.give_way)

    def _options(self, threads: int) -> DeviceOptions:
        if threads < 1:
            raise InputError(f"threads must be at least 1, got {threads}.")
        usual = self.cache_dir == AUTO
        given = None if self.cache_dir is None else Path(self.cache_dir)
        return DeviceOptions(
            threads=threads,
            exact=self.exact,
            cache_dir=user_cache() if usual else given,
            cache="slow" if usual else "every",
        )

    def _companion(
        self,
        bundle: Bundle,
        tokenizers: Mapping[str, Tokenizer],
        device: str,
        options: DeviceOptions,
        sources: SourceCache | None,
    ) -> Companion | None:
        if self.draft_model is None:
            return None
        from .companion import Companion

        return Companion.open(
            self.draft_model,
            bundle,
            tokenizers,
            device,
            options,
            verify=self.verify,
            fallback=tuple(map(device_named, self.fallback)),
            sources=sources,
        )


def read_corpus(path: Path, tokenizers: Mapping[str, Tokenizer]) -> Corpus:
    """What drafts may be copied from, in the ids that the target writes."""
    from .drafters.suffix import Corpus

    return Corpus.read(path, tokenizers.get("target") or tokenizers["source"])
