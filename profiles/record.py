"""What a profile wrote down: every request, pass and step with its seconds, and the machine.

One JSON file holds it all; every median, rate and table is computed from it (``summary.py``).
Seconds and bytes are raw here; names with units (``_ms``, ``_mb``) are the summary's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import msgspec

from edgegen.errors import InputError
from edgegen.runtime.generation import Step
from edgegen.runtime.result import Pass, Timings
from edgegen.runtime.stopping import Cut
from edgegen.untrusted import UNREADABLE, reason, shown
from edgegen.whole import write_whole

from .summary import Summary, summarise

SCHEMA_VERSION = "1.1"


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every record of a profile."""


class StepRecord(msgspec.Struct, frozen=True, array_like=True):
    """One turn of the loop, written as an array. ``seconds`` holds the two others and the host's.

    ``tokens`` were all emitted at the step's end.
    """

    tokens: tuple[int, ...]
    drafted: int
    accepted: int
    rows: int
    draft_seconds: float
    decode_seconds: float
    seconds: float
    reruns: int = 0
    flips: int = 0


class PassRecord(Part, frozen=True, kw_only=True):
    """One source through the model: a prompt, a sentence, a window of audio."""

    source_tokens: int
    tokenize_seconds: float
    features_seconds: float
    encode_seconds: float
    steps: tuple[StepRecord, ...]
    open_seconds: float = 0.0
    detect_seconds: float = 0.0


class Request(Part, frozen=True, kw_only=True):
    """One call from its input to its finished text.

    ``item`` numbers the case's sources, ``repetition`` the rounds over them; a warm-up is left
    out of every summary. ``lossless`` is the class of what ran against plain decoding.
    """

    drafter: str
    item: int
    repetition: int
    warm_up: bool
    passes: tuple[PassRecord, ...]
    wall_seconds: float
    read_seconds: float
    audio_seconds: float
    finish_reason: str
    lossless: str

    @property
    def tokens(self) -> tuple[int, ...]:
        """Everything that was emitted, in order."""
        return tuple(token for one in self.passes for step in one.steps for token in step.tokens)

    @property
    def timings(self) -> Timings:
        """The same as a result gives it: its rates are the definitions of docs/metrics.md."""
        return Timings(
            passes=tuple(_timed(one) for one in self.passes),
            wall_seconds=self.wall_seconds,
            read_seconds=self.read_seconds,
            audio_seconds=self.audio_seconds,
        )


class Memory(Part, frozen=True, kw_only=True):
    """Memory of a process in bytes; None where the system does not tell.

    ``resident`` = ``anonymous`` + ``mapped``: memory of its own, and pages of files (weights that
    are mapped, libraries) or shared memory. ``proportional`` divides shared pages by their users.
    ``peak`` is the highest resident since the process began or the peak was last reset.
    """

    resident: int
    peak: int | None = None
    anonymous: int | None = None
    mapped: int | None = None
    proportional: int | None = None


class Load(Part, frozen=True, kw_only=True):
    """A bundle from its folder until it could generate, and the process around it.

    ``compile_seconds`` by component, without a cache of compiled blobs; ``compile_cached_seconds``
    with that cache warm, empty where the device keeps none. ``started_seconds``: process start to
    the imports done. ``first_token_seconds``: process start to the first token of the first
    request, loading included. Both are 0 when no process was started for it.
    """

    load_seconds: float
    compile_seconds: dict[str, float]
    compile_cached_seconds: dict[str, float]
    started_seconds: float
    first_token_seconds: float
    before: Memory
    after: Memory


class Case(Part, frozen=True, kw_only=True):
    """The same sources for every drafter, in turns.

    ``prompt_tokens`` and ``new_tokens`` are what was asked for: 0 is the source's own length and
    the model's own end. ``memory`` is of the end of the last repetition; ``peak`` the highest
    resident memory of loading and this case (of the process so far where it cannot be reset).
    """

    name: str
    prompt_tokens: int
    new_tokens: int
    requests: tuple[Request, ...]
    memory: Memory
    peak: int | None = None

    @property
    def drafters(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(request.drafter for request in self.requests))


class Subject(Part, frozen=True, kw_only=True):
    """Which bundle. ``decode_sha256`` is that of the decode graph that ran; ``agreement`` the share
    of next tokens that were the checkpoint's own at export, None where that was not checked.
    """

    path: str
    name: str
    family: str
    task: str
    parameters: int
    size: int
    decode_sha256: str
    source: str
    revision: str
    format: str
    weight_format: str
    lowering: str
    cache: str
    rows: str
    agreement: float | None = None


class Place(Part, frozen=True, kw_only=True):
    """Where it ran. ``details`` are the device's own words on hardware, driver and versions."""

    device: str
    threads: int
    exact: bool
    details: dict[str, str]


