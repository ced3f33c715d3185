"""A bundle opened on a device: sessions compiled when first needed, shared by threads.

Turns a source into a decoder with its memory, and options into a loop. Knows nothing of text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace as replace_fields
from numpy.typing import NDArray

from edgegen.bundle import Bundle
from edgegen.coded import filled
from edgegen.devices import Device, DeviceOptions, Session
from edgegen.devices.device import Feeds, Tensor
from edgegen.errors import InputError
from edgegen.graph import HIDDEN
from edgegen.manifest import Variant
from edgegen.shortlist import distinct

from .decoder import Decoder
from .drafters import DRAFTERS
from .drafters.base import Materials
from .drafters.combined import wanted
from .filters import build_filters
from .generation import Generation
from .options import GenerationOptions
from .parts import Fallback, PartFailed, Parts
from .sampling import build_sampler
from .sources import SourceCache, key_of
from .speculation import Speculation, noise_of
from .speculative import SpeculativeDecoding
from .stopping import Stopping, StopStrings, TextSoFar
from .verifiers import VERIFIERS
from .verify import LOSSLESS, Lossless, Verifier

PLAIN = GenerationOptions(draft="none")

if TYPE_CHECKING:
    from .companion import Companion
    from .drafters.model import DraftModel
    from .drafters.suffix import Corpus


@dataclass(frozen=True)
class Memory:
    """What ``encode`` left: cross keys and values and the source mask, and the seconds it took.

    ``draft`` is what a draft model's own encoder leaves, when it is done. ``cached``: it was kept
    from an earlier call.
    """

    feeds: Feeds
    features_seconds: float = 0.0
    encode_seconds: float = 0.0
    draft: Future[Memory] | None = None
    cached: bool = False


class Engine:
    """Compiled parts of one bundle on their devices. Safe to use from several threads.

    ``device`` and ``precision`` are for all parts or by part (``Parts``); ``fallback`` are the
    devices that take over from one that fails. ``sources`` keeps encoded sources between calls.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: Device | Mapping[str, Device],
        options: DeviceOptions,
        precision: str | Mapping[str, str] | None = None,
        *,
        static: bool = False,
        fallback: Sequence[Device] = (),
        sources: SourceCache | None = None,
        role: str = "",
    ) -> None:
        self.parts = Parts(bundle, device, options, precision, fallback, static=static, role=role)
        self.bundle, self.options = bundle, options
        self.manifest = bundle.manifest
        # Set before the first text: a draft model, and what drafts may be copied from beside
        # source and output.
        self.companion: Companion | None = None
        self.corpus: Corpus | None = None
        self.speculation = Speculation()
        self.sources = sources
        # What every request needs; the others are opened when one does.
        self.opened_first = self.parts.names

    @property
    def variants(self) -> Mapping[str, Variant]:
        """The variant of each component and, as ``decode+OUTPUT``, the decoder's others."""
        return self.parts.variants

    @property
    def device(self) -> Device:
        """Where the decoder runs, or the one part there is."""
        devices = self.parts.devices
        return devices.get("decode") or next(iter(devices.values()))

    @property
    def tokens_together(self) -> int:
        """Source tokens that an encoder call does well to stay within, 0 for any."""
        return self.parts.devices["encode"].limits.tokens_together

    @property
    def devices(self) -> dict[str, str]:
        """The device of each part by name, a draft model's as ``draft``."""
        found = {part: device.name for part, device in self.parts.devices.items()}
        return (
            found
            if self.companion is None
            else {**found, "draft": self.companion.engine.device.name}
        )

    @property
    def compile_seconds(self) -> dict[str, float]:
        return self.parts.compile_seconds

    @property
    def fallbacks(self) -> tuple[Fallback, ...]:
        """Parts that had to change their device, a draft model's among them."""
        own = self.parts.fallbacks
        return own if self.companion is None else (*own, *self.companion.engine.parts.fallbacks)

    def session(self, name: str) -> Session:
        """The compiled component, compiled now if it was not needed before."""
        return self.parts.session(name)

    def give_way(self, failure: PartFailed) -> None:
        """Put what failed on the next device. Raises what the last one said where none is left."""
        failure.parts.give_way(failure)
        if failure.parts is self.parts and failure.part == "decode":
            self.speculation.costs = None  # they were another device's

    def close(self) -> None:
        if self.companion is not None:
            self.companion.close()
        self.parts.close()

    # -------------------------------------------------------------- source

    def remember_ids(self, ids: Sequence[int], *, draft: bool = False) -> Memory:
        """Encode source ids, end mark included; with ``draft`` for the draft model as well."""
        started = self.companion.encode_ids(ids) if draft and self.companion else None
        feeds: dict[str, Tensor] = {
            "input_ids": np.asarray([ids], np.int64),
            "source_mask": np.zeros((1, len(ids)), np.float32),
        }
        return replace(self._remember(feeds), draft=started)

    def remember_many(self, sources: Sequence[Sequence[int]]) -> list[Memory]:
        """``remember_ids`` of several sources in one call, the shorter padded on the right."""
        longest, pad = max(map(len, sources)), self.manifest.generation.pad
        ids = np.full((len(sources), longest), pad, np.int64)
        mask = np.full((len(sources), longest), HIDDEN, np.float32)
        for row, source in enumerate(sources):
            ids[row, : len(source)] = source
            mask[row, : len(source)] = 0
        feeds: dict[str, Tensor] = {"input_ids": ids, "source_mask": mask}
        if len(sources) == 1:
            return [self._remember(feeds)]
        # Not kept: beside others a source's numbers are its own up to rounding only.
        whole = self._encoded(feeds)
        share = whole.encode_seconds / len(sources)
        return [
            Memory(distinct({name: a[[row]] for name, a in whole.feeds.items()}), 0.0, share)
            for row in range(len(sources))
        ]

    def remember_samples(self, samples: NDArray[np.float32], *, draft: bool = False) -> Memory:
        """Encode one window of audio, ``[window_samples]`` or what is left where the manifest lets
        windows be shorter; with ``draft`` for the draft model as well."""
        started = self.companion.encode_samples(samples) if draft and self.companion else None
        return replace(self._remember({"samples": samples[None]}), draft=started)

    def remember_pixels(self, pixels: NDArray[np.float32], *, draft: bool = False) -> Memory:
        """Encode one picture, ``[3, height, width]`` as the manifest wants it; with ``draft`` for
        the draft model as well."""
        started = self.companion.encode_pixels(pixels) if draft and self.companion else None
        return replace(self._remember({"pixel_values": pixels[None]}), draft=started)

    def _remember(self, feeds: dict[str, Tensor]) -> Memory:
        """What encoding leaves, or left when the same source came before."""
        if self.sources is None:
            return self._encoded(feeds)
        encoder = self._encoder()
        key = key_of(encoder, feeds)
        found = self.sources.find(key)
        if found is not None:
            return Memory(found, cached=True)
        memory = self._encoded(feeds)
        if self._encoder() == encoder:  # no other device took over meanwhile
            self.sources.keep(key, memory.feeds)
        return memory

    def _encoder(self) -> dict[str, str]:
        """All that what encoding leaves depends on, besides the source."""
        parts, hashes = self.parts, {file.path: file.sha256 for file in self.manifest.files}
        found = {"threads": str(self.options.threads), "exact": str(self.options.exact)}
        for name in ("features", "encode"):
            if name in parts.names:
                variant = parts.variants[name]
                files = " ".join(hashes[path] for path in (variant.file, *variant.weights))
                found[name] = f"{parts.devices[name].name} {files}"
        return found

    def _encoded(self, feeds: dict[str, Tensor]) -> Memory:
        start = perf_counter()
        if "features" in self.variants:
            feeds = dict(self.session("features").request().run(feeds))
        session = self.session("encode")
        heard = perf_counter()
        wanted = session.graph.input_names()
        # A request of its own: its output buffers live as long as this memory does.
        outputs = session.request().run({k: v for k, v in feeds.items() if k in wanted})
        done = perf_counter()
        mask = {k: v for k, v in feeds.items() if k == "source_mask"}
        before = heard - start if "features" in self.variants else 0.0
        held = filled({**outputs, **mask}, HIDDEN)
        return Memory(distinct(held), before, done - heard)

    def decoder(self, memory: Memory | None = None, options: GenerationOptions = PLAIN) -> Decoder:
        """A decoder at the start of a text, with the outputs the drafter or a condition's
        classifier wants where the bundle has a graph with them."""
        branching = options.num_beams > 1
        taps = wanted(DRAFTERS[options.draft])
        if branching:
            from .conditioning import trained_for

            taps = ("hidden",) if trained_for(self, options) else ()
        wants = "+".join(("decode", *taps))
        name = wants if wants in self.variants else "decode"
        session, variant = self.parts.opened(name)
        limit = self.manifest.generation.max_positions
        feeds = None if memory is None else memory.feeds
        size = self.manifest.vocabulary
        return Decoder(session, variant, feeds, limit, branching=branching, vocabulary=size)

    # ------------------------------------------------------------- options

    def generation(
        self,
        decoder: Decoder,
        options: GenerationOptions,
        *,
        prompt_length: int,
        memory: Memory | None = None,
        encode: Callable[[str], Sequence[int]] | None = None,
        text: TextSoFar | None = None,
        read: Callable[[Sequence[int]], str] | None = None,
        stop: Sequence[str] = (),
        further_ends: Sequence[int] = (),
    ) -> Generation:
        """The loop for one text, as the options and the bundle's defaults ask.

        ``memory`` is the decoder's, for a draft model. ``text`` and ``read`` turn tokens into text
        where there are stop strings: as they come, and all of a beam's. ``further_ends`` are end
        tokens besides the bundle's.
        """
        manifest, own = self.manifest, self.manifest.generation
        defaults = replace_fields(own, end=(*own.end, *further_ends))
        ends, most = frozenset(defaults.end), self.most(options, prompt_length)
        if defaults.bidirectional_prompt and not decoder.length:
            decoder.tie(prompt_length)
        sampler = build_sampler(options)
        filters = build_filters(
            options,
            defaults,
            vocabulary=manifest.vocabulary,
            speech=manifest.speech,
            encode=encode,
            most=most,
        )
        if options.num_beams > 1:
            from .beams import BeamSearch
            from .conditioning import condition_of

            stopped = None if read is None or not stop else StopStrings.finder(stop, read)
            return BeamSearch(
                target=decoder, options=options.beams(defaults), filters=filters, ends=ends,
                max_new_tokens=most, stopped=stopped,
                condition=condition_of(self, options, defaults, most, encode),
            )  # fmt: skip
        model = None
        if self.companion is not None and self.drafts_with_model(options):
            model = self.companion.model(
                memory, options, sampler=sampler, filters=filters, prompt_length=prompt_length
            )
        return SpeculativeDecoding(
            target=decoder,
            sampler=sampler,
            filters=filters,
            stopping=Stopping(ends=ends, max_new_tokens=most, stop=stop, text=text),
            verifier=make_verifier(options),
            drafter=DRAFTERS[options.draft].make(self._materials(options, ends, model)),
            budget=self.speculation.budget(options),
            logprobs=options.logprobs,
            noise=noise_of(self, options),
            plain_layout=self._plain_layout(options),
        )

    def _materials(
        self, options: GenerationOptions, ends: frozenset[int], model: DraftModel | None
    ) -> Materials:
        return Materials(
            ends=ends,
            vocabulary=self.manifest.vocabulary,
            model=model,
            corpus=self.corpus,
            store=self._store(options),
        )

    def _plain_layout(self, options: GenerationOptions) -> bool:
        """Whether a tree's rows off its first path could differ from plain decoding's by a bit."""
        recurrent = self.variants["decode"].cache.kind == "recurrent"
        return not recurrent and VERIFIERS[options.verifier].lossless == "sample-identical"

    def _store(self, options: GenerationOptions) -> Path | None:
        """This bundle's part of the folder: what was learned of one target is not another's."""
        if options.draft_store is None:
            return None
        try:
            options.draft_store.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"draft store {options.draft_store}: no folder can be made there "
                f"({error.strerror}); name another."
            ) from error
        return options.draft_store / self.decode_sha256()[:16]

    def decode_sha256(self) -> str:
        """What the decoder is known by to what was trained for it."""
        path = self.variants["decode"].file
        return next(file.sha256 for file in self.manifest.files if file.path == path)

    def most(self, options: GenerationOptions, prompt_length: int) -> int:
        """Tokens that may be emitted after the prompt."""
        defaults = self.manifest.generation
        most = options.max_new_tokens or defaults.max_new_tokens
        if defaults.max_positions:
            # The last token is never fed, so it needs no position.
            most = min(most, defaults.max_positions - prompt_length + 1)
        if most < 1:
            raise InputError(
                f"the prompt has {prompt_length} tokens and the model {defaults.max_positions} "
                "positions; shorten the prompt."
            )
        return most

    def drafts_with_model(self, options: GenerationOptions) -> bool:
        """Whether a draft model takes part. Raises ``InputError`` when it would and is not here."""
        if "model" not in options.draft.split("+"):
            return False
        if self.companion is None:
            raise InputError(
                "draft 'model' needs a draft model: load the bundle with draft_model=FOLDER "
                "(--draft-model)."
            )
        return True

    def lossless(self, options: GenerationOptions) -> Lossless:
        """The class of what runs against plain decoding of the same bundle."""
        if options.draft == "none" or options.num_beams > 1:
            return "sample-identical"
        classes = (DRAFTERS[options.draft].lossless, VERIFIERS[options.verifier].lossless)
        return min(classes, key=LOSSLESS.index)


def make_verifier(options: GenerationOptions) -> Verifier:
    kind = VERIFIERS[options.verifier]
    return kind(seed=options.seed) if options.verifier == "rejection" else kind()  # type: ignore[call-arg]
