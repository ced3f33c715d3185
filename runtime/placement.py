"""Where the parts of a bundle run: said in words, by part, or in a file that measuring wrote.

A plan (``placement.json``) lies outside the bundle, whose folder is hashed: in the user's cache
under a name made of the bundle and the machine, or wherever it was asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from edgegen.bundle import Bundle
from edgegen.bundle_rules import MANIFEST_NAME
from edgegen.devices import DeviceOptions, device_named
from edgegen.devices.machine import processor
from edgegen.errors import InputError, UnknownName
from edgegen.untrusted import UNREADABLE, reason
from edgegen.whole import write_whole

from .calibration import user_cache
from .parts import DEFAULT

FORMAT = 1
FIRST_CHOICE = "ort-cpu"
# One name for all parts, or names by part.
Places = str | Mapping[str, str]
Drafts = Literal["none", "auto", "model"]


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``edgegen profile --plan`` decided, for what and where, and what it expects of it.

    ``bundle`` is the SHA-256 of its edgegen.json; ``drivers`` are by device, ``devices`` and
    ``precision`` by part. ``draft`` is ``none`` where plain decoding is as fast. ``forecast`` and
    ``measured`` are in milliseconds, MB and processor seconds as their names say.
    """

    format: int
    bundle: str
    machine: str
    drivers: dict[str, dict[str, str]]
    threads: int
    exact: bool
    goal: str
    source_tokens: int
    new_tokens: int
    devices: dict[str, str]
    precision: dict[str, str]
    draft: Drafts
    memory_limit_mb: float | None = None
    forecast: dict[str, float] = {}
    reasons: tuple[str, ...] = ()
    measured: tuple[dict[str, str | float], ...] = ()


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """A plan and the file it was read from."""

    plan: Plan
    file: Path

    @property
    def places(self) -> dict[str, str]:
        return dict(self.plan.devices)

    @property
    def precision(self) -> dict[str, str] | None:
        return dict(self.plan.precision) or None


def by_part(places: Places | None, rest: str = FIRST_CHOICE) -> dict[str, str]:
    """``"encode=ov-cpu,decode=ort-cpu"``, ``"ov-cpu"`` or a mapping, as names by part; what no name
    is given for is ``rest`` under ``default``, and left out where that is empty.

    A ``+`` parts as a comma does. Raises ``InputError``.
    """
    given = places if isinstance(places, Mapping) else read_places(places or "")
    return {**({DEFAULT: rest} if rest else {}), **given}


def read_places(words: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words.replace("+", ",").split(",") if words else []:
        part, equals, name = (one.strip() for one in word.rpartition("="))
        part = part if equals else DEFAULT
        if not part or not name or part in found:
            raise InputError(
                f"{words!r}: expected a name, or PART=NAME with commas between and each part once, "
                "as in encode=ov-cpu,decode=ort-cpu."
            )
        found[part] = name
    return found


# ------------------------------------------------------------------ files


def bundle_sha256(bundle: Bundle) -> str:
    """What a bundle is known by: its manifest holds the hash of every file."""
    return hashlib.sha256((bundle.path / MANIFEST_NAME).read_bytes()).hexdigest()


def usual_file(bundle: Bundle, options: DeviceOptions) -> Path:
    """Where this machine keeps the plan of a bundle for so many threads."""
    key = {
        "bundle": bundle_sha256(bundle),
        "machine": processor(),
        "threads": options.threads,
        "exact": options.exact,
        "format": FORMAT,
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    return user_cache() / "placements" / f"{name}.json"


def drivers(devices: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """What each of the devices says of itself."""
    return {name: device_named(name).describe() for name in sorted(set(devices.values()))}


def write_plan(plan: Plan, file: Path) -> None:
    """Whole or not at all. Raises ``InputError`` where it cannot be written."""
    text = msgspec.json.format(msgspec.json.encode(plan), indent=1)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, text + b"\n")
    except OSError as error:
        raise InputError(
            f"placement {file}: cannot be written ({error.strerror}); give another --placement."
        ) from error


def read_plan(file: Path) -> Plan:
    """Raises ``InputError`` unless the file is a plan."""
    try:
        plan = msgspec.json.decode(file.read_bytes(), type=Plan)
    except OSError as error:
        raise InputError(f"placement {file}: cannot be read ({error.strerror}).") from error
    except UNREADABLE as error:
        raise InputError(
            f"placement {file}: not one that this version wrote ({reason(error)}); write it anew "
            "with edgegen profile --plan --write."
        ) from error
    if plan.format != FORMAT:
        raise InputError(f"placement {file}: format {plan.format}, expected {FORMAT}; plan anew.")
    return plan


def planned(
    placement: str | Path | None,
    bundle: Bundle,
    options: DeviceOptions,
    device: Places | None,
    warn: Callable[[str], None],
) -> Placed | None:
    """The plan to use: of a file, of this machine's for ``"auto"``, or None.

    One that was asked for is refused where it is damaged or another bundle's, and used under other
    drivers than it was measured with; one that was found is not used then. Either is said to
    ``warn``. Raises ``InputError``, and ``UnknownName`` for a device there is not.
    """
    if placement is None:
        return None
    if device is not None:
        raise InputError("both a device and a placement are given; a placement names the devices.")
    if placement != "auto":
        return _read(Path(placement), bundle, options, warn, "the forecast may not hold")
    file = usual_file(bundle, options)
    said: list[str] = []
    if file.is_file():
        try:
            found = _read(file, bundle, options, said.append, "it is not used")
        except (
            InputError,
            UnknownName,
        ) as error:  # what nobody asked for must not stand in the way
            said.append(f"{error} The plan found in {file} is not used.")
        else:
            if not said:
                return found
    for line in said:
        warn(line)
    return None


def _read(
    file: Path, bundle: Bundle, options: DeviceOptions, warn: Callable[[str], None], so: str
) -> Placed:
    """The plan of a file; ``warn`` is told what changed since it was measured, and ``so`` what."""
    plan = read_plan(file)
    if plan.bundle != bundle_sha256(bundle):
        raise InputError(f"placement {file}: it was measured for another bundle; plan anew.")
    if other := changed(plan, options):
        warn(f"placement {file}: measured with {other}; {so}. Plan anew.")
    return Placed(plan=plan, file=file)


def changed(plan: Plan, options: DeviceOptions) -> str:
    """What is not as it was when the plan was measured; empty where nothing is."""
    if plan.machine != processor():
        return f"another processor ({plan.machine})"
    if (plan.threads, plan.exact) != (options.threads, options.exact):
        return f"threads={plan.threads} and exact={plan.exact}"
    for name, described in plan.drivers.items():
        device = device_named(name)
        now = {} if device.missing() else device.describe()
        if now != described:
            return f"other software for {name}"
    return ""
