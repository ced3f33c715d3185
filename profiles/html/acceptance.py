"""How many drafted tokens a verification kept, as shares of the verifications."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from ..record import Profile
from .drawing import COLOURS, Axes, Drawing, both, legend
from .scales import fitted
from .section import Section
from .view import Series, series

TITLE = "Accepted tokens of a draft"
HEIGHT = 250


def acceptance(profile: Profile) -> Section:
    """A group of bars a length, a bar each bundle, device and drafter that drafted."""
    drafted = [
        (one, shares)
        for one in series(profile, plain=False)
        if (shares := shares_of(one))
    ][:COLOURS]  # fmt: skip
    if not drafted:
        asked = any(one.drafter != "none" for one in profile.summaries)
        return Section(
            title=TITLE,
            says="No drafter proposed a token in these requests."
            if asked
            else "Needs a drafter: --draft lookup.",
        )
    most = max((one for one, _ in drafted), key=_rate)
    others = f", the most of {len(drafted)}" if len(drafted) > 1 else ""
    return Section(
        title=TITLE,
        says=f"{_said(most)}{others}. Bars are shares of the steps that drafted.",
        body=both(lambda width: _draw(drafted, width)) + legend([one.name for one, _ in drafted]),
    )


def shares_of(one: Series) -> list[float]:
    """Percent of the drafting steps with 0, 1, 2... tokens accepted, all cases together."""
    counts = [
        sum(found)
        for found in zip_longest(
            *(summary.acceptance_histogram for summary in one.summaries), fillvalue=0
        )
    ]
    return [100 * count / sum(counts) for count in counts]


def _rate(one: Series) -> float:
    proposed = sum(summary.draft_tokens_proposed for summary in one.summaries)
    return sum(summary.draft_tokens_accepted for summary in one.summaries) / max(1, proposed)


def _said(one: Series) -> str:
    proposed = sum(summary.draft_tokens_proposed for summary in one.summaries)
    accepted = sum(summary.draft_tokens_accepted for summary in one.summaries)
    ups = [each.speculation.speedup for each in one.summaries if each.speculation is not None]
    fast = f"{min(ups):.2f}" if len(ups) == 1 else f"{min(ups):.2f} to {max(ups):.2f}"
    return f"{one.name} kept {accepted} of {proposed} drafted tokens" + (
        f" and was {fast} times as fast as plain decoding" if ups else ""
    )


def _draw(drafted: Sequence[tuple[Series, Sequence[float]]], width: int) -> str:
    axes = Axes(across="tokens accepted (count)", up="share of steps (%)")
    drawing = Drawing(width, HEIGHT, TITLE)
    left, right, top, bottom = axes.field(width, HEIGHT)
    y = fitted((share for _, shares in drafted for share in shares), bottom, top)
    axes.draw(drawing, None, y)
    groups = max(len(shares) for _, shares in drafted)
    room = (right - left) / groups
    every = 1 + int(18 / room)
    bar = min(34.0, 0.8 * room / len(drafted))
    for at in range(groups):
        middle = left + (at + 0.5) * room
        if at % every == 0:
            drawing.text(middle, bottom + 17, str(at))
        for index, (one, shares) in enumerate(drafted):
            share = shares[at] if at < len(shares) else 0.0
            x = middle + (index - len(drafted) / 2) * bar
            title = f"{one.name}, {at} accepted: {share:.1f} %"
            drawing.box(x, y(share), bar - 1.5, bottom - y(share), f"solid c{index}", title)
    return drawing.svg()
