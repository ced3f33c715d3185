"""Writing a bundle so that it is whole or not there: a temporary folder, synced, renamed."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import msgspec

from edgegen.bundle_files import read_capped, sha256, sync_file, sync_folder, tree
from edgegen.bundle_rules import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    manifest_faults,
    one_line,
    path_fault,
    read_manifest,
)
from edgegen.bundle_swap import discard_unfinished, lock_folder, recover, swap, unfinished_of
from edgegen.errors import BundleError, ExportError
from edgegen.manifest import File, Manifest
from edgegen.progress import Progress, unheard
from edgegen.untrusted import UNREADABLE, shown

_FULL = (errno.ENOSPC, errno.EDQUOT)


class _ListedFile(msgspec.Struct):
    path: str


class _Listing(msgspec.Struct):
    """As much of an older or newer bundle as it takes to know it for one."""

    schema_version: str
    files: tuple[_ListedFile, ...]


class BundleWriter:
    """Writes one bundle to the folder ``path``, replacing the bundle that is there.

        with BundleWriter("bundles/en-pt") as writer:
            writer.add_file("tokenizers/source.json", text.encode())
            save_graph(writer.folder / "graphs/onnx-int8/encode.onnx")
            writer.finish(manifest)

    Until ``finish`` returns, ``path`` is what it was; whatever goes wrong in between, Ctrl-C
    included, leaves nothing behind. ``on_step`` is told each step in words, for a progress line.

    Raises ``ExportError``: on entering, when ``path`` holds anything but a bundle; anywhere, when
    the disk refuses.
    """

    def __init__(self, path: Path | str, *, on_step: Progress | None = None) -> None:
        try:
            self.path = Path(os.path.realpath(path))
        except ValueError:  # a NUL
            raise ExportError(f"{shown(str(path))} cannot name a folder.") from None
        if not self.path.name:
            raise ExportError(f"{self.path} cannot be a bundle; name a folder in it.")
        self._on_step = on_step or unheard
        self._folder: Path | None = None
        self._lock: int | None = None
        self._made_parents: list[Path] = []
        self._finished = False

    @property
    def folder(self) -> Path:
        """The temporary folder, for tools that write files themselves."""
        if self._folder is None:
            raise RuntimeError("BundleWriter.folder exists inside 'with BundleWriter(...)' alone")
        return self._folder

    def __enter__(self) -> BundleWriter:
        try:
            with self._refusals("start"):
                recover(self.path)
                self._check_target()
                discard_unfinished(self.path)
                self._make_folder()
                self._on_step("folder made")
        except BaseException:  # __exit__ is not called for what happens here
            self._clean_up()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._clean_up()
        if isinstance(fault, OSError) and fault.errno in _FULL:
            raise ExportError(self._line("write", fault)) from fault
        if fault is None and not self._finished:
            raise ExportError(f"bundle {self.path}: left before finish(), so nothing was written.")

    def add_file(self, relative: str, content: bytes | Path) -> Path:
        """Write bytes to, or copy a file to, ``relative``; returns where it lies for now."""
        if fault := path_fault(relative):
            raise ExportError(f"bundle {self.path}: path {shown(relative)} {fault}.")
        place = self.folder / relative
        with self._refusals(f"write {relative} to"):
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("xb") as file:
                if isinstance(content, bytes):
                    file.write(content)
                else:
                    with content.open("rb") as source:
                        shutil.copyfileobj(source, file, 2**20)
        self._on_step(f"written {relative}")
        return place

    def finish(self, manifest: Manifest) -> Manifest:
        """List and hash every file, write edgegen.json last, sync all, put it in place.

        ``manifest.files`` is filled here. Returns the manifest as it was written.
        Raises ``ExportError`` when the manifest breaks a rule of docs/bundle.md.
        """
        with self._refusals("finish"):
            files = self._listed_files()
            written, data = self._checked(msgspec.structs.replace(manifest, files=files))
            place = self.folder / MANIFEST_NAME
            place.write_bytes(data)
            sync_file(place)
            self._on_step("manifest written")
            self._sync_folders()
            self._check_target()
            if self.path.is_dir() and not os.listdir(self.path):
                self.path.rmdir()
            swap(self.folder, self.path, self._on_step)
        self._finished = True
        return written

    def _make_folder(self) -> None:
        """Make the temporary folder and hold its lock, against a writer that cleans up."""
        missing = [folder for folder in self.path.parents if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            self._made_parents.insert(0, folder)
        while True:
            self._folder = unfinished_of(self.path)
            self._folder.mkdir()
            self._lock = lock_folder(self._folder)
            if self._folder.exists():
                return
            self._unlock()  # cleaned up before it was locked

    def _clean_up(self) -> None:
        """Leave nothing behind, even when Ctrl-C comes once more while cleaning."""
        try:
            self._remove_folders()
        except KeyboardInterrupt:
            self._remove_folders()
            raise
        finally:
            self._folder = None
            self._unlock()

    def _remove_folders(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        if not self._finished:
            for parent in self._made_parents:
                with suppress(OSError):  # somebody put something else into it
                    parent.rmdir()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _check_target(self) -> None:
        """Refuse to replace what edgegen did not write."""
        if not os.path.lexists(self.path):
            return
        if not self.path.is_dir():
            raise ExportError(f"{self.path} is a file; name a folder to write the bundle to.")
        on_disk = tree(self.path)
        found = {*on_disk.sizes, *on_disk.links, *on_disk.strange}
        if not found and not on_disk.folders:
            return
        if MANIFEST_NAME not in on_disk.sizes:
            raise ExportError(
                f"{self.path} holds other things and no bundle; name an empty or a new folder."
            )
        foreign = sorted(found - self._listed_in_target() - {MANIFEST_NAME})
        if foreign:
            raise ExportError(
                f"{self.path} is a bundle that also holds {', '.join(map(shown, foreign[:3]))}"
                f"{' and more' if len(foreign) > 3 else ''}; move that away or name a new folder."
            )

    def _listed_in_target(self) -> set[str]:
        try:
            data = read_capped(self.path / MANIFEST_NAME, MAX_MANIFEST_BYTES)
            return {file.path for file in msgspec.json.decode(data, type=_Listing).files}
        except UNREADABLE:
            raise ExportError(
                f"{self.path} holds an {MANIFEST_NAME} that is no bundle's; delete the folder if "
                "it may go, or name a new one."
            ) from None

    def _listed_files(self) -> tuple[File, ...]:
        on_disk = tree(self.folder)
        faults = [f"{shown(path)} is a link" for path in on_disk.links]
        faults += [f"{shown(path)} is neither file nor folder" for path in on_disk.strange]
        for path in on_disk.sizes:
            if fault := path_fault(path):
                faults.append(f"path {shown(path)} {fault}")
        if faults:
            raise ExportError(f"bundle {self.path}: {one_line(faults)}")
        return tuple(self._synced(path, on_disk.sizes[path]) for path in sorted(on_disk.sizes))

    def _synced(self, path: str, size: int) -> File:
        place = self.folder / path
        sync_file(place)
        file = File(path=path, sha256=sha256(place), size=size)
        self._on_step(f"hashed {path}")
        return file

    def _checked(self, manifest: Manifest) -> tuple[Manifest, bytes]:
        """The manifest as a reader will see it, and its bytes."""
        try:
            data = manifest.to_json()
            written = read_manifest(data)
        except (BundleError, UnicodeError) as fault:
            raise ExportError(f"bundle {self.path}: {fault}") from None
        faults = manifest_faults(written)
        if len(data) > MAX_MANIFEST_BYTES:
            faults.append(f"{MANIFEST_NAME} has more than {MAX_MANIFEST_BYTES} bytes")
        if faults:
            raise ExportError(f"bundle {self.path}: {one_line(faults)}")
        return written, data

    def _sync_folders(self) -> None:
        for folder in reversed(tree(self.folder).folders):
            sync_folder(self.folder / folder)
        sync_folder(self.folder)
        self._on_step("folders synced")

    @contextmanager
    def _refusals(self, what: str) -> Generator[None]:
        """The system's refusals as ``ExportError``, so that no export ends in a traceback."""
        try:
            yield
        except OSError as fault:
            raise ExportError(self._line(what, fault)) from fault

    def _line(self, what: str, fault: OSError) -> str:
        way_out = "; free some space and export again" if fault.errno in _FULL else ""
        where = f" ({shown(os.fsdecode(fault.filename))})" if fault.filename else ""
        return f"cannot {what} bundle {self.path}: {fault.strerror or fault}{where}{way_out}."
