"""Tables of names: ``name -> "module:attribute"``, imported on use.

A table is the only way a new source, family, quantiser, device or drafter becomes known: one new
file and one line. Reading the names imports nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Generic, TypeVar, cast

from edgegen.errors import UnknownName

T = TypeVar("T")


class Registry(Generic[T]):
    """A read-only table of one kind of thing, e.g. ``Registry[Device]("device", {...})``."""

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self.entries: Mapping[str, str] = MappingProxyType(dict(entries))

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __getitem__(self, name: str) -> T:
        """Import and return the entry. Raises ``UnknownName`` that lists the names there are."""
        if name not in self.entries:
            raise UnknownName(unknown(self.kind, name, list(self.entries)))
        module, _, attribute = self.entries[name].partition(":")
        return cast(T, getattr(import_module(module), attribute))


def unknown(kind: str, name: str, names: list[str]) -> str:
    """The one line said when a name is not in a table: the nearest name first, then all."""
    from difflib import get_close_matches

    near = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown {kind} {name!r}{hint} Known: {', '.join(sorted(names)) or 'none'}."
