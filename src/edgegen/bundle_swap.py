"""Putting a finished folder in another's place so that a kill at any moment loses neither.

    new folder   ->  .NAME.edgegen-new-HEX   while it is written, locked by its writer
    old bundle   ->  .NAME.edgegen-old       between the two renames
    new folder   ->  NAME                    the moment the new bundle stands

Exchanging two folders in one call exists on Linux alone, so there is a moment without NAME. Who
finds no NAME but a ``.NAME.edgegen-old`` renames it back (``recover``). The old bundle is renamed
to a ``-new-`` name before it is deleted, so ``-old`` is never a half-deleted bundle. Functions
raise ``OSError``; callers make the line.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from edgegen.bundle_files import sync_folder
from edgegen.bundle_rules import MANIFEST_NAME

if sys.platform != "win32":
    import fcntl

Step = Callable[[str], None]
ATTEMPTS = 5  # another process may recover the old bundle between our two renames


def backup_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.edgegen-old")


def unfinished_of(target: Path) -> Path:
    """A fresh name beside ``target``, on the same file system, for a folder being written."""
    return target.with_name(f".{target.name}.edgegen-new-{os.urandom(6).hex()}")


def recover(target: Path) -> bool:
    """Rename back the bundle that a kill between two renames left aside. True when it was."""
    backup = backup_of(target)
    if os.path.lexists(target) or not (backup / MANIFEST_NAME).is_file():
        return False
    try:
        os.rename(backup, target)
    except OSError:
        if os.path.lexists(target):
            return False  # another process recovered it, or its writer went on
        raise
    sync_folder(target.parent)
    return True


def swap(new: Path, target: Path, on_step: Step) -> None:
    """Rename ``new`` to ``target``; what stood there is deleted once the new bundle stands."""
    backup = backup_of(target)
    try:
        _rename_over(new, target, backup, on_step)
    except BaseException:
        if not os.path.lexists(target) and os.path.lexists(backup):
            os.rename(backup, target)
        raise
    sync_folder(target.parent)
    on_step("new bundle in place")
    # The new bundle stands; a leftover that cannot be deleted now is deleted by the next writer.
    with contextlib.suppress(OSError):
        discard(backup, target)
    on_step("old bundle deleted")


def _rename_over(new: Path, target: Path, backup: Path, on_step: Step) -> None:
    for attempt in range(ATTEMPTS):
        if os.path.lexists(target):
            discard(backup, target)
            os.rename(target, backup)
            on_step("old bundle aside")
        try:
            os.rename(new, target)
        except OSError:
            if attempt + 1 == ATTEMPTS or not os.path.lexists(target):
                raise
            continue
        return


def discard(folder: Path, target: Path) -> None:
    """Delete ``folder``, a sibling of ``target``, in a way ``recover`` never sees half done."""
    if not os.path.lexists(folder):
        return
    doomed = unfinished_of(target)
    os.rename(folder, doomed)
    _delete(doomed)


def _delete(folder: Path, *, ignore_errors: bool = False) -> None:
    from shutil import rmtree  # with its parts for archives, which a ``load`` has no use for

    rmtree(folder, ignore_errors=ignore_errors)


def discard_unfinished(target: Path) -> None:
    """Delete what killed writers of ``target`` left; a living writer's folder is locked."""
    if sys.platform == "win32":
        return  # folders cannot be locked there, so nothing tells a dead writer's from a living
    prefix = f".{target.name}.edgegen-new-"
    if not target.parent.is_dir():
        return
    for name in os.listdir(target.parent):
        path = target.parent / name
        if not name.startswith(prefix) or path.is_symlink() or not path.is_dir():
            continue
        lock = lock_folder(path)
        if lock is not None:
            _delete(path, ignore_errors=True)
            os.close(lock)


def lock_folder(path: Path) -> int | None:
    """Lock a folder for as long as the returned descriptor is open; None when another holds it.

    On Windows there is no such lock: the answer is always None.
    """
    if sys.platform == "win32":
        return None
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
