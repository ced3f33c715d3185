"""The tables a plan is made from, measured: every part on every device that takes it.

Devices take turns, so that what else the machine does falls on all alike, and medians count. All of
it in this process; the memory of a part is what the process grew by when it was opened and run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import numpy as np

from edgegen.bundle import Bundle
from edgegen.devices import DEVICES, Device, DeviceOptions, device_named
from edgegen.devices.machine import processor
from edgegen.errors import BundleError, DeviceError, DeviceMissing, InputError
from edgegen.progress import Progress, unheard
from edgegen.runtime.calibration import Costs, measure, rising
from edgegen.runtime.engine import Engine, Memory
from edgegen.runtime.opening import load
from edgegen.runtime.options import GenerationOptions
from edgegen.runtime.parts import PartFailed
from edgegen.runtime.pipeline import Pipeline
from edgegen.runtime.placement import FORMAT, Drafts, Plan, bundle_sha256, drivers
from edgegen.runtime.task import Source
from edgegen.runtime.tokenizer import load_tokenizer
from edgegen.runtime.variants import choose_variant

from . import memory
from .plan import (
    MB,
    Choice,
    Decoding,
    Drafting,
    Encoding,
    Tables,
    forecast,
    goal_named,
    reasons,
    rows,
    solve,
)
from .workload import cut_ids, prompt_job

# What ``auto`` drafts with, and how many tokens at a time acceptance is looked at.
DRAFTER, LENGTH = "aggressive+suffix", 8
ROUNDS, SECONDS = 5, 0.4
EVERY = "all"


@dataclass(frozen=True, kw_only=True)
class Planning:
    """What to plan for. Lengths in tokens; ``audio`` is a recording for a speech model's drafts."""

    bundle: Path
    devices: tuple[str, ...] = (EVERY,)
    threads: int = 1
    precision: str | None = None
    exact: bool = True
    source_tokens: int = 128
    new_tokens: int = 64
    goal: str = "tpot"
    memory_limit_mb: float | None = None
    draft_model: Path | None = None
    audio: Path | None = None
    rounds: int = ROUNDS


def plan(asked: Planning, progress: Progress | None = None) -> Plan:
    """Measure, solve and explain; ``progress`` is told what begins.

    Raises what opening and running a bundle raises, ``InputError`` when nothing fits and
    ``UnknownName`` for a goal there is not.
    """
    goal_named(asked.goal)
    for name in ("rounds", "threads"):
        if getattr(asked, name) < 1:
            raise InputError(f"{name} must be at least 1, got {getattr(asked, name)}.")
    trial = Trial(asked, progress or unheard)
    limit = None if asked.memory_limit_mb is None else int(asked.memory_limit_mb * MB)
    try:
        trial.open()
        tables = trial.tables()
        chosen = solve(tables, asked.goal, limit)
    finally:
        trial.close()
    return trial.told(
        tables, chosen, (*trial.left_out, *reasons(tables, chosen, asked.goal, limit))
    )


