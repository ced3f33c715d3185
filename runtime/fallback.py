"""A request that begins again where a device failed and another took over.

What was shown already is not shown again; the text returned is that of the run that came through.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from typing import TypeVar

from .asking import answered
from .parts import PartFailed
from .result import Result
from .task import Running

T = TypeVar("T")
DIFFERS = (
    "a device failed while the text was being shown, and the text of the one that took over is "
    "another; the result has it whole."
)


def steadily(
    start: Callable[[], Running], give_way: Callable[[PartFailed], None]
) -> Generator[str, None, Result]:
    """The pieces of a task, which is started anew after each failure that a device is left for."""
    shown = ""
    while True:
        written = ""
        with closing(answered(start())) as pieces:
            try:
                while True:
                    piece = next(pieces)
                    written += piece
                    fresh = written[max(len(shown), len(written) - len(piece)) :]
                    if fresh:
                        shown += fresh
                        yield fresh
            except StopIteration as end:
                result: Result = end.value
                if shown == written:
                    return result
                return replace(result, warnings=(*result.warnings, DIFFERS))
            except PartFailed as failure:
                give_way(failure)


def retried(call: Callable[[], T], give_way: Callable[[PartFailed], None]) -> T:
    """What the call returns, made anew after each failure that a device is left for."""
    while True:
        try:
            return call()
        except PartFailed as failure:
            give_way(failure)
