"""What anyone may have written: what reading it as JSON raises, and how it is told in one line."""

from __future__ import annotations

import msgspec

UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


def reason(fault: Exception) -> str:
    """What went wrong, in one line that holds nothing a terminal would act on."""
    if isinstance(fault, RecursionError):
        return "it is nested too deeply"
    if isinstance(fault, UnicodeDecodeError):
        return "it is not UTF-8"
    return shown(str(fault))


def shown(text: str, limit: int = 160) -> str:
    """Text of untrusted origin for a message: escaped when needed, never a second line."""
    kept = text if len(text) <= limit else text[: limit - 3] + "..."
    return kept if kept.isprintable() and kept else repr(kept)
