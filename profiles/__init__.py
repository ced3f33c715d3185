"""Profiles: tokens and their times become numbers."""

from __future__ import annotations

from .measure import profile
from .record import Profile

__all__ = ["Profile", "profile"]