class Run(Part, frozen=True, kw_only=True):
    """One bundle on one device with one number of threads, in a process of its own.

    ``machine`` names one of the profile's ``machines``; empty is the profile's own.
    """

    subject: Subject
    place: Place
    load: Load
    cases: tuple[Case, ...]
    machine: str = ""


class Missing(Part, frozen=True, kw_only=True):
    """What was asked for and not measured, and why. ``precision`` is empty where none was named."""

    bundle: str
    device: str
    threads: int
    why: str
    precision: str = ""
    machine: str = ""

    def __str__(self) -> str:
        count = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        words = (self.bundle, self.precision, "on", self.device)
        where = f" of {self.machine}" if self.machine else ""
        return f"{' '.join(filter(None, words))}, {count}{where}: {self.why}"


class Machine(Part, frozen=True, kw_only=True):
    """The computer and the software. ``memory`` in bytes."""

    system: str
    processor: str
    cores: int
    memory: int
    python: str
    versions: dict[str, str]


class Profile(Part, frozen=True, kw_only=True):
    """All runs of one call. ``created`` is UTC, ISO 8601.

    ``machines`` are the others that took part, by the name their runs carry; ``missing`` is what
    was asked for and could not be measured.
    """

    schema_version: str = SCHEMA_VERSION
    created: str
    machine: Machine
    runs: tuple[Run, ...]
    machines: dict[str, Machine] = {}
    missing: tuple[Missing, ...] = ()

    def machine_of(self, run: Run) -> Machine:
        """The computer a run was measured on."""
        return self.machines[run.machine] if run.machine else self.machine

    @property
    def summaries(self) -> tuple[Summary, ...]:
        """One a run, case and drafter, in that order."""
        return tuple(
            summarise(run, case, drafter)
            for run in self.runs
            for case in run.cases
            for drafter in case.drafters
        )

    def to_json(self) -> bytes:
        """The records, and under ``summaries`` what is computed from them, for programs."""
        document = cast(dict[str, Any], msgspec.to_builtins(self))
        document["summaries"] = [summary.row() for summary in self.summaries]
        return msgspec.json.encode(document) + b"\n"

    def save(self, path: Path | str) -> None:
        """Write ``to_json`` to a file, whole or not at all. Raises ``InputError``."""
        try:
            write_whole(Path(path), self.to_json())
        except OSError as error:
            raise InputError(f"profile {path}: cannot be written ({error.strerror}).") from error

    @classmethod
    def load(cls, path: Path | str) -> Profile:
        """Read what ``save`` wrote; summaries are computed anew. Raises ``InputError``."""
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise InputError(f"profile {path}: cannot be read ({error.strerror}).") from error
        try:
            return from_json(data)
        except InputError as error:
            raise InputError(f"profile {path}: {error}") from error
        except UNREADABLE as error:
            raise InputError(
                f"profile {path}: expected what edgegen profile --json wrote ({reason(error)})."
            ) from error


def from_json(data: bytes) -> Profile:
    """The profile in ``data``. Raises ``InputError`` for a newer major version and a run of no
    machine, and ``UNREADABLE`` for what is no profile."""
    document: object = msgspec.json.decode(data)
    if not isinstance(document, dict):
        raise InputError("expected a JSON object that edgegen profile -o json wrote.")
    fields = cast(dict[str, Any], document)
    version = str(fields.get("schema_version", "none"))
    if version.partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
        raise InputError(
            f"schema version {version}, expected {SCHEMA_VERSION}; update edgegen or profile anew."
        )
    fields.pop("summaries", None)
    found = msgspec.convert(fields, Profile)
    for run in found.runs:
        if run.machine and run.machine not in found.machines:
            raise InputError(
                f"its run of {shown(run.subject.name)} on {shown(run.place.device)} is of machine "
                f"{run.machine!r}, expected one that it holds: "
                f"{', '.join(map(repr, found.machines)) or 'none'}; profile anew."
            )
    return found


def _timed(record: PassRecord) -> Pass:
    return Pass(
        tokenize_seconds=record.tokenize_seconds,
        features_seconds=record.features_seconds,
        encode_seconds=record.encode_seconds,
        open_seconds=record.open_seconds,
        detect_seconds=record.detect_seconds,
        source_tokens=record.source_tokens,
        steps=tuple(
            Step(
                tokens=step.tokens,
                drafted=step.drafted,
                accepted=step.accepted,
                rows=step.rows,
                draft_seconds=step.draft_seconds,
                decode_seconds=step.decode_seconds,
                seconds=step.seconds,
                cut=Cut(len(step.tokens)),
                reruns=step.reruns,
                flips=step.flips,
            )
            for step in record.steps
        ),
    )
