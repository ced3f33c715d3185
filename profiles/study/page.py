"""A study as Markdown and plots, put between two marks of a page people write around them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from edgegen.errors import InputError

from ..summary import MB, Spread
from .plot import Panel, Point, figure
from .record import STRUCTURES, Study, Subject
from .shares import Comparison, Figures, comparisons

BEGIN, END = "<!-- study: written by edgegen -->", "<!-- study: end -->"
# arXiv 2501.16273, abstract.
PAPER_TTFT, PAPER_THROUGHPUT = 0.47, 4.7
PLOTS: dict[str, tuple[str, Callable[[Figures], Spread]]] = {
    "ttft": ("time to first token, ms", lambda one: one.ttft_ms),
    "request": ("whole request, ms", lambda one: one.e2e_ms),
}


def put(study: Study, page: Path) -> list[Path]:
    """Write the plots beside ``page`` and the figures between its marks; a page that is not there
    becomes one of figures alone. Raises ``InputError`` for a page without the marks."""
    written: list[Path] = []
    for name, svg in plots(study).items():
        path = page.with_name(f"{page.stem}-{name}.svg")
        path.write_text(svg, encoding="utf-8")
        written.append(path)
    old = page.read_text(encoding="utf-8") if page.exists() else f"{BEGIN}\n{END}\n"
    page.write_text(between(old, markdown(study, page.stem), page), encoding="utf-8")
    return [page, *written]


def between(old: str, new: str, page: Path) -> str:
    """``old`` with ``new`` between its marks."""
    before, begun, rest = old.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        raise InputError(
            f"{page}: expected the lines {BEGIN} and {END}; put them where figures go."
        )
    return f"{before}{BEGIN}\n\n{new}\n{END}{after}"


def markdown(study: Study, stem: str = "study") -> str:
    """Tables and their explanations; pictures are named after ``stem``."""
    found = comparisons(study)
    machine, settings = study.machine, study.settings
    software = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    parts = [
        f"{machine.processor}, {machine.cores} cores, {machine.memory / 1e9:.0f} GB, "
        f"{settings.threads} thread{'s' * (settings.threads > 1)}; {machine.system}; {software}; "
        f"{study.created[:10]}. Medians; in brackets the least and the most.",
        *(f"Left out: {name} ({why})." for name, why in study.skipped.items()),
        "### Plain decoding, side by side",
        table(PLAIN_HEADS, plain_rows(found)),
        *(f"![{title}]({stem}-{name}.svg)" for name, (title, _) in PLOTS.items()),
        "### The structure's part, beside the paper's figures",
        table(STRUCTURE_HEADS, structure_rows(found)),
        "### The structure's share and speculation's share",
        acceptance_words(study),
        table(SPLIT_HEADS, split_rows(found)),
        "### Size and memory",
        table(MEMORY_HEADS, map(memory_row, study.subjects)),
    ]
    return "\n\n".join(parts) + "\n"


PLACE_HEADS = ("size", "weights", "device", "source", "output")
PLAIN_HEADS = (
    *PLACE_HEADS, "structure", "ttft ms", "tpot ms", "request ms", "tokens/s", "CPU s", "n",
)  # fmt: skip
STRUCTURE_HEADS = (
    *PLACE_HEADS, "first token earlier by", "tokens/s", "tokens/s after the first",
)  # fmt: skip
SPLIT_HEADS = (
    *PLACE_HEADS, "structure", "speculation", "whole", "structure's share", "drafts of",
    "decoder-only drafts", "both draft",
)  # fmt: skip
MEMORY_HEADS = (
    "size", "weights", "device", "structure", "parameters", "bundle MB", "loaded MB", "peak MB",
)  # fmt: skip


def plain_rows(found: Sequence[Comparison]) -> Iterable[Sequence[str]]:
    for one in found:
        for name in STRUCTURES:
            mine = one.figures[name]
            yield (
                *map(str, one.place), name, spread(mine.ttft_ms), spread(mine.tpot_ms),
                spread(mine.e2e_ms), f"{mine.tokens_per_second:.1f}",
                f"{mine.cpu_seconds.median:.2f}", str(mine.repetitions),
            )  # fmt: skip


def structure_rows(found: Sequence[Comparison]) -> Iterable[Sequence[str]]:
    for one in found:
        yield (
            *map(str, one.place), f"{100 * one.ttft_saved:.0f} %", f"{one.throughput:.2f}×",
            f"{one.decoding:.2f}×",
        )  # fmt: skip
    yield (
        "the paper", *[""] * (len(PLACE_HEADS) - 1), f"{100 * PAPER_TTFT:.0f} %",
        f"{PAPER_THROUGHPUT}×", "",
    )  # fmt: skip


def split_rows(found: Sequence[Comparison]) -> Iterable[Sequence[str]]:
    for one in found:
        split = one.split
        share = split.structure_share
        yield (
            *map(str, one.place), f"{split.structure:.2f}×", f"{split.speculation:.2f}×",
            f"{split.whole:.2f}×", "–" if share is None else f"{100 * share:.0f} %",
            str(one.gains[STRUCTURES[0]].nodes), f"{one.speculation(STRUCTURES[1]):.2f}×",
            f"{one.both_speculate:.2f}×",
        )  # fmt: skip


def memory_row(one: Subject) -> Sequence[str]:
    return (
        one.size, one.precision, one.device, one.structure, f"{one.parameters / 1e6:.1f} M",
        f"{one.bundle / MB:.0f}", f"{one.loaded / MB:.0f}",
        "–" if one.peak is None else f"{one.peak / MB:.0f}",
    )  # fmt: skip


def acceptance_words(study: Study) -> str:
    found = study.acceptance
    return (
        f"*structure* is measured. *speculation* is computed: acceptance is that of "
        f"{found.origin} ({found.calls} decode calls, {found.tokens_per_call:.2f} tokens a call, "
        f"asking took {1e6 * found.draft_seconds:.0f} µs), the cost of a call is that of the model "
        "in the row, measured behind its source. *whole* is their product, a decoder-only model "
        "that decodes plainly against an encoder-decoder that drafts; the share is the structure's "
        "part of its logarithm. *both draft* is what the structure gains when either may, at the "
        "same acceptance. Drafts of 0 tokens: it pays not to speculate."
    )


def spread(one: Spread) -> str:
    digits = 2 if one.median < 10 else 1 if one.median < 100 else 0
    low, high = f"{one.low:.{digits}f}", f"{one.high:.{digits}f}"
    return f"{one.median:.{digits}f} ({low}–{high})"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plots(study: Study) -> dict[str, str]:
    """SVG by the plot's name: over source length, at the longest output."""
    found = [one for one in comparisons(study) if one.place[4] == max(study.settings.outputs)]
    places = dict.fromkeys(one.place[:3] for one in found)
    pictures: dict[str, str] = {}
    for name, (title, number) in PLOTS.items():
        panels = [
            panel(" ".join(place), [one for one in found if one.place[:3] == place], number)
            for place in places
        ]
        if panels:
            pictures[name] = figure(panels, "source tokens", title)
    return pictures


def panel(title: str, found: Sequence[Comparison], number: Callable[[Figures], Spread]) -> Panel:
    """Both structures at one place."""

    def points(structure: str) -> tuple[Point, ...]:
        spreads = [(one.place[3], number(one.figures[structure])) for one in found]
        return tuple(Point(x=x, y=s.median, low=s.low, high=s.high) for x, s in spreads)

    return Panel(title=title, lines=tuple((name, points(name)) for name in STRUCTURES))
