"""Results as bars: one picture a work, edgegen in another colour, whiskers over the rounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .metrics import METRICS, Spread, best_threads, spread
from .record import Entry, Results, WorkRecord

OURS, PEERS = "#1a7f64", "#9aa5b1"
KINDS = ("svg", "png")


def draw(results: Results, stem: Path) -> list[Path]:
    """A figure of all works in each file format; none where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return []
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    shown = [(work, rows) for work in results.works if (rows := bars(work))]
    if not shown:
        return []
    heights = [1.0 + 0.28 * len(rows) for _, rows in shown]
    figure = Figure(figsize=(9, sum(heights)), layout="constrained")
    axes = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0]
    for (work, rows), axis in zip(shown, axes, strict=True):
        values = [found.median for _, found in rows]
        low = [found.median - found.least for _, found in rows]
        high = [found.most - found.median for _, found in rows]
        axis.barh(
            [f"{entry.contestant} ({entry.threads})" for entry, _ in rows],
            values,
            xerr=[low, high],
            color=[OURS if entry.ours else PEERS for entry, _ in rows],
            error_kw={"linewidth": 0.8},
        )
        axis.invert_yaxis()
        metric = METRICS[work.metrics[0]]
        axis.set_title(work.title, fontsize=10, loc="left")
        axis.set_xlabel(f"{metric.title}, {metric.unit}; threads in brackets", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.bar_label(axis.containers[-1], fmt=" %.3g", fontsize=7)
    files = [stem.with_suffix(f".{kind}") for kind in KINDS]
    for file in files:
        figure.savefig(file, dpi=120)
    return files


def bars(work: WorkRecord) -> Sequence[tuple[Entry, Spread]]:
    """Each contestant at its best number of threads, the best first."""
    by = work.metrics[0]
    names = dict.fromkeys(entry.contestant for entry in work.present)
    entries = [best for name in names if (best := best_threads(work, name, by))]
    found = [(entry, one) for entry in entries if (one := spread(entry, by))]
    return sorted(found, key=lambda pair: pair[1].median)
