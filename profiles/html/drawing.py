"""SVG by pieces: a frame with axes, and marks whose text is escaped.

A drawing is made twice, at ``NARROW`` and ``WIDE`` units, and the page shows the one that fits, so
that letters have their size on a phone too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

from .scales import Scale, tick_text

NARROW, WIDE = 330, 540
COLOURS = 8
SHAPES = ("circle", "square", "triangle", "diamond")

Draw = Callable[[int], str]


@dataclass
class Drawing:
    """Marks are added; ``svg`` is the whole. ``label`` is what a screen reader says."""

    width: int
    height: int
    label: str
    parts: list[str] = field(default_factory=list[str])

    def svg(self) -> str:
        size = "narrow" if self.width < WIDE else "wide"
        return (
            f'<svg class="{size}" viewBox="0 0 {self.width} {self.height}" role="img" '
            f'aria-label="{escape(self.label)}">{"".join(self.parts)}</svg>'
        )

    def text(
        self, x: float, y: float, said: str, kind: str = "tick", anchor: str = "middle",
        turn: bool = False,
    ) -> None:  # fmt: skip
        turned = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turn else ""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}"{turned}>'
            f"{escape(said)}</text>"
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'
        )

    def box(
        self, x: float, y: float, width: float, height: float, kind: str, title: str = "",
        style: str = "",
    ) -> None:  # fmt: skip
        styled = f' style="{escape(style)}"' if style else ""
        self.parts.append(
            f'<rect x="{x:.2f}" y="{y:.2f}" width="{max(0.0, width):.2f}" '
            f'height="{max(0.0, height):.2f}" class="{kind}"{styled}>{_title(title)}</rect>'
        )

    def path(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{drawn}" class="{kind}"/>')

    def mark(self, x: float, y: float, index: int, title: str = "", size: float = 4.5) -> None:
        """A point of a series: its colour and its shape say which."""
        kind = f"mark c{index % COLOURS}"
        shape = SHAPES[index % len(SHAPES)]
        if shape == "circle":
            drawn = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" class="{kind}">'
            self.parts.append(f"{drawn}{_title(title)}</circle>")
            return
        corners = {
            "square": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
            "triangle": ((0, -1.2), (1.15, 0.9), (-1.15, 0.9)),
            "diamond": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
        }[shape]
        points = " ".join(f"{x + size * dx:.1f},{y + size * dy:.1f}" for dx, dy in corners)
        self.parts.append(f'<polygon points="{points}" class="{kind}">{_title(title)}</polygon>')


@dataclass(frozen=True, kw_only=True)
class Axes:
    """What stands along the two axes, and the space around the field."""

    across: str
    up: str
    left: int = 52
    right: int = 14
    top: int = 12
    bottom: int = 42

    def field(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Left, right, top and bottom of the field."""
        return self.left, width - self.right, self.top, height - self.bottom

    def draw(self, drawing: Drawing, x: Scale | None, y: Scale) -> None:
        """Lines of the grid with their numbers, and the names with their units."""
        left, right, top, bottom = self.field(drawing.width, drawing.height)
        for value in y.ticks(4):
            drawing.line(left, y(value), right, y(value), "grid")
            drawing.text(left - 7, y(value) + 4, tick_text(value), anchor="end")
        if x is not None:
            for value in x.ticks(4 if drawing.width < WIDE else 7):
                drawing.line(x(value), bottom, x(value), bottom + 4, "axis")
                drawing.text(x(value), bottom + 17, tick_text(value))
        drawing.line(left, bottom, right, bottom, "axis")
        drawing.text((left + right) / 2, drawing.height - 5, self.across, "name")
        drawing.text(13, (top + bottom) / 2, self.up, "name", turn=True)


def both(draw: Draw) -> str:
    """The drawing for a phone and the one for a desk."""
    return draw(NARROW) + draw(WIDE)


def legend(names: Sequence[str], kinds: Sequence[str] = ()) -> str:
    """Colours with their names; a series' shape too, unless ``kinds`` are other marks."""
    if kinds:
        items = [
            f'<li><i class="key {kind}"></i>{escape(name)}</li>'
            for name, kind in zip(names, kinds, strict=True)
        ]
    else:
        items = [f"<li>{_key(index)}{escape(name)}</li>" for index, name in enumerate(names)]
    return f'<ul class="legend">{"".join(items)}</ul>'


def _key(index: int) -> str:
    drawing = Drawing(14, 14, "")
    drawing.mark(7, 7, index)
    return f'<svg class="key" viewBox="0 0 14 14" aria-hidden="true">{drawing.parts[0]}</svg>'


def _title(title: str) -> str:
    return f"<title>{escape(title)}</title>" if title else ""
