"""Compiled graphs kept from one start to the next, outside the bundle.

An entry is a folder named by what it was compiled from and for. It holds the hash of each of its
files: a damaged or half-written entry is never shown to a backend, whose parsers trust their input.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from time import time
from typing import TypeVar

from edgegen.errors import DeviceError

T = TypeVar("T")
SEAL = "entry.json"
# An entry being written; one so old that nobody writes it any more.
NEW, LEFT_SECONDS = ".new-", 86400.0


def kept(
    root: Path,
    key: Mapping[str, object],
    make: Callable[[Path], T],
    read: Callable[[Path], T],
) -> T:
    """What ``read`` makes of the entry of ``key``, or ``make`` writes into a new one.

    Both are given a folder. What ``read`` refuses is made anew. Raises what ``make`` does, and
    ``DeviceError`` where nothing can be written.
    """
    folder = root / "compiled" / digest(key)
    if folder.exists():
        if sound(folder):
            try:
                return read(folder)
            except DeviceError:  # sound, and of no use to this driver
                discard(folder)
        else:
            discard(folder)
    try:
        sweep(folder.parent)
        fresh = Path(mkdtemp(prefix=NEW, dir=folder.parent))
        try:
            found = make(fresh)
            if any(fresh.iterdir()):
                seal(fresh, key)
                publish(fresh, folder)
            return found
        finally:
            discard(fresh)
    except OSError as error:
        raise DeviceError(
            f"compile cache {root}: {error.strerror or error}; name a folder with room that can be "
            "written (--cache-dir), or none."
        ) from error


def sweep(folder: Path) -> None:
    """Make the folder, and take away what processes left that were killed while writing."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{NEW}*"):
        with suppress(OSError):  # another process was first
            if time() - left.stat().st_mtime > LEFT_SECONDS:
                discard(left)


def publish(fresh: Path, folder: Path) -> None:
    """Give the entry its name. Another process may have been first; then theirs stands."""
    try:
        fresh.rename(folder)
    except OSError:
        # Also where the system lets no open file move: the next start compiles once more.
        discard(fresh)


def key_of(file: Path, weights: Sequence[Path], **said: object) -> dict[str, object]:
    """What an entry is known by: graph and weights by content, and all that compiling depends
    on."""
    return {"graph": content(file), "weights": [content(one) for one in weights], **said}


def content(file: Path) -> str:
    """sha256 of a file, read once as long as it stays as it is."""
    seen = file.stat()
    return _content(file, seen.st_size, seen.st_mtime_ns)


@lru_cache(maxsize=256)
def _content(file: Path, size: int, modified_ns: int) -> str:
    return fresh_hash(file)


def digest(key: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()


def seal(folder: Path, key: Mapping[str, object]) -> None:
    """Write down what the entry is of, and what its files hold."""
    written = json.dumps({"key": key, "files": hashes(folder)}, indent=1, default=str)
    (folder / SEAL).write_text(written, encoding="utf-8")


def sound(folder: Path) -> bool:
    """Whether the files are those that were written, and no others."""
    try:
        said = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        return bool(said["files"] == hashes(folder))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def hashes(folder: Path) -> dict[str, str]:
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != SEAL)
    return {file.relative_to(folder).as_posix(): fresh_hash(file) for file in files}


def fresh_hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def discard(folder: Path) -> None:
    """What cannot be removed stays: it is not sound, or will be written again."""
    shutil.rmtree(folder, ignore_errors=True)
