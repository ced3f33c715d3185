"""What a source is, and the reading that all sources share.

Knows no file format: a format's own file turns bytes into named weights.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from edgegen.errors import CheckpointError

from ..checkpoint import Checkpoint, Weight


class Source(Protocol):
    """One kind of place a checkpoint comes from."""

    name: str
    takes: str  # one line for `edgegen sources`: what the user writes
    example: str
    gives: tuple[str, ...] | None  # model types it yields; None: whatever it finds

    def matches(self, model: str) -> bool:
        """Whether ``model`` looks like this source's, by its spelling and the files there."""
        ...

    def load(self, model: str, revision: str | None, cache_dir: Path | None) -> Checkpoint:
        """Read it. Raises ``CheckpointError`` with one line."""
        ...


class Cursor:
    """Reads a little-endian binary file in order and never past its end.

    Every length in a file is a claim: it is held against the bytes that are left before anything
    is allocated or sliced, so a hostile or cut file ends in one ``CheckpointError`` line.
    """

    def __init__(self, path: Path, data: memoryview) -> None:
        self.path = path
        self.data = data
        self.at = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def fault(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path}: {what} (byte {self.at} of {len(self.data)});"
            " the file is damaged or cut short, fetch it again"
        )

    def take(self, count: int, what: str) -> memoryview:
        if count < 0 or count > self.left:
            raise self.fault(f"{what} needs {count} bytes, {self.left} are left")
        self.at += count
        return self.data[self.at - count : self.at]

    def numbers(self, code: str, count: int, what: str) -> tuple[int, ...]:
        """``count`` integers of ``struct`` type ``code``."""
        size = struct.calcsize(code)
        return struct.unpack(f"<{count}{code}", self.take(size * count, what)) if count else ()

    def number(self, code: str, what: str) -> int:
        return self.numbers(code, 1, what)[0]

    def text(self, count: int, what: str) -> str:
        """``count`` bytes of UTF-8 of which the last is NUL."""
        raw = bytes(self.take(count, what))
        if not raw.endswith(b"\0") or b"\0" in raw[:-1]:
            raise self.fault(f"{what} is not a NUL-terminated string")
        try:
            return raw[:-1].decode("utf-8")
        except UnicodeDecodeError:
            raise self.fault(f"{what} is not UTF-8") from None


def path_of(model: str) -> Path:
    """What the user wrote as a path, ``~`` spelt out; as it is where that is nobody's home."""
    try:
        return Path(model).expanduser()
    except RuntimeError:
        return Path(model)


def map_file(path: Path) -> memoryview:
    """The file's bytes, mapped, not read. Raises ``CheckpointError`` if there is no such file or
    it is empty."""
    try:
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); name a complete file") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises ``CheckpointError`` naming the file."""
    try:
        value: object = json.loads(path.read_bytes())
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(f"{path}: cannot be read ({reason}); the folder needs it") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: expected JSON, got something else ({one_line(error)}); fetch the file again"
        ) from None
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{path}: expected a JSON object, got {type(value).__name__}; fetch the file again"
        )
    return cast(dict[str, Any], value)


def one_line(error: BaseException, limit: int = 200) -> str:
    """An exception of somebody else's as a part of one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def fingerprint(paths: Iterable[Path]) -> str:
    """``sha256:...`` over the contents of the files in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def no_revision(model: str, revision: str | None) -> None:
    """Files on this machine have no revisions; say so rather than read the wrong one."""
    if revision is not None:
        raise CheckpointError(
            f"{model}: a file or folder has no revisions, got {revision!r}; leave it out"
        )


def check_shapes(
    where: Path | str, weights: Mapping[str, Weight], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Hold the weights against the shapes their configuration asks for; name all faults at once."""
    faults = [f"{name} is missing" for name in expected if name not in weights]
    faults += [
        f"{name} is {list(weights[name].shape)}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in weights and weights[name].shape != shape
    ]
    faults += [f"{name} is not known" for name in weights if name not in expected]
    if faults:
        more = f" and {len(faults) - 4} more" if len(faults) > 4 else ""
        raise CheckpointError(
            f"{where}: weights do not fit the configuration: {', '.join(faults[:4])}{more};"
            " the file is damaged or of a variant not supported"
        )
