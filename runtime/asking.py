"""What a task asks of the graphs while it runs, so that several tasks can be answered together.

A task is a generator. It yields pieces of text, and questions it is sent the answer to; whoever
drives it answers each alone (``answered``) or those of many texts in one call (``batch``).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from .decoder import Decoder
from .generation import Answer, Feed, answer

if TYPE_CHECKING:
    from .engine import Engine, Memory

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Encoding:
    """Source ids to encode, with ``draft`` for a draft model too; the answer is a ``Memory``."""

    engine: Engine
    ids: Sequence[int]
    draft: bool = False

    def alone(self) -> Memory:
        return self.engine.remember_ids(self.ids, draft=self.draft)


@dataclass(frozen=True, slots=True)
class Call:
    """A decode call; the answer is an ``Answer``."""

    decoder: Decoder
    feed: Feed

    def alone(self) -> Answer:
        return answer(self.decoder, self.feed)


Asked = Encoding | Call
Writing = Generator[str | Asked, Any, T]


def answered(writing: Writing[T]) -> Generator[str, None, T]:
    """The pieces alone, every question answered as it comes."""
    try:
        item = next(writing)
        while True:
            if isinstance(item, str):
                yield item
                item = next(writing)
            else:
                item = writing.send(item.alone())
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        writing.close()
