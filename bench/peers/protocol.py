"""What driver and workers say to each other: one JSON object a line, an answer to each question."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Settings = Mapping[str, Any]


class Unavailable(Exception):
    """A contestant cannot take part here, for the reason given in one line."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One thing to do.

    ``sources`` are token ids, ``texts`` plain texts and ``audio`` paths of wave files; one of the
    three is given. They are done one after another unless ``batch``. ``new_tokens`` 0 runs to the
    model's own end; otherwise exactly so many tokens are made, the end mark being forbidden, and
    ``new_tokens`` with ``ends`` is only the most. ``beams`` 1 is greedy.
    """

    sources: tuple[tuple[int, ...], ...] = ()
    texts: tuple[str, ...] = ()
    audio: tuple[str, ...] = ()
    new_tokens: int = 0
    ends: bool = False
    beams: int = 1
    batch: bool = False

    @property
    def least(self) -> int:
        """Tokens before which no text may end."""
        return 0 if self.ends else self.new_tokens

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Request:
        """From what ``dataclasses.asdict`` and JSON made of one."""
        lists: dict[str, Any] = {name: tuple(said[name]) for name in ("texts", "audio")}
        lists["sources"] = tuple(tuple(source) for source in said["sources"])
        return cls(**{**said, **lists})


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a request, an entry a source: ``tokens`` without start and end marks, ``texts``
    where the peer writes them. ``timings`` are seconds by name, as the peer itself tells them."""

    tokens: list[list[int]] = field(default_factory=list[list[int]])
    texts: list[str] = field(default_factory=list[str])
    timings: dict[str, float] = field(default_factory=dict[str, float])


# A loaded contestant.
Run = Callable[[Request], Outcome]
# An adapter module has ``PACKAGES``, names of distributions whose versions count, and
# ``load(settings, threads)``, which may raise ``Unavailable``.
Load = Callable[[Settings, int], Run]


def one_line(error: BaseException, limit: int = 300) -> str:
    """Kind and first words of an error."""
    said = " ".join(str(error).split())
    named = "" if isinstance(error, Unavailable) else f"{type(error).__name__}: "
    return f"{named}{said}"[:limit] or type(error).__name__
