"""``load``: a bundle is read, and its weights hashed, while the runtime is still being imported.

So nothing but the bundle's own reader is imported here before that.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from edgegen.bundle import Bundle
from edgegen.errors import EdgegenWarning

if TYPE_CHECKING:
    from .pipeline import Pipeline
    from .placement import Places


def load(
    path: str | Path,
    device: Places | None = None,
    threads: int = 1,
    *,
    precision: Places | None = None,
    static: bool = False,
    exact: bool = True,
    fallback: Sequence[str] = (),
    placement: str | Path | None = None,
    source_cache_bytes: int = 0,
    cache_dir: str | Path | None = None,
    verify: bool = True,
    draft_model: str | Path | None = None,
    draft_device: str | None = None,
    draft_threads: int | None = None,
    corpus: str | Path | None = None,
    calibrate: bool = False,
) -> Pipeline:
    """Open a bundle on its devices, ready to generate.

    ``device`` is a name, ``ort-cpu`` unless said, or one a part (``{"encode": "ov-cpu"}``;
    ``draft`` is a draft model's, ``default`` that of all others). ``precision`` picks among the
    bundle's variants, the same way (the smallest weights by default); ``static`` takes graphs of
    fixed sizes where the device could do with those of any size too. ``exact`` False lets the
    device compute float graphs in what it declares faster. ``fallback`` are devices that take over,
    in order, from one that is missing or fails. ``placement`` is a file that ``edgegen profile
    --plan`` wrote, or ``"auto"`` for the one measured here for this bundle, if any; it decides the
    devices. ``source_cache_bytes`` of encoded sources are kept for calls with the same source.
    ``verify`` checks every file's hash. ``draft_model`` is the bundle of a smaller model for
    ``draft="model"``, on the same device and threads unless said. ``corpus`` is a UTF-8 text file
    that the drafter ``suffix``, alone, in a combination or in ``auto``, may copy from; it takes
    about half a kilobyte of memory a token. ``calibrate`` measures what drafts cost here, once for
    all loads alike and in about a second: ``draft="auto"`` needs it. ``cache_dir`` keeps what was
    compiled and measured; ``"auto"`` is the user's cache, for what devices compile slowly. Without
    one nothing compiled is kept, and measurements go to the user's cache. Raises ``BundleError``,
    ``UnknownName``, ``DeviceError``, and ``InputError`` for arguments at odds.
    """
    told: list[str] = []
    try:
        return _opened(
            path, verify, told.append, device=device, threads=threads, precision=precision,
            static=static, exact=exact, fallback=fallback, placement=placement,
            source_cache_bytes=source_cache_bytes, cache_dir=cache_dir, draft_model=draft_model,
            draft_device=draft_device, draft_threads=draft_threads, corpus=corpus,
            calibrate=calibrate,
        )  # fmt: skip
    finally:
        for message in told:  # to whoever called
            warnings.warn(message, EdgegenWarning, stacklevel=2)


def _opened(path: str | Path, verify: bool, warn: Callable[[str], None], **given: Any) -> Pipeline:
    """The bundle as ``load`` was asked for it; nothing stays open where that fails."""
    start = perf_counter()
    with ExitStack() as made:
        with Bundle.opening(path, verify=verify) as bundle:
            from .loading import Loading
            from .pipeline import TASKS, Pipeline

            loading = Loading(verify=verify, **given)
            engine, tokenizers, plan = loading.open(bundle, made, warn)
            task = TASKS[engine.manifest.task](engine, tokenizers)
        seconds = perf_counter() - start
        loading.measure(engine, warn)
        made.pop_all()
    return Pipeline(engine, task, seconds, plan)
