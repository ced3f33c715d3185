"""Size against speed, with quality beside: which bundles no other beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from ..record import Profile
from ..summary import MB
from .drawing import Axes, Drawing, both, legend
from .scales import fitted
from .section import Section
from .view import ms, series

TITLE = "Size, speed and quality"
HEIGHT = 290


@dataclass(frozen=True)
class Choice:
    """A bundle on a device: megabytes, ms a token, and the share of the checkpoint's tokens.

    Only what is of one ``model`` competes.
    """

    name: str
    model: str
    size: float
    tpot: float
    agreement: float | None

    def beats(self, other: Choice) -> bool:
        """No worse in anything that both know, and better in something."""
        mine, its = [self.size, self.tpot], [other.size, other.tpot]
        if self.agreement is not None and other.agreement is not None:
            mine.append(-self.agreement)
            its.append(-other.agreement)
        if self.model != other.model or mine == its:
            return False
        return all(one <= two for one, two in zip(mine, its, strict=True))


def pareto(profile: Profile) -> Section:
    """One point a series; those that none beats are joined."""
    found = choices(profile)
    if len(found) < 2:
        return Section(
            title=TITLE,
            says="Needs two bundles, devices or drafters: give several bundles of a model.",
        )
    front = front_of(found)
    names = "; ".join(one.name for one in front)
    count = len(front)
    says = (
        f"{count} of {len(found)} {'is' if count == 1 else 'are'} beaten by no other of the same "
        f"model: {names}. "
        "Size is the bundle's on disk, time the mean over cases of the median time per token; "
        + _quality(found)
    )
    shown = sorted(found, key=lambda one: one.tpot)
    return Section(
        title=TITLE,
        says=says,
        body=both(lambda width: _draw(shown, front, width)) + legend([_label(o) for o in shown]),
    )


def choices(profile: Profile) -> list[Choice]:
    """Of every series the size, the time per token and the agreement at export."""
    found: list[Choice] = []
    for one in series(profile, plain=False):
        times = [each.times["tpot_ms"].median for each in one.summaries]
        subject = one.summaries[0].run.subject
        if known := [time for time in times if time]:
            size, tpot = subject.size / MB, fmean(known)
            found.append(Choice(one.name, subject.source, size, tpot, subject.agreement))
    return found


def front_of(found: Sequence[Choice]) -> list[Choice]:
    """Those that none beats, by size."""
    best = [one for one in found if not any(other.beats(one) for other in found)]
    return sorted(best, key=lambda one: (one.size, one.tpot))


def _quality(found: Sequence[Choice]) -> str:
    if any(one.agreement is not None for one in found):
        return (
            "quality the share of next tokens that were the checkpoint's own at export, as a "
            "number at each name."
        )
    return "quality is unknown here: export without --no-parity writes it into a bundle."


def _label(one: Choice) -> str:
    return one.name if one.agreement is None else f"{one.name} ({100 * one.agreement:.1f} %)"


def _draw(found: Sequence[Choice], front: Sequence[Choice], width: int) -> str:
    axes = Axes(across="bundle size (MB)", up="time per token (ms)")
    drawing = Drawing(width, HEIGHT, TITLE)
    left, right, top, bottom = axes.field(width, HEIGHT)
    x = fitted((one.size for one in found), left, right)
    y = fitted((one.tpot for one in found), bottom, top)
    axes.draw(drawing, x, y)
    for model in dict.fromkeys(one.model for one in front):
        mine = [(x(one.size), y(one.tpot)) for one in front if one.model == model]
        drawing.path(mine, "front")
    for index, one in enumerate(found):
        said = f"{_label(one)}: {one.size:.1f} MB, {ms(one.tpot)} a token"
        drawing.mark(x(one.size), y(one.tpot), index, said, 6 if one in front else 4.5)
    return drawing.svg()
