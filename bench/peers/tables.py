"""Results as Markdown: a table at one thread, one with each at its best, what agreed, what was
missing, and from which versions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .agreement import agreement, reference_of
from .metrics import METRICS, Spread, best_peer, best_threads, ratio, spread
from .record import Entry, Results, Turn, WorkRecord, contestants

# Idle workers may take this share of a turn's time before the table says so.
DISTURBED = 0.02


def markdown(results: Results) -> str:
    """The whole report."""
    parts = [part for work in results.works for part in section(work)]
    head = ["# edgegen beside its peers", "", *machine(results), ""]
    return "\n".join([*head, *parts, *versions(results)]) + "\n"


def machine(results: Results) -> list[str]:
    computer = results.machine
    said = [
        f"{computer.processor}, {computer.cores} cores, {computer.memory / 1e9:.0f} GB, "
        f"{computer.system}, Python {computer.python}; {results.created}.",
        "Medians of rounds and, in brackets, their range. A ratio is taken within each round, where"
        " every contestant had one turn in shuffled order; shown is the median of those. Above 1×"
        " the row is faster (or smaller) than what it is compared with.",
    ]
    if results.quick:
        said.append("**One round, to see that everything runs: the times mean nothing.**")
    return said


def section(work: WorkRecord) -> Iterator[str]:
    yield f"## {work.title}"
    yield ""
    counts = sorted({entry.threads for entry in work.entries})
    yield f"Rounds: {work.rounds}. Compared by {METRICS[work.metrics[0]].title}."
    yield ""
    for count in counts[:1]:
        entries = [entry for entry in work.present if entry.threads == count]
        if entries:
            yield from table(work, entries, f"{count} thread{'s' if count > 1 else ''}")
    if len(counts) > 1:
        names = dict.fromkeys(entry.contestant for entry in work.present)
        best = [best_threads(work, name, work.metrics[0]) for name in names]
        yield from table(work, [one for one in best if one], "each at its best number of threads")
    yield from agreements(work)
    yield from missing(work)
    yield from disturbances(work)


def table(work: WorkRecord, entries: Sequence[Entry], heading: str) -> Iterator[str]:
    """One row a contestant, the ratio to the work's peer and to the best peer last."""
    by = work.metrics[0]
    named = next((one for one in entries if one.contestant == work.against), None)
    best = best_peer(entries, by)
    ratios = [(f"× {one.contestant}", one) for one in (named, best) if one is not None]
    ratios = list(dict(ratios).items())
    titles = [f"{METRICS[name].title}, {METRICS[name].unit}" for name in work.metrics]
    yield f"### {heading[0].upper()}{heading[1:]}"
    yield ""
    yield row(["contestant", "threads", *titles, *(title for title, _ in ratios), "model, MB"])
    yield row(["---", *["---:"] * (2 + len(titles) + len(ratios))])
    for entry in entries:
        numbers = [spread_text(spread(entry, name)) for name in work.metrics]
        times = [ratio_text(ratio(entry, other, by)) for _, other in ratios]
        name = f"**{entry.contestant}**" if entry.ours else entry.contestant
        size = f"{entry.size / 1e6:.1f}" if entry.size else "–"
        yield row([name, str(entry.threads), *numbers, *times, size])
    yield ""


def agreements(work: WorkRecord) -> Iterator[str]:
    reference = reference_of(work)
    if reference is None:
        return
    yield f"Agreement with {reference.contestant}, {reference.threads} thread(s):"
    yield ""
    yield row(["contestant", "threads", "agreement", "note"])
    yield row(["---", "---:", "---", "---"])
    for entry in work.present:
        found = agreement(work, entry)
        said = str(found) if found else "nothing was made"
        said = f"**{said}**" if found and found.flagged else said
        yield row([entry.contestant, str(entry.threads), said, entry.note])
    yield ""


def missing(work: WorkRecord) -> Iterator[str]:
    """A line for each reason, with the numbers of threads it held for."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for entry in work.entries:
        if entry.missing:
            reasons.setdefault((entry.contestant, entry.missing), []).append(str(entry.threads))
    for (name, why), threads in reasons.items():
        yield f"- not available: {name} ({' and '.join(threads)} threads): {why}"
    if reasons:
        yield ""


def disturbances(work: WorkRecord) -> Iterator[str]:
    """Turns in which workers that should have slept did not."""
    worst = max(
        ((share(turn), entry) for entry in work.present for turn in entry.turns),
        key=lambda pair: pair[0],
        default=None,
    )
    if worst is not None and worst[0] > DISTURBED:
        yield (
            f"- idle workers took {worst[0]:.0%} of a core during a turn of {worst[1].contestant}"
        )
        yield ""


def share(turn: Turn) -> float:
    seconds = turn.start_seconds + sum(part.seconds for part in turn.parts.values())
    # The system counts in hundredths of a second: less than two of them are no finding.
    spent = turn.others_cpu_seconds if turn.others_cpu_seconds > 0.02 else 0.0
    return spent / seconds if seconds else 0.0


def versions(results: Results) -> Iterator[str]:
    yield "## Versions"
    yield ""
    lines = {
        ", ".join(f"{name} {number}" for name, number in entry.versions.items()): entry.peer
        for entry in contestants(results.works)
        if entry.versions
    }
    for said, peer in sorted(lines.items(), key=lambda pair: pair[1]):
        yield f"- {peer}: {said}"


def row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def spread_text(found: Spread | None) -> str:
    if found is None:
        return "–"
    if found.least == found.most:
        return number(found.median)
    return f"{number(found.median)} [{number(found.least)}–{number(found.most)}]"


def ratio_text(found: Spread | None) -> str:
    return f"{found.median:.2f}×" if found else "–"


def number(value: float) -> str:
    """Three significant digits, no exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
