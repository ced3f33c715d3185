"""Memory of this process: resident now, its peak, and what of it is mapped files.

Linux tells all of it in /proc; elsewhere psutil tells the resident part and, where there is one,
the peak. Reading takes up to a millisecond, so it is never done while something is timed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .record import Memory

STATUS = Path("/proc/self/status")
ROLLUP = Path("/proc/self/smaps_rollup")
CLEAR = Path("/proc/self/clear_refs")
# Written to CLEAR it sets the peak to what is resident now (Linux, Documentation/filesystems/proc).
RESET_PEAK = "5"


def sample() -> Memory:
    """Memory of this process now."""
    status = _fields(STATUS)
    if "VmRSS" not in status:
        return _portable()
    mapped = [status[name] for name in ("RssFile", "RssShmem") if name in status]
    return Memory(
        resident=status["VmRSS"],
        peak=status.get("VmHWM"),
        anonymous=status.get("RssAnon"),
        mapped=sum(mapped) if mapped else None,
        proportional=_fields(ROLLUP).get("Pss"),
    )


def reset_peak() -> bool:
    """Let the peak begin anew at what is resident now; False where the system cannot."""
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError:
        return False
    return True


def highest(*samples: Memory) -> int | None:
    """The highest peak of several samples; None when no sample knows one."""
    return max((one.peak for one in samples if one.peak is not None), default=None)


def _fields(path: Path) -> Mapping[str, int]:
    """Lines ``name: number kB`` of a /proc file in bytes; empty where there is no such file."""
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return {}
    found: dict[str, int] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        number, _, unit = value.strip().partition(" ")
        if unit == "kB" and number.isdecimal():
            found[name] = 1024 * int(number)
    return found


def _portable() -> Memory:
    import psutil

    told = psutil.Process().memory_info()
    return Memory(resident=int(told.rss), peak=getattr(told, "peak_wset", None) or _most())


def _most() -> int | None:
    """The peak by getrusage; None on Windows. Kilobytes on Linux, bytes on macOS."""
    try:
        import resource
    except ImportError:
        return None
    import sys

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most if sys.platform == "darwin" else 1024 * most)
