"""What a study wrote down: every request's seconds, what calls cost, memory, and the machine.

One JSON file holds it, is written anew after every cell, and lets a study go on where it stopped;
all that a report says is computed from it (``shares.py``).
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgegen.errors import InputError
from edgegen.runtime.calibration import Costs
from edgegen.untrusted import UNREADABLE, reason
from edgegen.whole import write_whole

from ..record import Machine, Part
from .acceptance import Acceptance

SCHEMA_VERSION = "1.0"
STRUCTURES = ("encoder-decoder", "decoder-only")


class Settings(Part, frozen=True, kw_only=True):
    """What is measured. ``sources`` and ``outputs`` in tokens.

    A cell is repeated ``fewest`` times at least, then until ``seconds`` have passed, ``most`` is
    reached, or the middle half of either model's wall times lies within ``spread`` of its median.
    """

    sizes: tuple[str, ...] = ("30m", "300m")
    precisions: tuple[str, ...] = ("fp32", "int8")
    devices: tuple[str, ...] = ("ort-cpu", "ov-cpu")
    sources: tuple[int, ...] = (128, 512, 1024)
    outputs: tuple[int, ...] = (32, 128)
    threads: int = 1
    fewest: int = 3
    most: int = 11
    seconds: float = 60.0
    spread: float = 0.03

    def __post_init__(self) -> None:
        numbers = (*self.sources, *self.outputs, self.threads, self.fewest, self.most)
        lists = (self.sizes, self.precisions, self.devices, self.sources, self.outputs)
        if min(numbers, default=0) < 1 or not all(lists) or min(self.outputs) < 2:
            raise InputError(
                "study: expected at least one size, precision, device, source and output, and "
                f"numbers from 1 (outputs from 2), got {msgspec.to_builtins(self)}."
            )


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One request, in seconds. ``first`` is the decode call of the first token, a decoder-only
    prompt's prefill included; ``later`` all steps after it; ``cpu`` this process's processor time,
    all threads, waiting ones that spin too."""

    encode: float
    first: float
    later: float
    wall: float
    cpu: float


class Cell(Part, frozen=True, kw_only=True):
    """A structure's requests at one place and length; those of its partner took turns with them."""

    size: str
    precision: str
    device: str
    structure: str
    source: int
    output: int
    samples: tuple[Sample, ...]


class CostTable(Part, frozen=True, kw_only=True):
    """L(n), the seconds of a decode call over ``rows[i]`` rows, ``source`` tokens being read."""

    source: int
    rows: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def costs(self) -> Costs:
        return Costs(self.rows, self.seconds)


class Subject(Part, frozen=True, kw_only=True):
    """A model at one place. Bytes; ``peak`` of a process that ran all sources with the shortest
    output, None where the system does not tell."""

    size: str
    precision: str
    device: str
    structure: str
    parameters: int
    bundle: int
    loaded: int
    peak: int | None
    load_seconds: float
    calls: tuple[CostTable, ...]


class Study(Part, frozen=True, kw_only=True):
    """``skipped``: devices that were asked for and could not be used, with the reason."""

    schema_version: str = SCHEMA_VERSION
    created: str
    machine: Machine
    settings: Settings
    acceptance: Acceptance
    subjects: tuple[Subject, ...] = ()
    cells: tuple[Cell, ...] = ()
    skipped: dict[str, str] = msgspec.field(default_factory=dict[str, str])

    def save(self, path: Path) -> None:
        """The old file stays whole until the new one is. Raises ``InputError``."""
        try:
            write_whole(path, msgspec.json.encode(self))
        except OSError as error:
            raise InputError(f"study {path}: cannot be written ({error.strerror}).") from error


def read(path: Path) -> Study:
    """Raises ``InputError`` for a file that is no study."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Study)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except UNREADABLE as error:
        raise InputError(f"{path}: expected the results of a study ({reason(error)}).") from None
    if found.schema_version != SCHEMA_VERSION:
        raise InputError(
            f"{path}: schema version {found.schema_version!r}, this edgegen reads "
            f"{SCHEMA_VERSION!r}; measure anew into another file."
        )
    return found
