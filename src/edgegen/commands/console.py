"""Where commands print: JSON for programs, tables as wide as the terminal for people."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edgegen.errors import EdgegenWarning

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PIPE_WIDTH = 120


def stdout() -> Console:
    """Text as it is, without markup or colours of numbers; a pipe is ``PIPE_WIDTH`` wide."""
    return _console(sys.stdout)


def stderr() -> Console:
    return _console(sys.stderr)


def _console(file: Any) -> Console:
    from rich.console import Console

    found = Console(file=file, markup=False, highlight=False, emoji=False)
    if not found.is_terminal:
        found.width = PIPE_WIDTH
    return found


@contextmanager
def aloud() -> Generator[None]:
    """edgegen's own warnings as lines on standard error; other libraries' are not for users."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", EdgegenWarning)
        yield
    for one in caught:
        print(f"edgegen: {one.message}", file=sys.stderr)


def print_json(document: object) -> None:
    """A document for programs, indented; text stays readable."""
    print(json.dumps(document, ensure_ascii=False, indent=2))


def table(*headings: str) -> Table:
    """An empty table in the style of all of them."""
    from rich import box
    from rich.table import Table

    found = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in headings:
        found.add_column(heading, overflow="fold")
    return found
