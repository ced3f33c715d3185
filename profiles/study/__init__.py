"""Studies: questions about structures, answered by measuring models of random weights."""

from __future__ import annotations

from .measure import BundleOf, study
from .record import Settings, Study

__all__ = ["BundleOf", "Settings", "Study", "study"]
