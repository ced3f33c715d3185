"""A part of the page: a heading, a sentence that says what is seen, and a picture of it."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, kw_only=True)
class Section:
    """``body`` is HTML, ``says`` plain text. Without a body ``says`` tells what option brings it.

    ``wide`` takes the whole width of the page.
    """

    title: str
    says: str
    body: str = ""
    wide: bool = False

    def html(self) -> str:
        kinds = " ".join(
            kind
            for kind, holds in (("wide", self.wide), ("absent", not self.body))
            if holds
        )  # fmt: skip
        return (
            f'<section class="{kinds}"><h2>{escape(self.title)}</h2>'
            f"<p>{escape(self.says)}</p>{self.body}</section>"
        )
