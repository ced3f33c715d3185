"""What this machine calls itself."""

from __future__ import annotations

import os
import platform
from pathlib import Path

STATM = Path("/proc/self/statm")


def resident_bytes() -> int | None:
    """Memory of this process that is resident now; None where the system does not tell (Linux
    does)."""
    try:
        pages = int(STATM.read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def processor() -> str:
    """The processor's marketing name, or the architecture where none is told."""
    table = Path("/proc/cpuinfo")
    if table.exists():
        for line in table.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()} ({os.cpu_count()} cores seen)"
    return f"{platform.processor() or platform.machine()} ({os.cpu_count()} cores seen)"
