"""The table of verifiers: what decides how much of a draft stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgegen.registry import Registry

if TYPE_CHECKING:
    from .verify import Verifier

VERIFIERS: Registry[type[Verifier]] = Registry(
    "verifier",
    {
        "match": "edgegen.runtime.verify:MatchVerifier",
        "rejection": "edgegen.runtime.verify:RejectionVerifier",
        "typical": "edgegen.runtime.verify:TypicalVerifier",
    },
)
