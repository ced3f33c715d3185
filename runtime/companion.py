"""A draft model's bundle opened beside a target's: its own graphs, its own encoder or the target's.

Knows how a source and a memory of the target reach the draft. Shared by threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgegen.bundle import Bundle
from edgegen.devices import Device, DeviceOptions, device_named
from edgegen.errors import BundleError, InputError
from edgegen.graph import Port
from edgegen.manifest import Manifest

from .drafters.model import DraftModel
from .drafters.realign import Side, Translation
from .engine import Engine, Memory
from .filters import LogitsFilter, build_filters
from .options import GenerationOptions
from .sampling import Greedy, Sampler
from .sources import SourceCache
from .tokenizer import Tokenizer, load_tokenizers

# Encoders of different requests that may run at a time.
ENCODERS = 4
# What drafting runs of a bundle, which may hold more.
NEEDED = ("features", "encode", "decode")


class Companion:
    """The draft's side of a pipeline.

    ``shared``: the draft was made for this target and reads its encoder's output, so it has
    nothing to encode.
    """

    def __init__(self, engine: Engine, translation: Translation, *, shared: bool) -> None:
        self.engine, self.translation, self.shared = engine, translation, shared
        self._unshared = translation.unshared()
        # Beside the target's encoder, which runs in the caller's thread.
        self._encoders = ThreadPoolExecutor(ENCODERS, thread_name_prefix="draft-encoder")

    @classmethod
    def open(
        cls,
        path: str | Path,
        target: Bundle,
        tokenizers: Mapping[str, Tokenizer],
        device: str,
        options: DeviceOptions,
        *,
        verify: bool = True,
        fallback: Sequence[Device] = (),
        sources: SourceCache | None = None,
    ) -> Companion:
        """Raises ``BundleError``, ``UnknownName``, ``DeviceError``, and ``InputError`` when the
        draft cannot hear or read what the target does."""
        bundle = Bundle.open(path, verify=verify)
        ours = load_tokenizers(bundle)
        shared = is_made_for(bundle.manifest, target)
        check_pair(bundle, target, shared=shared)
        translation = Translation(
            Side.of(target.manifest, tokenizers), Side.of(bundle.manifest, ours)
        )
        engine = Engine(
            bundle, device_named(device), options, fallback=fallback, sources=sources, role="draft"
        )
        needed = ("decode",) if shared else NEEDED
        with ExitStack() as made:
            made.callback(engine.close)
            engine.parts.open([name for name in needed if name in engine.parts.names])
            companion = cls(engine, translation, shared=shared)
            made.pop_all()
        return companion

    def encode_ids(self, ids: Sequence[int]) -> Future[Memory] | None:
        """Start the draft's encoder on the target's source ids; None when it has none to run."""
        if self.shared:
            return None
        mine = self.translation.source(ids)
        return self._encoders.submit(self.engine.remember_ids, mine)

    def encode_samples(self, samples: NDArray[np.float32]) -> Future[Memory] | None:
        if self.shared:
            return None
        return self._encoders.submit(self.engine.remember_samples, samples)

    def encode_pixels(self, pixels: NDArray[np.float32]) -> Future[Memory] | None:
        if self.shared:
            return None
        return self._encoders.submit(self.engine.remember_pixels, pixels)

    def model(
        self,
        memory: Memory | None,
        options: GenerationOptions,
        *,
        sampler: Sampler,
        filters: Sequence[LogitsFilter],
        prompt_length: int,
    ) -> DraftModel:
        """The draft for one text. ``memory``, ``sampler`` and ``filters`` are the target's."""
        manifest = self.engine.manifest
        same = self.translation.way == "same"
        draws = same and options.verifier == "rejection" and options.do_sample
        return DraftModel(
            open=lambda: self.engine.decoder(self._memory(memory)),
            bridge=self.translation.bridge(),
            # Without the target's ids its noise would mean other tokens: the likeliest are better.
            sampler=sampler if same else Greedy(),
            filters=filters if same else self._filters(options),
            ends=frozenset(manifest.generation.end),
            prompt_length=prompt_length,
            positions=manifest.generation.max_positions,
            noise=options.seed if draws else None,
            confidence=options.assistant_confidence_threshold,
        )

    def close(self) -> None:
        self._encoders.shutdown(wait=True, cancel_futures=True)
        self.engine.close()

    def _memory(self, memory: Memory | None) -> Memory | None:
        if memory is None or self.shared:
            return memory
        if memory.draft is None:
            raise InputError("draft 'model': the source was encoded without the draft's encoder.")
        return memory.draft.result()

    def _filters(self, options: GenerationOptions) -> tuple[LogitsFilter, ...]:
        """The draft's own rules; what the caller said in the target's ids is not repeated."""
        manifest = self.engine.manifest
        times = manifest.speech is not None and manifest.speech.timestamp_begin > 0
        own = options.with_changes(
            bad_words=(),
            bad_words_ids=(),
            suppress=self._unshared,
            forced=(),
            timestamps=options.timestamps and times,
        )
        return build_filters(
            own, manifest.generation, vocabulary=manifest.vocabulary, speech=manifest.speech
        )


def is_made_for(draft: Manifest, target: Bundle) -> bool:
    """Whether the draft's manifest names one of the target's decode graphs."""
    named = {one.target_sha256 for one in draft.drafts if one.component == "decode"}
    paths = {variant.file for variant in target.component("decode").variants}
    return any(file.path in paths and file.sha256 in named for file in target.manifest.files)


def check_pair(draft: Bundle, target: Bundle, *, shared: bool) -> None:
    """Raises when the draft cannot be given what the target is given."""
    needs, has = memory_ports(draft.manifest), memory_ports(target.manifest)
    if shared:
        wrong = sorted(name for name in needs if needs[name] != has.get(name))
        if wrong:
            raise BundleError(
                f"{draft.path}: it is made to share the encoder of {target.path}, which gives "
                f"{has.get(wrong[0], f'no {wrong[0]}')}, expected {needs[wrong[0]]}."
            )
        return
    mine, theirs = source_of(draft.manifest), source_of(target.manifest)
    if needs and "encode" not in draft.manifest.components:
        raise InputError(
            f"draft model {draft.path}: it shares the encoder of another target than "
            f"{target.path}; export it for this one."
        )
    if mine != theirs:
        raise InputError(
            f"draft model {draft.path} takes {mine}, the target takes {theirs}; "
            "choose a draft model of the same kind."
        )


def memory_ports(manifest: Manifest) -> dict[str, Port]:
    """What a decoder reads of its encoder."""
    graph = manifest.components["decode"].variants[0].graph
    return {port.name: port for port in graph.inputs if port.name.startswith("cross_")}


def source_of(manifest: Manifest) -> str:
    """What a model is given, in words."""
    if "encode" not in manifest.components:
        return "a prompt"
    speech, image = manifest.speech, manifest.image
    if image is not None:
        return f"a picture of {msgspec.to_builtins(image)}"
    if speech is None:
        return "a text"
    return f"{speech.window_samples} samples at {speech.sample_rate} Hz"
