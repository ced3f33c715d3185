"""A bundle opened for reading: a folder whose every file is what edgegen.json says.

The folder may come from anyone. Whatever is in it, ``Bundle.open`` returns a bundle that keeps the
rules of docs/bundle.md or raises ``BundleError``. Hashes prove that files are whole, not who made
them; and nobody else may write to the folder while it is in use.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgegen.bundle_files import Tree, leaves, read_capped, tree
from edgegen.bundle_hashes import Hashes
from edgegen.bundle_rules import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    manifest_faults,
    one_line,
    path_fault,
    read_manifest,
)
from edgegen.bundle_swap import recover
from edgegen.errors import BundleError, UnknownName
from edgegen.manifest import Component, File, Manifest
from edgegen.registry import unknown
from edgegen.untrusted import shown


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """An opened bundle. ``size`` is the bytes of all its files, edgegen.json included."""

    path: Path
    manifest: Manifest
    size: int

    @classmethod
    def open(cls, path: Path | str, *, verify: bool = True) -> Bundle:
        """Read and check the bundle in the folder ``path``.

        ``verify`` hashes every file once (reading them all, which also warms the page cache);
        without it only names, kinds and sizes of files are checked. A bundle that a killed export
        had put aside is renamed back first.

        Raises ``BundleError`` naming all faults found, and nothing else.
        """
        with cls.opening(path, verify=verify) as bundle:
            return bundle

    @classmethod
    @contextmanager
    def opening(cls, path: Path | str, *, verify: bool = True) -> Generator[Bundle]:
        """The bundle while its files of weights are still being hashed; all that a parser reads
        (graphs, tokenizers) is checked before.

        On the way out all hashes are known: ``BundleError``, also in place of what was raised
        inside, since damage explains it.
        """
        name = shown(str(path), limit=4096)
        with _named(name):
            bundle, hashes = _open(Path(os.path.realpath(path)), verify)
        try:
            yield bundle
        except Exception:
            with _named(name):
                hashes.end()
            raise
        except BaseException:
            hashes.leave()
            raise
        with _named(name):
            hashes.end()

    def file(self, relative: str) -> Path:
        """Where the listed file ``relative`` lies. Raises ``BundleError`` for any other path."""
        if all(file.path != relative for file in self.manifest.files):
            raise BundleError(f"bundle {self.path}: {shown(relative)} is not one of its files.")
        return self.path.joinpath(*PurePosixPath(relative).parts)

    def component(self, name: str) -> Component:
        """The component ``name``, e.g. ``decode``. Raises ``UnknownName``, listing those here."""
        found = self.manifest.components.get(name)
        if found is None:
            raise UnknownName(unknown("component", name, list(self.manifest.components)))
        return found


def _open(root: Path, verify: bool) -> tuple[Bundle, Hashes]:
    recover(root)
    if not root.is_dir():
        raise BundleError(
            "there is no such folder; edgegen export makes one."
            if not os.path.lexists(root)
            else "is not a folder; name the folder that holds edgegen.json."
        )
    data = read_capped(root / MANIFEST_NAME, MAX_MANIFEST_BYTES)
    manifest = read_manifest(data)
    on_disk = tree(root)
    faults = manifest_faults(manifest)
    faults += _link_faults(root, on_disk)
    faults += _size_faults(manifest.files, on_disk)
    faults += _unlisted_faults(manifest, on_disk)
    if faults:
        raise BundleError(one_line(faults))
    variants = [one for part in manifest.components.values() for one in part.variants]
    weights = {path for variant in variants for path in variant.weights}
    hashes = Hashes(root, manifest.files if verify else (), late=weights)
    size = len(data) + sum(file.size for file in manifest.files)
    return Bundle(path=root, manifest=manifest, size=size), hashes


@contextmanager
def _named(name: str) -> Generator[None]:
    """Faults with the bundle's name before them."""
    try:
        yield
    except BundleError as fault:
        raise BundleError(f"bundle {name}: {fault}") from None
    except (OSError, ValueError) as fault:  # ValueError: a NUL in the path given
        raise BundleError(f"bundle {name}: {_explain(fault)}.") from fault


def _explain(fault: OSError | ValueError) -> str:
    if not isinstance(fault, OSError):
        return shown(str(fault))
    where = f"{shown(os.path.basename(os.fsdecode(fault.filename)))}: " if fault.filename else ""
    if isinstance(fault, FileNotFoundError):
        return f"{where}missing; name the folder that edgegen export wrote"
    return f"{where}{shown(fault.strerror or str(fault))}"


def _link_faults(root: Path, on_disk: Tree) -> Iterator[str]:
    """A backend opens files by names the graph holds, so no link may lead it out of the folder."""
    for link in on_disk.links:
        if leaves(root, link):
            yield f"{shown(link)} is a link out of the bundle"
    for path in on_disk.strange:
        yield f"{shown(path)} is neither a file nor a folder"


def _size_faults(files: tuple[File, ...], on_disk: Tree) -> Iterator[str]:
    for file in files:
        if path_fault(file.path):
            continue  # already a fault of the manifest
        if file.path in on_disk.links:
            yield f"{file.path} is a link; a bundle holds the files themselves"
        elif file.path not in on_disk.sizes:
            yield f"{file.path} is missing"
        elif on_disk.sizes[file.path] != file.size:
            yield f"{file.path} has {on_disk.sizes[file.path]} bytes, expected {file.size}"


def _unlisted_faults(manifest: Manifest, on_disk: Tree) -> Iterator[str]:
    """Beside a graph everything is listed: its external data must not escape the hashes."""
    beside_graphs = {
        str(PurePosixPath(variant.file).parent)
        for component in manifest.components.values()
        for variant in component.variants
    } - {"."}
    listed = {file.path for file in manifest.files}
    for path in (*on_disk.sizes, *on_disk.links):
        parents = map(str, PurePosixPath(path).parents)
        if path not in listed and not beside_graphs.isdisjoint(parents):
            yield f"{shown(path)} lies beside a graph and is not in files"
