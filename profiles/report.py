"""A profile for people (a table, an HTML page) and for programs (JSON, CSV, Markdown).

All are made of the same summaries, so they agree; CSV and Markdown keep every digit they show.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edgegen.errors import UnknownName
from edgegen.registry import unknown

from .record import Memory, Profile, Run
from .summary import MB, Spread, Summary, Value, longest

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

# Column of Markdown: name of the number in a summary's row, and digits behind the point.
MARKDOWN: tuple[tuple[str, int], ...] = (
    ("bundle", 0),
    ("device", 0),
    ("threads", 0),
    ("precision", 0),
    ("case", 0),
    ("drafter", 0),
    ("ttft_ms", 2),
    ("request_ttft_ms", 2),
    ("tpot_ms", 3),
    ("tpot_ms_min", 3),
    ("tpot_ms_max", 3),
    ("decode_tps", 1),
    ("itl_ms_p50", 3),
    ("itl_ms_p95", 3),
    ("itl_ms_p99", 3),
    ("e2e_ms", 2),
    ("rtfx", 2),
    ("host_us", 1),
    ("load_ms", 1),
    ("rss_after_load_mb", 1),
    ("peak_rss_mb", 1),
    ("bundle_mb", 1),
    ("draft_acceptance_rate", 3),
    ("mean_acceptance_length", 2),
    ("acceptance_histogram", 0),
    ("draft_ms", 2),
    ("verify_ms", 2),
    ("reruns", 0),
    ("flips", 0),
    ("flip_rate", 5),
    ("speedup", 2),
    ("identical_to_plain", 0),
    ("lossless", 0),
    ("repeatable", 0),
)


def write(profile: Profile, kind: str) -> str:
    """The profile as ``json``, ``csv`` or ``md``. Raises ``UnknownName``."""
    if kind not in WRITERS:
        raise UnknownName(unknown("report format", kind, list(WRITERS)))
    return WRITERS[kind](profile)


def to_json(profile: Profile) -> str:
    """All records, and the summaries beside them."""
    return profile.to_json().decode()


def to_csv(profile: Profile) -> str:
    """A line a summary, every number at full precision; empty where it was not measured."""
    rows = [summary.row() for summary in profile.summaries]
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def to_markdown(profile: Profile) -> str:
    """A table for documents, with the machine and the date under it."""
    rows = [summary.row() for summary in profile.summaries]
    names = [name for name, _ in MARKDOWN]
    lines = [_line(names), _line(["---"] * len(names))]
    for row in rows:
        lines.append(_line([shown(row[name], digits) for name, digits in MARKDOWN]))
    return "\n".join([*lines, "", *notes(profile)]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def shown(value: Value, digits: int) -> str:
    """A value in a table; a dash where it was not measured."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def to_html(profile: Profile) -> str:
    """One page with charts that needs nothing besides itself."""
    from .html import page

    return page(profile)


WRITERS: dict[str, Callable[[Profile], str]] = {
    "json": to_json,
    "csv": to_csv,
    "md": to_markdown,
    "html": to_html,
}


def notes(profile: Profile) -> list[str]:
    """What a reader must know beside the numbers: the machine, and whatever went wrong."""
    machine = profile.machine
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    found = [
        f"{machine.processor}, {machine.system}, Python {machine.python}, {versions}; "
        f"{profile.created}.",
        "Medians; low-high are the ends over all repetitions. TTFT is the model's own; request "
        "TTFT adds reading and tokenising.",
    ]
    for summary in profile.summaries:
        who = f"{summary.run.subject.name} on {summary.run.place.device}, {summary.case.name}, "
        who += summary.drafter
        if not summary.repeatable:
            found.append(f"NOT REPEATABLE: {who}: repetitions gave different tokens.")
        if summary.reruns:
            found.append(
                f"Rounding: {who}: {summary.reruns} rows were decided anew, {summary.flips} of "
                f"{summary.tokens_in_all} tokens became others ({summary.flip_rate:.2%})."
            )
        if summary.speculation is not None and not summary.speculation.identical:
            found.append(f"NOT PLAIN'S TOKENS: {who} ({summary.lossless}).")
    return [*found, *(f"Left out: {one}" for one in profile.missing)]


