"""A profile as one HTML page: no script, no network, read on a phone and on a desk."""

from __future__ import annotations

from .page import page

__all__ = ["page"]
