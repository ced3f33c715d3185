"""``profile``: every bundle on every device, each measured in a process of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

from edgegen.bundle import Bundle
from edgegen.devices import device_named
from edgegen.errors import BundleError, DeviceError, DeviceMissing, InputError
from edgegen.progress import Progress, unheard
from edgegen.runtime.drafters import DRAFTERS
from edgegen.runtime.options import GenerationOptions
from edgegen.runtime.placement import by_part
from edgegen.runtime.variants import choose_variant

from .machine import this_machine
from .record import Machine, Missing, Profile, Run
from .runners import RUNNERS, Failed, Measured
from .trial import Trial, run
from .workload import Workload, read_texts

__all__ = ["Progress", "profile", "run_all"]


def profile(
    bundle_paths: Sequence[str | Path],
    devices: Sequence[str] = ("ort-cpu",),
    prompts: Sequence[int] = (),
    new_tokens: int | Sequence[int] | None = 64,
    repetitions: int = 5,
    threads: int | Sequence[int] = 1,
    drafters: Sequence[str] = ("none",),
    *,
    texts: str | Path | Sequence[str] | None = None,
    audio: Sequence[str | Path] = (),
    warmups: int = 1,
    num_assistant_tokens: int | None = None,
    precision: str | Sequence[str] | None = None,
    exact: bool = True,
    isolate: bool = True,
    engine: str = "local",
    progress: Progress | None = None,
) -> Profile:
    """Measure every bundle on every device, in every precision, with every number of threads.

    ``prompts`` are lengths in tokens (of the encoder's input, or of a decoder-only prompt), each
    run to exactly ``new_tokens`` tokens, or to each of them; ``texts`` (a JSONL file, the name of a
    workload edgegen brings, or the texts) and ``audio`` files run to the model's own end. Without
    any of them a prompt of 128 tokens is run. Drafters run in turns with plain decoding, which is
    added where it is missing, so that speed-ups and equal tokens come from the same run.
    ``isolate`` False measures in this process, whose memory then counts. ``engine`` is one of
    ``RUNNERS``. ``progress`` is told what begins.

    A bundle that lacks a precision or does not fit a device is left out and told in ``missing``, as
    is a trial that fails; where nothing could be measured the first reason is raised. Raises
    ``InputError``, ``BundleError``, ``UnknownName`` and ``DeviceError``, before anything is
    measured where it can be known by then.
    """
    workload = Workload(
        prompts=tuple(prompts) if prompts or texts or audio else (128,),
        new_tokens=_each(new_tokens),
        texts=_texts(texts),
        audio=tuple(str(Path(path).absolute()) for path in audio),
        repetitions=repetitions,
        warmups=warmups,
    )
    precisions = (precision,) if precision is None or isinstance(precision, str) else precision
    trials = [
        Trial(
            bundle=str(Path(bundle).absolute()),
            device=device,
            threads=count,
            workload=workload,
            drafters=tuple(dict.fromkeys(("none", *drafters))),
            num_assistant_tokens=num_assistant_tokens,
            precision=weights,
            exact=exact,
        )
        for bundle, device, weights, count in product(
            bundle_paths, devices, precisions or (None,), _each(threads)
        )
    ]
    return run_all(trials, isolate=isolate, engine=engine, progress=progress)


def run_all(
    trials: Sequence[Trial],
    *,
    isolate: bool = True,
    engine: str = "local",
    progress: Progress | None = None,
) -> Profile:
    """The trials, one at a time on each machine. Raises as ``profile`` does."""
    if not trials:
        raise InputError("nothing to profile: give at least one bundle, device and thread count.")
    runner = RUNNERS[engine]
    _check(trials)
    fits, failures = _fitting(trials)
    told = progress or unheard
    measured = runner().measure(fits, told) if isolate else _here(fits, told)
    outcomes = [*failures, *measured]
    found = Outcomes.of(outcomes)
    if not found.runs:
        raise next(one.error for one in outcomes if isinstance(one, Failed))
    return Profile(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=found.machine,
        machines=found.machines,
        runs=found.runs,
        missing=found.missing,
    )


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """What all trials gave, by machine: the one of most runs needs no name."""

    machine: Machine
    machines: dict[str, Machine]
    runs: tuple[Run, ...]
    missing: tuple[Missing, ...]

    @classmethod
    def of(cls, outcomes: Sequence[Measured | Failed]) -> Outcomes:
        """Machines that are alike are one."""
        from msgspec.structs import replace

        measured = [one for one in outcomes if isinstance(one, Measured)]
        failed = [one for one in outcomes if isinstance(one, Failed)]
        alike = list(dict.fromkeys(_kind(one.machine) for one in measured))
        names = {kind: "" if index == 0 else _name(kind, index) for index, kind in enumerate(alike)}
        machines = {names[_kind(one.machine)]: one.machine for one in reversed(measured)}
        return cls(
            machine=machines.pop("", this_machine()),
            machines=machines,
            runs=tuple(replace(one.run, machine=names[_kind(one.machine)]) for one in measured),
            missing=tuple(_missing(one) for one in failed),
        )


def merge(profiles: Sequence[Profile]) -> Profile:
    """One profile of several files, each run with its machine. Raises ``InputError`` of none."""
    if not profiles:
        raise InputError("no profiles to merge: give at least one.")
    if len(profiles) == 1:
        return profiles[0]
    found = Outcomes.of(
        [Measured(one, each.machine_of(one)) for each in profiles for one in each.runs]
    )
    return Profile(
        created=max(each.created for each in profiles),
        machine=found.machine,
        machines=found.machines,
        runs=found.runs,
        missing=tuple(one for each in profiles for one in each.missing),
    )


def _here(trials: Iterable[Trial], progress: Progress) -> Iterable[Measured | Failed]:
    """In this process: an error ends it."""
    for trial in trials:
        progress(str(trial))
        yield Measured(run(trial), this_machine())


def _kind(machine: Machine) -> str:
    """What tells machines apart: hardware and software, not the host's name."""
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    memory = f"{machine.memory / 1e9:.0f} GB"
    return f"{machine.processor}, {machine.cores} cores, {memory}, {machine.system}, {versions}"


def _name(kind: str, index: int) -> str:
    return f"{kind.partition(',')[0]} #{index + 1}"


def _missing(failed: Failed) -> Missing:
    trial = failed.trial
    return Missing(
        bundle=Path(trial.bundle).name,
        device=trial.device,
        threads=trial.threads,
        precision=trial.precision or "",
        machine=failed.machine,
        # The bundle is named already, and a report that is shown around needs no one's folders.
        why=str(failed.error).removeprefix(f"{trial.bundle}: "),
    )


def _each(given: int | Sequence[int] | None) -> tuple[int, ...]:
    if given is None:
        return ()
    return (given,) if isinstance(given, int) else tuple(given)


def _texts(texts: str | Path | Sequence[str] | None) -> tuple[str, ...]:
    if texts is None:
        return ()
    return read_texts(texts) if isinstance(texts, str | Path) else tuple(texts)


def _check(trials: Sequence[Trial]) -> None:
    """What is wrong wherever it runs is told before the first minute is spent."""
    for name in {name for trial in trials for name in trial.drafters}:
        if name != "none":
            _ = DRAFTERS[name]
    for trial in trials:
        if trial.threads < 1:
            raise InputError(f"threads must be at least 1, got {trial.threads}.")
        GenerationOptions(num_assistant_tokens=trial.num_assistant_tokens)
        for name in by_part(trial.device).values():
            device_named(name)
        Bundle.open(trial.bundle, verify=False)


def _fitting(trials: Sequence[Trial]) -> tuple[list[Trial], list[Failed]]:
    """The trials whose bundle has what its device wants, and why the others cannot run."""
    fits: list[Trial] = []
    failures: list[Failed] = []
    for trial in trials:
        places, weights = by_part(trial.device), by_part(trial.precision, "")
        device = device_named(places.get("decode", places["default"]))
        bundle = Bundle.open(trial.bundle, verify=False)
        try:
            if (why := device.missing()) is not None:
                raise DeviceMissing(f"device {device.name} cannot be used here: {why}.")
            choose_variant(bundle, "decode", device, weights.get("decode", weights.get("default")))
        except (BundleError, DeviceError, InputError) as error:
            failures.append(Failed(trial, error))
        else:
            fits.append(trial)
    return fits, failures
