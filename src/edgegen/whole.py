"""Files that are written whole or not at all: a disk that is full costs the new one only."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Write beside the file, then put it in its place; nothing else is left behind.

    A link stays one. What is no file, as /dev/stdout, is written to. Raises ``OSError``.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    file = Path(os.path.realpath(path))
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        part.replace(file)
    except BaseException:  # Ctrl-C too
        with suppress(OSError):
            part.unlink()
        raise
