"""Texts that scales are calibrated by, as far as a model's positions reach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..families.base import Family
from ..parity import inputs_of


def inputs_within(family: Family, text: str, room: int) -> tuple[Mapping[str, Any], list[int]]:
    """What the encoder takes of a text and the decoder's prompt, of which the end where it leaves
    no ``room`` for tokens behind it (or half of all positions). Raises ``ExportError`` for a source
    that is too long."""
    source, prompt = inputs_of(family, text)
    most = family.generation().max_positions
    return source, prompt[-(most - min(room, most // 2)) :]  # all of it where there is no limit


def padding_within(family: Family, source: Mapping[str, Any], most: int) -> int:
    """Hidden places behind a source: ``most``, or as many as there are positions for."""
    limit = family.generation().max_source
    return min(most, limit - len(source.get("input_ids", ()))) if limit else most
