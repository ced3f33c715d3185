"""Whom work tells what begins, in a line each."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str], None]


def unheard(stage: str) -> None:
    """No one listens."""
