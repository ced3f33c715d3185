"""What drafts of a real model were worth: of its steps, how many tokens were drafted and stood.

Random weights write noise that no drafter foresees, so a study takes this from a model that writes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from statistics import median

import msgspec

from edgegen.errors import InputError
from edgegen.untrusted import UNREADABLE

from ..record import Part, Profile, StepRecord

HERE = Path(__file__).parent


class Acceptance(Part, frozen=True, kw_only=True):
    """``steps`` holds (drafted, accepted, how many steps did so); (0, 0, n) are steps without a
    draft. ``draft_seconds`` is the median of asking the drafter, on the machine of the record.
    ``origin`` says in a line which model, texts and drafter it is of."""

    origin: str
    drafter: str
    steps: tuple[tuple[int, int, int], ...]
    draft_seconds: float

    def __post_init__(self) -> None:
        bad = [step for step in self.steps if not 0 <= step[1] <= step[0] or step[2] < 1]
        if bad or not self.steps:
            raise ValueError(f"expected (drafted, accepted, count), got {bad or 'no steps'}")

    @property
    def calls(self) -> int:
        return sum(count for _, _, count in self.steps)

    @property
    def tokens_per_call(self) -> float:
        """1 + accepted / steps."""
        return 1.0 + sum(accepted * count for _, accepted, count in self.steps) / self.calls


def recorded() -> Acceptance:
    """The record edgegen brings: a proofreader of 8 million parameters."""
    return msgspec.json.decode((HERE / "proofreader.json").read_bytes(), type=Acceptance)


def read(path: Path) -> Acceptance:
    """From a file of ``Acceptance``, or a profile (``edgegen profile --draft ... --json``).

    Raises ``InputError``.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    try:
        return msgspec.json.decode(data, type=Acceptance)
    except UNREADABLE:
        return of_profile(Profile.load(path))


def of_profile(profile: Profile) -> Acceptance:
    """Of the first drafter a profile measured, all its runs together. Raises ``InputError``."""
    runs = [
        (run.subject.name, case.name, request)
        for run in profile.runs
        for case in run.cases
        for request in case.requests
        if request.drafter != "none" and not request.warm_up
    ]
    if not runs:
        raise InputError(
            "the profile measured no drafter; make it with edgegen profile DIR --texts FILE "
            "--draft lookup --num-assistant-tokens 16 --json."
        )
    drafter = runs[0][2].drafter
    mine = [one for one in runs if one[2].drafter == drafter]
    names = ", ".join(dict.fromkeys(f"{bundle} on {case}" for bundle, case, _ in mine))
    steps = [step for _, _, one in mine for part in one.passes for step in part.steps]
    return of_steps(steps, drafter, f"{names}, drafter {drafter}")


def of_steps(steps: Iterable[StepRecord], drafter: str, origin: str) -> Acceptance:
    """Counts of what the steps did."""
    found = list(steps)
    counts = Counter((step.drafted, step.accepted) for step in found)
    return Acceptance(
        origin=origin,
        drafter=drafter,
        steps=tuple((*pair, counts[pair]) for pair in sorted(counts)),
        draft_seconds=median(step.draft_seconds for step in found),
    )
