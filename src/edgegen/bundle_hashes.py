"""The hashes of a bundle's files, compared with those its manifest lists.

Files of weights, which nobody parses, may be hashed while the bundle is already in use.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from edgegen.bundle_files import sha256
from edgegen.bundle_rules import one_line
from edgegen.errors import BundleError
from edgegen.manifest import File

# Smaller files are sooner hashed than a thread is started.
LARGE = 2**20


class Hashes:
    """All but large files among ``late`` ones are hashed when this is made; those meanwhile,
    several at a time, since hashing releases the interpreter. ``end`` waits for them.

    Both raise ``BundleError`` naming all files that are not what the manifest says, and
    ``OSError``.
    """

    def __init__(self, root: Path, files: tuple[File, ...], late: Collection[str]) -> None:
        self._pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1))
        large = sorted((file for file in files if file.size >= LARGE), key=lambda file: -file.size)
        found = {file: self._pool.submit(sha256, root / file.path) for file in large}
        self._late: dict[File, Future[str]] = {f: found[f] for f in large if f.path in late}
        try:
            self._early = {
                file: found[file].result() if file in found else sha256(root / file.path)
                for file in files
                if file not in self._late
            }
        except BaseException:
            self.leave()
            raise
        if any(found != file.sha256 for file, found in self._early.items()):
            self.end()

    def end(self) -> None:
        try:
            late = {file: found.result() for file, found in self._late.items()}
        finally:
            self.leave()
        compare({**self._early, **late})

    def leave(self) -> None:
        """Begin no more hashes, and wait for none."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def compare(hashes: Mapping[File, str]) -> None:
    """Raises ``BundleError``."""
    faults = [
        f"{file.path} has sha256 {found[:12]}..., expected {file.sha256[:12]}..."
        for file, found in hashes.items()
        if found != file.sha256
    ]
    if faults:
        raise BundleError(f"{one_line(faults)[:-1]}: damaged or altered, copy the bundle anew.")