class Trial:
    """The bundle opened on every device, and what was measured of it."""

    def __init__(self, asked: Planning, progress: Progress) -> None:
        self.asked, self.progress = asked, progress
        self.bundle = Bundle.open(asked.bundle)
        self.manifest = self.bundle.manifest
        if "decode" not in self.manifest.components:
            raise InputError(f"{self.manifest.name} has one part; edgegen profile -d compares.")
        self.options = DeviceOptions(threads=asked.threads, exact=asked.exact)
        self.left_out: list[str] = []
        self.engines: dict[str, Engine] = {}
        self.sizes: dict[tuple[str, str], int] = {}
        trained = {one.component for one in self.manifest.conditions}
        parts = [name for name in self.manifest.components if name not in trained]
        self.takers = {part: self._takers(part) for part in parts}
        self.source = self._source()

    def open(self) -> None:
        """An engine for each device that takes a part; those that fail are left out."""
        for name in self._names():
            while name in self._names() and name not in self.engines:
                self._open(name)

    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for names in self.takers.values() for name in names))

    def _takers(self, part: str) -> list[str]:
        """Devices that are here and run the part. Raises ``DeviceError`` where there are none."""
        names = self.asked.devices
        found: list[str] = []
        for name in DEVICES if EVERY in names else names:
            device = device_named(name)
            why = device.missing()
            if why is not None and EVERY not in names:
                raise DeviceMissing(f"device {name} cannot be used here: {why}.")
            if why is None and self._takes(part, device):
                found.append(name)
        if not found:
            raise DeviceError(
                f"{self.bundle.path}: no device here runs its {part}; export another --format."
            )
        return found

    def _takes(self, part: str, device: Device) -> bool:
        try:
            choose_variant(self.bundle, part, device, self.asked.precision)
        except BundleError:
            return False
        return True

    def _open(self, name: str) -> None:
        """An engine whose parts run on that device where it takes them, else on another's."""
        self.progress(f"opening on {name}")
        here = {part: name if name in took else took[0] for part, took in self.takers.items()}
        devices = {part: device_named(one) for part, one in here.items()}
        # With others that could take over, a failure says which device it was; none does.
        others = [device_named(one) for one in self._names()]
        engine = Engine(self.bundle, devices, self.options, self.asked.precision, fallback=others)
        self.engines[name] = engine
        order = [part for part in ("features", "encode", "decode") if part in self.takers]
        memory_of_source: Memory | None = None
        try:
            for part in order:
                before = memory.sample().resident
                engine.session(part)
                if part == "encode":
                    memory_of_source = self.encode(engine)
                elif part == "decode":
                    engine.decoder(memory_of_source).forward(self.start())
                self.sizes[part, name] = max(memory.sample().resident - before, 0)
        except DeviceError as error:
            self.engines.pop(name).close()
            self._leave(error.device.name if isinstance(error, PartFailed) else name, error)

    def _leave(self, name: str, error: DeviceError) -> None:
        """Go on without a device that fails. Raises its error when a part has no other."""
        if name in self.engines:
            self.engines.pop(name).close()
        for took in self.takers.values():
            if name in took:
                took.remove(name)
            if not took:
                raise error
        self.left_out.append(f"{name} is left out: {error}")

    # ------------------------------------------------------------ sources

    def _source(self) -> list[int]:
        """Ids of the user's length; empty where the source is no text."""
        if self.manifest.speech is not None or self.manifest.image is not None:
            return []
        tokenizer = load_tokenizer(self.bundle.path, self.manifest.tokenizers["source"])
        job = prompt_job(self.asked.source_tokens, self.asked.new_tokens, self.manifest, tokenizer)
        return cut_ids(job, str(job.sources[0]), tokenizer)

    def encode(self, engine: Engine) -> Memory | None:
        """The source through an engine's encoder; None without one."""
        speech, image = self.manifest.speech, self.manifest.image
        if speech is not None:
            noise = np.random.default_rng(0).normal(size=speech.window_samples, scale=0.05)
            return engine.remember_samples(noise.astype(np.float32))
        if image is not None:
            return engine.remember_pixels(np.zeros((3, image.height, image.width), np.float32))
        return engine.remember_ids(self.source) if "encode" in self.takers else None

    def start(self) -> list[int]:
        """The first tokens a decoder is fed."""
        if "encode" not in self.takers:
            return self.source
        if self.manifest.generation.prompt_from_source:
            return self.source
        return list(self.manifest.generation.start) or [0]

    # ------------------------------------------------------------- tables

    def tables(self) -> Tables:
        """Everything measured."""
        encoders = self._encoders()
        first = self._first()
        decoders = self._decoders()
        return Tables(
            encoders=encoders,
            decoders=decoders,
            first=first,
            drafts=tuple(self._drafts()),
            new_tokens=self.asked.new_tokens,
        )

    def _encoders(self) -> dict[str, dict[str, Encoding]]:
        if "encode" not in self.takers:
            return {}
        times: dict[tuple[str, str], list[tuple[float, float]]] = {}
        self.progress(f"encoding in turns on {', '.join(self.engines)}")
        for turn in range(self.asked.rounds):
            for name, engine in self._turned(turn):
                start = process_time()
                found = self.encode(engine)
                spent = process_time() - start
                if found is None:
                    continue
                whole = found.features_seconds + found.encode_seconds
                for part, took in (
                    ("features", found.features_seconds),
                    ("encode", found.encode_seconds),
                ):
                    share = spent * took / whole if whole else 0.0
                    times.setdefault((part, name), []).append((took, share))
        return {
            part: {
                name: Encoding(
                    seconds=median(took for took, _ in times[part, name]),
                    cpu_seconds=median(spent for _, spent in times[part, name]),
                    memory=self.sizes[part, name],
                )
                for name in self.takers[part]
            }
            for part in ("features", "encode")
            if part in self.takers
        }

    def _turned(self, turn: int) -> list[tuple[str, Engine]]:
        found = list(self.engines.items())
        return found[::-1] if turn % 2 else found

    def _first(self) -> dict[tuple[str, str], float]:
        """From an encoder's result on one device to the first token on another."""
        encoders = self.takers.get("encode", [""])
        times: dict[tuple[str, str], list[float]] = {}
        for turn in range(-1, self.asked.rounds):
            for encode in encoders:
                found = self.encode(self.engines[encode]) if encode else None
                for decode in self.takers["decode"]:
                    start = perf_counter()
                    prompt = self.start()
                    self.engines[decode].decoder(found).forward(prompt, first_row=len(prompt) - 1)
                    took = perf_counter() - start
                    if turn >= 0:
                        times.setdefault((encode, decode), []).append(took)
        return {pair: median(took) for pair, took in times.items()}

    def _decoders(self) -> dict[str, Decoding]:
        """L(n) behind half of the tokens a request gives."""
        tables: dict[str, list[Costs]] = {}
        spent: dict[str, list[float]] = {}
        self.progress(f"decoding in turns on {', '.join(self.takers['decode'])}")
        for turn in range(min(self.asked.rounds, 3)):
            for name, engine in self._turned(turn):
                if name not in self.takers["decode"]:
                    continue
                decoder = engine.decoder(self.encode(engine))
                room = self.manifest.generation.max_positions or 2**20
                past = max(1, min(self.asked.new_tokens // 2, decoder.chunk, room // 2))
                most = min(LENGTH + 1, decoder.chunk, max(2, room - past))
                wall, cpu = perf_counter(), process_time()
                found = measure(decoder, self._token(), most=most, past=past, seconds=SECONDS)
                share = (process_time() - cpu) / (perf_counter() - wall)
                tables.setdefault(name, []).append(found)
                spent.setdefault(name, []).append(share)
        return {
            name: Decoding(
                costs=Costs(
                    found[0].rows,
                    rising([median(s) for s in zip(*(one.seconds for one in found), strict=True)]),
                ),
                cpu_share=median(spent[name]),
                memory=self.sizes["decode", name],
            )
            for name, found in tables.items()
        }

    def _token(self) -> int:
        return next(iter(self.manifest.generation.end), 0)

    # ------------------------------------------------------------- drafts

    def _drafts(self) -> list[Drafting]:
        """What drafts are worth on the user's own kind of text; acceptance is no device's."""
        asked = self.asked
        if not self.source and asked.audio is None:
            self.left_out.append("drafts were not tried: they need a recording (--audio).")
            return []
        base = {part: names[0] for part, names in self.takers.items()}
        opened = partial(
            load, asked.bundle, base, asked.threads, precision=asked.precision, exact=asked.exact
        )
        self.progress(f"drafting by {DRAFTER}")
        with opened() as pipeline:
            found = [self._drafting(pipeline, DRAFTER)]
        if asked.draft_model is None:
            return found
        for name in self._draft_devices(asked.draft_model):
            self.progress(f"drafting by the model on {name}")
            before = memory.sample().resident
            with opened(draft_model=asked.draft_model, draft_device=name) as pipeline:
                drafted = self._drafting(pipeline, "model", name)
                grown = memory.sample().resident - before
            target = sum(self.sizes[part, device] for part, device in base.items())
            found.append(replace(drafted, memory=max(grown - target, 0)))
        return found

    def _draft_devices(self, path: Path) -> list[str]:
        draft = Bundle.open(path)
        found: list[str] = []
        for name in self.engines:
            try:
                choose_variant(draft, "decode", device_named(name))
            except BundleError:
                continue
            found.append(name)
        return found

    def _drafting(self, pipeline: Pipeline, name: str, device: str = "") -> Drafting:
        asked = self.asked
        options = GenerationOptions(
            max_new_tokens=asked.new_tokens,
            min_new_tokens=asked.new_tokens if self.source else None,
            draft=name,
            num_assistant_tokens=LENGTH,
        )
        source: Source = self.source or asked.audio or []
        pipeline.generate(source, options)
        steps = pipeline.generate(source, options).timings.steps
        return Drafting.of(steps, LENGTH, name, device)

    # ------------------------------------------------------------- answer

    def told(self, tables: Tables, chosen: Choice, lines: Sequence[str]) -> Plan:
        """The plan as it is kept."""
        expected, asked = forecast(tables, chosen), self.asked
        devices = dict(chosen.devices)
        draft: Drafts = "none" if chosen.draft is None else "auto"
        if chosen.draft is not None and chosen.draft.device:
            draft, devices["draft"] = "model", chosen.draft.device
        return Plan(
            format=FORMAT,
            bundle=bundle_sha256(self.bundle),
            machine=processor(),
            drivers=drivers(devices),
            threads=asked.threads,
            exact=asked.exact,
            goal=asked.goal,
            source_tokens=len(self.source),
            new_tokens=asked.new_tokens,
            devices=devices,
            precision={} if asked.precision is None else {"default": asked.precision},
            draft=draft,
            memory_limit_mb=asked.memory_limit_mb,
            forecast={
                "ttft_ms": 1e3 * expected.ttft,
                "tpot_ms": 1e3 * expected.tpot,
                "request_ms": 1e3 * expected.request,
                "cpu_seconds": expected.cpu,
                "memory_mb": expected.memory / MB,
                "draft_tokens": chosen.tokens,
            },
            reasons=tuple(lines),
            measured=tuple(rows(tables)),
        )

    def close(self) -> None:
        for engine in self.engines.values():
            engine.close()
