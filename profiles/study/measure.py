"""``study``: both structures in one process, a request each in turns, until their times settle.

Memory is read in a process of its own for each model. What was measured is saved after every cell,
and a study that finds its file goes on from there.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, process_time

import msgspec
import numpy as np

from edgegen.devices import device_named
from edgegen.errors import DeviceError, InputError
from edgegen.progress import Progress, unheard
from edgegen.runtime.auto import MOST
from edgegen.runtime.calibration import measure as measure_costs
from edgegen.runtime.decoder import Decoder
from edgegen.runtime.opening import load
from edgegen.runtime.options import GenerationOptions
from edgegen.runtime.pipeline import Pipeline

from ..apart import run_apart
from ..machine import this_machine
from ..trial import Trial
from ..workload import Workload
from .acceptance import Acceptance
from .record import STRUCTURES, Cell, CostTable, Sample, Settings, Study, Subject, read
from .shares import settled

# The bundle of a structure, size and precision that a device takes, made if need be.
BundleOf = Callable[[str, str, str, str], Path]
Group = tuple[str, str, str]  # size, precision, device
# The first ids are special ones.
FIRST_ID = 16


def study(
    settings: Settings,
    bundle_of: BundleOf,
    acceptance: Acceptance,
    file: Path | None = None,
    progress: Progress | None = None,
) -> Study:
    """Measure what ``file`` does not yet hold.

    Raises ``InputError`` when ``file`` is of other settings or another machine, ``DeviceError``
    when none of the devices can be used, and what loading and generating raise.
    """
    found = begun(settings, acceptance, file)
    groups = [
        (size, precision, device)
        for size in settings.sizes
        for precision in settings.precisions
        for device in settings.devices
        if not {device, f"{device} {precision}"} & set(found.skipped)
    ]
    if not groups:
        reasons = "; ".join(f"{name}: {why}" for name, why in found.skipped.items())
        raise DeviceError(f"no device to study on: {reasons}.")
    for group in groups:
        for later in measured(found, group, bundle_of, progress or unheard):
            found = later
            if file is not None:
                found.save(file)
    return found


def begun(settings: Settings, acceptance: Acceptance, file: Path | None) -> Study:
    """What ``file`` holds of this study, or an empty one. The acceptance is the one given now:
    nothing measured depends on it."""
    machine = this_machine()
    if file is not None and file.exists():
        old = read(file)
        if old.settings != settings or old.machine.processor != machine.processor:
            raise InputError(
                f"{file}: holds a study of other settings or of another machine; name another file "
                "or delete this one."
            )
        return msgspec.structs.replace(old, acceptance=acceptance)
    return Study(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine,
        settings=settings,
        acceptance=acceptance,
        skipped=skipped(settings),
    )


def skipped(settings: Settings) -> dict[str, str]:
    """Devices, or a device and a precision, that are left out, and why."""
    found: dict[str, str] = {}
    for name in settings.devices:
        device = device_named(name)
        why = device.missing()
        if why is None and device.limits.static_shapes:
            why = "it compiles graphs of fixed sizes, which would pad every length"
        if why is not None:
            found[name] = why
            continue
        takes = device.limits.weight_formats
        found |= {f"{name} {p}": "not taken" for p in settings.precisions if p not in takes}
    return found


def measured(
    found: Study, group: Group, bundle_of: BundleOf, progress: Progress
) -> Iterator[Study]:
    """The study after each further step of one group: memory and call costs, then cells."""
    settings, where = found.settings, " ".join(group)
    lengths = [(s, n) for s in settings.sources for n in settings.outputs]
    done = {(c.source, c.output) for c in found.cells if (c.size, c.precision, c.device) == group}
    known = any((one.size, one.precision, one.device) == group for one in found.subjects)
    if known and done >= set(lengths):
        return
    progress(f"{where}: bundles")
    paths = [bundle_of(structure, *group) for structure in STRUCTURES]
    apart: list[Subject] = []
    for structure, path in [] if known else zip(STRUCTURES, paths, strict=True):
        progress(f"{where}: memory of {structure}")
        apart.append(footprint(path, structure, group, settings))
    with ExitStack() as stack:
        # Their hashes were checked a moment ago, or when they were made.
        pair = [
            stack.enter_context(
                load(path, group[2], settings.threads, precision=group[1], verify=False)
            )
            for path in paths
        ]
        if apart:
            progress(f"{where}: calls of 1 to {MOST + 1} rows")
            subjects = [
                msgspec.structs.replace(one, calls=call_costs(pipeline, settings.sources))
                for one, pipeline in zip(apart, pair, strict=True)
            ]
            found = msgspec.structs.replace(found, subjects=(*found.subjects, *subjects))
            yield found
        for source, output in lengths:
            if (source, output) in done:
                continue
            progress(f"{where}: source {source}, output {output}")
            cells = cells_of(pair, group, source, output, settings)
            found = msgspec.structs.replace(found, cells=(*found.cells, *cells))
            yield found


def footprint(path: Path, structure: str, group: Group, settings: Settings) -> Subject:
    """Memory of a process that does nothing else. Its times are not used."""
    size, precision, device = group
    run = run_apart(
        Trial(
            bundle=str(path.absolute()),
            device=device,
            threads=settings.threads,
            precision=precision,
            workload=Workload(
                prompts=settings.sources, new_tokens=(min(settings.outputs),), repetitions=1
            ),
        )
    )
    peaks = [case.peak for case in run.cases if case.peak is not None]
    return Subject(
        size=size,
        precision=precision,
        device=device,
        structure=structure,
        parameters=run.subject.parameters,
        bundle=run.subject.size,
        loaded=run.load.after.resident,
        peak=max(peaks, default=None),
        load_seconds=run.load.load_seconds,
        calls=(),
    )


class Behind:
    """A decoder as the calibration takes it, with a source already read before its text."""

    def __init__(self, pipeline: Pipeline, source: Sequence[int]) -> None:
        engine = pipeline.engine
        encoded = "encode" in engine.manifest.components
        self.decoder: Decoder = engine.decoder(engine.remember_ids(source) if encoded else None)
        self.base = 0
        rest = [] if encoded else list(source)
        while rest:
            part, rest = rest[: self.decoder.chunk], rest[self.decoder.chunk :]
            self.forward(part, first_row=len(part) - 1)
            self.base += len(part)
            self.decoder.keep(self.base)

    def forward(
        self, tokens: Sequence[int], parents: Sequence[int] | None = None, first_row: int = 0
    ) -> object:
        return self.decoder.forward(tokens, parents, first_row)

    def keep(self, length: int, rows: Sequence[int] = ()) -> None:
        self.decoder.keep(self.base + length, rows)


def call_costs(pipeline: Pipeline, sources: Sequence[int]) -> tuple[CostTable, ...]:
    """L(n) behind a source of each length, up to what the runtime would draft."""
    tables: list[CostTable] = []
    for source in sources:
        target = Behind(pipeline, ids_of(pipeline, source, 0))
        costs = measure_costs(target, FIRST_ID, most=min(MOST + 1, target.decoder.chunk))
        tables.append(CostTable(source=source, rows=costs.rows, seconds=costs.seconds))
    return tuple(tables)


def cells_of(
    pair: Sequence[Pipeline], group: Group, source: int, output: int, settings: Settings
) -> list[Cell]:
    """A warm-up of each, then turns whose order changes each time."""
    for pipeline in pair:
        request(pipeline, source, min(output, 4), -1)
    samples: list[list[Sample]] = [[] for _ in pair]
    ends = perf_counter() + settings.seconds
    for turn in range(settings.most):
        for at in (range(len(pair)), reversed(range(len(pair))))[turn % 2]:
            samples[at].append(request(pair[at], source, output, turn))
        steady = all(settled([one.wall for one in mine], settings.spread) for mine in samples)
        if turn + 1 >= settings.fewest and (steady or perf_counter() > ends):
            break
    size, precision, device = group
    return [
        Cell(
            size=size,
            precision=precision,
            device=device,
            structure=structure,
            source=source,
            output=output,
            samples=tuple(mine),
        )
        for structure, mine in zip(STRUCTURES, samples, strict=True)
    ]


def request(pipeline: Pipeline, source: int, output: int, turn: int) -> Sample:
    """One request of exactly these lengths. Raises ``DeviceError`` if it was not."""
    ids = ids_of(pipeline, source, turn)
    options = GenerationOptions(max_new_tokens=output, min_new_tokens=output)
    gc.collect()
    before = process_time()
    timings = pipeline.generate(ids, options).timings
    cpu = process_time() - before
    if len(timings.passes) != 1 or timings.tokens != output:
        raise DeviceError(
            f"bundle {pipeline.bundle.manifest.name}: expected {output} tokens in one pass, got "
            f"{timings.tokens} in {len(timings.passes)}; export it anew."
        )
    return Sample(
        encode=timings.encode_ms / 1e3,
        first=timings.first_decode_ms / 1e3,
        later=sum(step.seconds for step in timings.steps[1:]),
        wall=timings.wall_seconds,
        cpu=cpu,
    )


def ids_of(pipeline: Pipeline, length: int, turn: int) -> list[int]:
    """Random ids, others each turn, so that nothing kept from the last request helps; the same for
    both structures."""
    random = np.random.default_rng([length, turn + 1])
    most = pipeline.bundle.manifest.vocabulary
    return [int(i) for i in random.integers(FIRST_ID, most, size=length)]
