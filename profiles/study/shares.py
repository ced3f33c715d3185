"""What of a gain is the structure's and what is speculation's: pure functions of tables.

``structure`` is decoder-only / encoder-decoder, both plain, measured. ``speculation`` is plain /
speculated of one model: the recorded steps of a real model, each at what its rows cost here. The
two multiply to the whole, so their logarithms divide it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import quantiles

from edgegen.runtime.calibration import Costs

from ..summary import Spread
from .acceptance import Acceptance
from .record import STRUCTURES, Cell, Sample, Study

Place = tuple[str, str, str, int, int]  # size, precision, device, source, output


@dataclass(frozen=True, kw_only=True)
class Gain:
    """Drafts of at most ``nodes`` make a token cost 1 / ``ratio`` of a plain one. 0 nodes: do not
    speculate."""

    nodes: int
    tokens_per_call: float
    ratio: float


def best_gain(acceptance: Acceptance, costs: Costs) -> Gain:
    """The length of drafts that pays most, nought included."""
    longest = max(drafted for drafted, _, _ in acceptance.steps)
    return max((gain(acceptance, costs, k) for k in range(longest + 1)), key=lambda one: one.ratio)


def gain(acceptance: Acceptance, costs: Costs, nodes: int) -> Gain:
    """The recorded steps, drafts cut to ``nodes``. A step over d drafted tokens costs L(1 + d) and
    asking. What a cut draft leaves is taken to be drafted no better later than in the record."""
    plain = costs.of(1)
    if nodes == 0:
        return Gain(nodes=0, tokens_per_call=1.0, ratio=1.0)
    tokens = seconds = 0.0
    for drafted, accepted, count in acceptance.steps:
        tokens += count * (1 + min(accepted, nodes))
        seconds += count * (costs.of(1 + min(drafted, nodes)) + acceptance.draft_seconds)
    return Gain(
        nodes=nodes, tokens_per_call=tokens / acceptance.calls, ratio=plain * tokens / seconds
    )


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One cell's numbers for people. ``tokens_per_second`` counts the whole request."""

    output: int
    ttft_ms: Spread
    tpot_ms: Spread
    e2e_ms: Spread
    cpu_seconds: Spread
    repetitions: int

    @property
    def tokens_per_second(self) -> float:
        return 1e3 * self.output / self.e2e_ms.median

    @property
    def decode_tps(self) -> float:
        return 1e3 / self.tpot_ms.median

    def speculated_ms(self, ratio: float) -> float:
        """The request when tokens after the first cost 1 / ``ratio``."""
        later = self.tpot_ms.median * (self.output - 1)
        return self.e2e_ms.median - later * (1.0 - 1.0 / ratio)


def figures(cell: Cell) -> Figures:
    """Medians and ends over the repetitions."""

    def over(number: Callable[[Sample], float]) -> Spread:
        return Spread.of(map(number, cell.samples))

    return Figures(
        output=cell.output,
        ttft_ms=over(lambda one: 1e3 * (one.encode + one.first)),
        tpot_ms=over(lambda one: 1e3 * one.later / (cell.output - 1)),
        e2e_ms=over(lambda one: 1e3 * one.wall),
        cpu_seconds=over(lambda one: one.cpu),
        repetitions=len(cell.samples),
    )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The two structures at one place and length; ``gains`` by structure."""

    place: Place
    figures: Mapping[str, Figures]
    gains: Mapping[str, Gain]

    @property
    def ttft_saved(self) -> float:
        """By how much the encoder-decoder's first token is earlier, as a share."""
        mine, other = (self.figures[name].ttft_ms.median for name in STRUCTURES)
        return 1.0 - mine / other

    @property
    def throughput(self) -> float:
        """Tokens a second of the whole request, encoder-decoder / decoder-only."""
        mine, other = (self.figures[name].tokens_per_second for name in STRUCTURES)
        return mine / other

    @property
    def decoding(self) -> float:
        """The same after the first token."""
        mine, other = (self.figures[name].decode_tps for name in STRUCTURES)
        return mine / other

    def speculation(self, structure: str) -> float:
        """What drafts make of one structure's request: plain / speculated."""
        mine = self.figures[structure]
        return mine.e2e_ms.median / mine.speculated_ms(self.gains[structure].ratio)

    @property
    def split(self) -> Split:
        """From a decoder-only model that decodes plainly to an encoder-decoder that drafts."""
        return Split(structure=self.throughput, speculation=self.speculation(STRUCTURES[0]))

    @property
    def both_speculate(self) -> float:
        """``throughput`` when drafts help either structure."""
        mine, other = (self.speculation(name) for name in STRUCTURES)
        return self.throughput * mine / other


@dataclass(frozen=True, kw_only=True)
class Split:
    """Two factors of one whole."""

    structure: float
    speculation: float

    @property
    def whole(self) -> float:
        return self.structure * self.speculation

    @property
    def structure_share(self) -> float | None:
        """Of the whole's logarithm; None where a factor is no gain, so that there is nothing to
        divide."""
        if self.structure < 1.0 or self.speculation < 1.0 or self.whole <= 1.0:
            return None
        return math.log(self.structure) / math.log(self.whole)


def comparisons(study: Study) -> list[Comparison]:
    """Of every place and length where both structures were measured, in the study's order."""
    found: dict[Place, dict[str, Cell]] = {}
    for cell in study.cells:
        place = (cell.size, cell.precision, cell.device, cell.source, cell.output)
        found.setdefault(place, {})[cell.structure] = cell
    tables = {
        (one.size, one.precision, one.device, one.structure, calls.source): calls.costs
        for one in study.subjects
        for calls in one.calls
    }
    return [
        Comparison(
            place=place,
            figures={name: figures(cells[name]) for name in STRUCTURES},
            gains={
                name: best_gain(study.acceptance, tables[(*place[:3], name, place[3])])
                for name in STRUCTURES
            },
        )
        for place, cells in found.items()
        if len(cells) == len(STRUCTURES)
    ]


def settled(walls: Sequence[float], spread: float) -> bool:
    """Whether the middle half of at least three times lies within ``spread`` of their median."""
    if len(walls) < 3:
        return False
    low, middle, high = quantiles(walls, n=4, method="inclusive")
    return high - low <= spread * middle
