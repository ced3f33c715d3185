"""``profile``: every bundle on every device, each measured in a process of its own."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import msgspec

import edgegen
from edgegen import errors
from edgegen.bundle import Bundle
from edgegen.devices import device_named
from edgegen.devices.machine import processor
from edgegen.errors import DeviceError, DeviceMissing, EdgegenError, InputError
from edgegen.runtime.drafters import DRAFTERS
from edgegen.runtime.variants import choose_variant
from edgegen.runtime.options import GenerationOptions

from .child import Answer
from .record import Machine, Profile, Run
from .trial import Trial, run
from .workload import Workload, read_texts

Progress = Callable[[str], None]
LIBRARIES = ("numpy", "tokenizers", "msgspec")


def profile(
    bundle_paths: Sequence[str | Path],
    devices: Sequence[str] = ("ort-cpu",),
    prompts: Sequence[int] = (),
    new_tokens: int | None = 64,
    repetitions: int = 5,
    threads: int | Sequence[int] = 1,
    drafters: Sequence[str] = ("none",),
    *,
    texts: str | Path | Sequence[str] | None = None,
    audio: Sequence[str | Path] = (),
    warmups: int = 1,
    num_assistant_tokens: int | None = None,
    precision: str | None = None,
    exact: bool = True,
    isolate: bool = True,
    progress: Progress | None = None,
) -> Profile:
    """Measure every bundle on every device with every number of threads.

    ``prompts`` are lengths in tokens (of the encoder's input, or of a decoder-only prompt), each
    run to exactly ``new_tokens`` tokens; ``texts`` (a JSONL file, the name of a workload edgegen
    brings, or the texts) and ``audio`` files run to the model's own end. Without any of them a
    prompt of 128 tokens is run. Drafters run in turns with plain decoding, which is added where it
    is missing, so that speed-ups and equal tokens come from the same run. ``isolate`` False
    measures in this process, whose memory then counts. ``progress`` is told what begins.

    Raises ``InputError``, ``BundleError``, ``UnknownName`` and ``DeviceError``, before anything is
    measured where it can be known by then.
    """
    workload = Workload(
        prompts=tuple(prompts) if prompts or texts or audio else (128,),
        new_tokens=new_tokens,
        texts=_texts(texts),
        audio=tuple(str(Path(path).absolute()) for path in audio),
        repetitions=repetitions,
        warmups=warmups,
    )
    trials = [
        Trial(
            bundle=str(Path(bundle).absolute()),
            device=device,
            threads=count,
            workload=workload,
            drafters=tuple(dict.fromkeys(("none", *drafters))),
            num_assistant_tokens=num_assistant_tokens,
            precision=precision,
            exact=exact,
        )
        for bundle in bundle_paths
        for device in devices
        for count in ((threads,) if isinstance(threads, int) else threads)
    ]
    return run_all(trials, isolate=isolate, progress=progress)


def run_all(
    trials: Sequence[Trial], *, isolate: bool = True, progress: Progress | None = None
) -> Profile:
    """The trials one after another. Raises as ``profile`` does."""
    if not trials:
        raise InputError("nothing to profile: give at least one bundle, device and thread count.")
    _check(trials)
    runs: list[Run] = []
    for trial in trials:
        if progress is not None:
            count = "1 thread" if trial.threads == 1 else f"{trial.threads} threads"
            progress(f"{Path(trial.bundle).name} on {trial.device}, {count}")
        runs.append(run_apart(trial) if isolate else run(trial))
    return Profile(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=this_machine(),
        runs=tuple(runs),
    )


def run_apart(trial: Trial) -> Run:
    """``run`` in a fresh process. Raises what it raised there, and ``DeviceError`` if it died."""
    with TemporaryDirectory(prefix="edgegen-profile-") as folder:
        told, answered = Path(folder, "trial.json"), Path(folder, "answer.json")
        told.write_bytes(msgspec.json.encode(trial))
        # The same places as here and in the same order, so that the same edgegen is found.
        paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
        command = [sys.executable, "-P", "-m", "edgegen.profiles.child", str(told), str(answered)]
        ended = subprocess.run(
            [*command, repr(monotonic())],
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            check=False,
        )
        if ended.returncode or not answered.exists():
            raise DeviceError(_death(trial, ended.returncode, ended.stderr))
        answer = msgspec.json.decode(answered.read_bytes(), type=Answer)
    if answer.run is None:
        kinds: dict[str, type[EdgegenError]] = {
            name: kind
            for name, kind in vars(errors).items()
            if isinstance(kind, type) and issubclass(kind, EdgegenError)
        }
        raise kinds.get(answer.error, EdgegenError)(answer.message)
    return answer.run


def _death(trial: Trial, status: int, said: str) -> str:
    ended = f"status {status}"
    if status < 0:
        ended = f"signal {signal.Signals(-status).name}"
    last = (said.strip().splitlines() or ["it said nothing"])[-1][:300]
    return (
        f"profiling {Path(trial.bundle).name} on {trial.device}: "
        f"the process ended with {ended}: {last}"
    )


def this_machine() -> Machine:
    """The computer and the software, as reports carry them."""
    import psutil

    versions = {"edgegen": edgegen.__version__}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Machine(
        system=platform.platform(),
        processor=processor(),
        cores=cores or 1,
        memory=int(psutil.virtual_memory().total),
        python=platform.python_version(),
        versions=versions,
    )


def _texts(texts: str | Path | Sequence[str] | None) -> tuple[str, ...]:
    if texts is None:
        return ()
    return read_texts(texts) if isinstance(texts, str | Path) else tuple(texts)


def _check(trials: Sequence[Trial]) -> None:
    """What can be known to fail is told before the first minute is spent."""
    for name in {name for trial in trials for name in trial.drafters}:
        if name != "none":
            _ = DRAFTERS[name]
    for trial in trials:
        if trial.threads < 1:
            raise InputError(f"threads must be at least 1, got {trial.threads}.")
        GenerationOptions(num_assistant_tokens=trial.num_assistant_tokens)
        device = device_named(trial.device)
        why = device.missing()
        if why is not None:
            raise DeviceMissing(f"device {trial.device} cannot be used here: {why}.")
        choose_variant(Bundle.open(trial.bundle, verify=False), "decode", device, trial.precision)
