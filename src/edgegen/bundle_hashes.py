"""The hashes of a bundle's files, compared with those its manifest lists."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from edgegen.bundle_files import sha256
from edgegen.bundle_rules import one_line
from edgegen.errors import BundleError
from edgegen.manifest import File

# Smaller files are sooner hashed than a thread is started.
LARGE = 2**20


class Hashes:
    """Files below a megabyte are hashed when this is made; larger ones meanwhile, several at a
    time, since hashing releases the interpreter. ``end`` waits for those.

    Both raise ``BundleError`` naming all files that are not what the manifest says, and
    ``OSError``.
    """

    def __init__(self, root: Path, files: tuple[File, ...]) -> None:
        large = sorted((file for file in files if file.size >= LARGE), key=lambda file: -file.size)
        self._pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1))
        self._large: dict[File, Future[str]] = {
            file: self._pool.submit(sha256, root / file.path) for file in large
        }
        small = [file for file in files if file.size < LARGE]
        self._small = {file: sha256(root / file.path) for file in small}
        if any(found != file.sha256 for file, found in self._small.items()):
            self.end()

    def end(self) -> None:
        try:
            large = {file: found.result() for file, found in self._large.items()}
        finally:
            self._pool.shutdown(cancel_futures=True)
        compare({**large, **self._small})


def compare(hashes: Mapping[File, str]) -> None:
    """Raises ``BundleError``."""
    faults = [
        f"{file.path} has sha256 {found[:12]}..., expected {file.sha256[:12]}..."
        for file, found in hashes.items()
        if found != file.sha256
    ]
    if faults:
        raise BundleError(f"{one_line(faults)[:-1]}: damaged or altered, copy the bundle anew.")
