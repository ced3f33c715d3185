"""Where a checkpoint comes from: one file a source, one line a source in the table below."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgegen.errors import CheckpointError
from edgegen.export.checkpoint import Checkpoint
from edgegen.registry import Registry

from .base import Source

__all__ = ["SOURCES", "Source", "SourceEntry", "list_sources", "load", "source_of"]

# In the order they are asked: spelling first, then file formats, the plain folder after those.
SOURCES: Registry[type[Source]] = Registry(
    "source",
    {
        "ctranslate2": "edgegen.export.sources.ctranslate2:CTranslate2Source",
        "marian": "edgegen.export.sources.marian:MarianSource",
        "local": "edgegen.export.sources.local:LocalSource",
    },
)


@dataclass(frozen=True, kw_only=True)
class SourceEntry:
    """A row of `edgegen sources`."""

    name: str
    takes: str
    example: str


def list_sources() -> list[SourceEntry]:
    """All sources."""
    sources = [SOURCES[name]() for name in SOURCES]
    return [SourceEntry(name=s.name, takes=s.takes, example=s.example) for s in sources]


def source_of(model: str) -> Source:
    """The first source that takes ``model``. Raises ``CheckpointError`` when none does."""
    for name in SOURCES:
        source = SOURCES[name]()
        if source.matches(model):
            return source
    raise CheckpointError(f"{model!r}: no such file or folder")


def load(model: str, *, revision: str | None = None, cache_dir: Path | None = None) -> Checkpoint:
    """Read ``model``."""
    return source_of(model).load(model, revision, cache_dir)
