"""The ledger of identity on disk: one line a comparison, safe before the next one begins."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

PLAIN = "none"
Key = tuple[str, str, str, str]


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One text with one drafter. The line of drafter ``none`` holds the reference: its tokens.

    ``bundle`` digests the files of the bundle (and of the draft model's, where one drafts) and
    ``case`` the source and the options, so a line counts only for what it was made with. ``rows``
    is what the manifest says of the graph's rows. ``first_difference`` is an index of a token.
    """

    model: str
    format: str
    precision: str
    rows: str
    mode: str
    input: int
    drafter: str
    bundle: str
    case: str
    tokens: int
    calls: int
    proposed: int = 0
    accepted: int = 0
    reruns: int = 0
    flips: int = 0
    equal: bool = True
    first_difference: int | None = None
    emitted: tuple[int, ...] = ()

    @property
    def key(self) -> Key:
        return self.bundle, self.case, self.mode, self.drafter


class Ledger:
    """Entries by key; new ones go to the end of the file. A line cut short by a kill is dropped.

    One process at a time writes a file. Raises ``ValueError`` for a file that is no ledger.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[Key, Entry] = {}
        whole = self._read() if path.exists() else 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        self._file.truncate(whole)

    def _read(self) -> int:
        """Bytes of whole lines."""
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                entry = msgspec.json.decode(line, type=Entry)
            except msgspec.DecodeError as error:
                raise ValueError(f"{self.path}:{number} is no line of a ledger: {error}") from None
            self.entries[entry.key] = entry
        return whole

    def add(self, entry: Entry) -> None:
        self._file.write(msgspec.json.encode(entry) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.entries[entry.key] = entry

    def get(self, key: Key) -> Entry | None:
        return self.entries.get(key)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def report(entries: Iterable[Entry]) -> str:
    """Two Markdown tables: by model and precision, and by drafter. Of a bundle that was exported
    anew only the last one's lines count."""
    entries = list(entries)
    last = {(entry.model, entry.format, entry.precision): entry.bundle for entry in entries}
    compared = [
        entry
        for entry in entries
        if entry.drafter != PLAIN
        and last[entry.model, entry.format, entry.precision] == entry.bundle
    ]
    by_model = [
        "| model | format | precision | rows | inputs | pairs | tokens | differing "
        "| acceptance length | rerun rows | flips |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (model, form, precision, rows), group in grouped(
        compared, "model", "format", "precision", "rows"
    ):
        inputs = len({entry.input for entry in group})
        again = f"{sum(e.reruns for e in group):,} | {sum(e.flips for e in group):,}"
        by_model.append(
            f"| {model} | {form} | {precision} | {rows} | {inputs} | {counts(group)} | {again} |"
        )
    by_drafter = [
        "| drafter | pairs | tokens | differing | acceptance length |",
        "|---|---|---|---|---|",
    ]
    for (drafter,), group in grouped(compared, "drafter"):
        by_drafter.append(f"| `{drafter}` | {counts(group)} |")
    by_drafter.append(f"| all | {counts(compared)} |")
    return "\n".join([*by_model, "", *by_drafter])


def grouped(entries: list[Entry], *names: str) -> Iterator[tuple[tuple[str, ...], list[Entry]]]:
    def values(entry: Entry) -> tuple[str, ...]:
        return tuple(str(getattr(entry, name)) for name in names)

    for key, group in groupby(sorted(entries, key=values), values):
        yield key, list(group)


def counts(group: list[Entry]) -> str:
    """Pairs, tokens, differing pairs, tokens committed per decode call."""
    calls = sum(entry.calls for entry in group)
    length = 1 + sum(entry.accepted for entry in group) / calls if calls else 0.0
    differing = sum(not entry.equal for entry in group)
    tokens = sum(entry.tokens for entry in group)
    return f"{len(group):,} | {tokens:,} | {differing:,} | {length:.2f}"