# ------------------------------------------------------------------ tables


def tables(profile: Profile) -> Group:
    """Everything for a terminal of 100 columns: times, loading and memory, notes."""
    from rich.console import Group
    from rich.text import Text

    told = [
        Text(line, style="bold red" if line[:4] == "NOT " else "dim") for line in notes(profile)
    ]
    return Group(times_table(profile.summaries), load_table(profile.runs), *told)


TIMES_COLUMNS = (
    "bundle", "device", "t", "prec", "case", "draft", "ttft", "req", "tpot", "low-high",
    "tok/s", "p95", "e2e", "speedup",
)  # fmt: skip


def times_table(summaries: Sequence[Summary]) -> Table:
    """A row a bundle, device, precision, length and drafter."""
    speech = any(summary.times["rtfx"].median for summary in summaries)
    columns = [*TIMES_COLUMNS[:-1], *(["rtfx"] if speech else []), TIMES_COLUMNS[-1]]
    title = "times in ms (ttft: the model's, req: the request's, p95: of the gaps between tokens)"
    table = _table(title, columns, left=("bundle", "device", "prec", "case", "draft"))
    for summary in summaries:
        subject, place, times = summary.run.subject, summary.run.place, summary.times
        told = summary.speculation
        cells = [
            subject.name,
            place.device,
            str(place.threads),
            subject.weight_format,
            summary.case.name,
            summary.drafter,
            significant(times["ttft_ms"].median),
            significant(times["request_ttft_ms"].median),
            significant(times["tpot_ms"].median),
            _ends(times["tpot_ms"]),
            significant(times["decode_tps"].median),
            significant(summary.itl_ms[95]),
            significant(times["e2e_ms"].median),
        ]
        cells += [significant(times["rtfx"].median)] if speech else []
        table.add_row(*cells, f"{told.speedup:.2f}x" if told else "-")
    return table


LOAD_COLUMNS = (
    "bundle", "device", "t", "prec", "disk", "load", "compile", "cached", "cold", "rss", "own",
    "mapped", "peak",
)  # fmt: skip


def load_table(runs: Sequence[Run]) -> Table:
    """A row a process: times of loading, and memory after it and at its highest."""
    title = "loading in ms (cold: from process start to a token), memory in MB"
    table = _table(title, LOAD_COLUMNS, left=("bundle", "device", "prec"))
    for run in runs:
        subject, place, load = run.subject, run.place, run.load
        cached = load.compile_cached_seconds
        peak = max((case.peak for case in run.cases if case.peak is not None), default=None)
        table.add_row(
            subject.name,
            place.device,
            str(place.threads),
            subject.weight_format,
            _mb(subject.size),
            significant(1e3 * load.load_seconds),
            significant(1e3 * longest(load.compile_seconds)),
            significant(1e3 * longest(cached)) if cached else "-",
            significant(1e3 * load.first_token_seconds) if load.first_token_seconds else "-",
            *_memory(load.after),
            _mb(peak),
        )
    return table


def _table(title: str, columns: Sequence[str], left: Sequence[str]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 0), show_edge=False
    )
    for name in columns:
        # Names of bundles and cases give way when it is narrow, never a number.
        table.add_column(
            name,
            justify="left" if name in left else "right",
            no_wrap=name not in ("bundle", "case"),
            overflow="fold",
        )
    return table


def significant(value: float) -> str:
    """Three figures, and no power of ten."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _ends(spread: Spread) -> str:
    return f"{significant(spread.low)}-{significant(spread.high)}"


def _mb(size: int | None) -> str:
    return "-" if size is None else f"{size / MB:.0f}"


def _memory(found: Memory) -> tuple[str, str, str]:
    return _mb(found.resident), _mb(found.anonymous), _mb(found.mapped)
