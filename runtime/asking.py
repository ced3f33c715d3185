"""What a task asks of the graphs while it runs, so that several tasks can be answered together.

A task is a generator. It yields pieces of text, and questions it is sent the answer to; whoever
drives it answers each alone (``answered``, ``finished``) or those of many texts in one call
(``batch``).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from msgspec import Struct

from .decoder import Decoder
from .generation import Answer, Feed, answer

if TYPE_CHECKING:
    from .engine import Engine, Memory

T = TypeVar("T")


class Encoding(Struct, frozen=True):
    """Source ids to encode, with ``draft`` for a draft model too; the answer is a ``Memory``."""

    engine: Engine
    ids: Sequence[int]
    draft: bool = False

    def alone(self) -> Memory:
        return self.engine.remember_ids(self.ids, draft=self.draft)


class Call(Struct, frozen=True):
    """A decode call; the answer is an ``Answer``."""

    decoder: Decoder
    feed: Feed

    def alone(self) -> Answer:
        return answer(self.decoder, self.feed)


class Unread(Protocol):
    """New text that is made when somebody reads it."""

    def read(self) -> str:
        """What came since it was last read and can no longer change."""
        ...


Asked = Encoding | Call
Writing = Generator[str | Unread | Asked, Any, T]


def answered(writing: Writing[T]) -> Generator[str, None, T]:
    """The pieces alone, every question answered as it comes."""
    try:
        item = next(writing)
        while True:
            if isinstance(item, Asked):
                item = writing.send(item.alone())
                continue
            if piece := item if isinstance(item, str) else item.read():
                yield piece
            item = next(writing)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        writing.close()


def finished(writing: Writing[T]) -> T:
    """What comes of it, every question answered as it comes and no piece read."""
    try:
        item = next(writing)
        while True:
            item = writing.send(item.alone() if isinstance(item, Asked) else None)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        writing.close()
