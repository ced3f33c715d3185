"""What a work is: who takes part, what each is asked in a turn, and what is compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .protocol import Request


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A peer with one model and one choice of settings.

    ``peer`` names its environment, ``adapter`` its module, ``model`` an entry of the table of
    models. ``environment`` are variables its process gets. ``note`` says what a reader must know
    of it: block size, lossless class, arithmetic. ``plain`` names the contestant whose tokens it
    promises to give.
    """

    name: str
    peer: str
    adapter: str
    model: str
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    note: str = ""
    plain: str = ""

    @property
    def ours(self) -> bool:
        return self.peer == "edgegen"


@dataclass(frozen=True, kw_only=True)
class Work:
    """``requests`` are made when the work begins, since some need files that have to be made.

    ``fresh`` starts a process for every turn and times its start. ``warm`` runs every request once
    before the first round and, where there are several, the first once at the start of a turn.
    ``rounds`` 0 is what the caller chose. ``against`` is the contestant that ratios are taken to,
    the best peer where it is empty.
    """

    name: str
    title: str
    group: str
    contestants: tuple[Contestant, ...]
    requests: Callable[[], Mapping[str, Request]]
    metrics: tuple[str, ...]
    against: str = ""
    reference: str = ""
    fresh: bool = False
    rounds: int = 0
    threads: tuple[int, ...] = (1, 2)
    warm: bool = True
