"""The page: a heading, the figures that matter most, the sections in the order of the questions."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from edgegen.errors import InputError

from ..record import Profile
from ..report import notes, significant
from ..summary import MB
from .acceptance import acceptance
from .heatmap import heatmap
from .lengths import tpot_by_output, ttft_by_source
from .loading import cold_and_warm, memory
from .pareto import pareto
from .section import Section
from .strip import strip
from .style import style
from .table import table
from .view import names_of
from .waterfall import waterfall

SECTIONS: tuple[Callable[[Profile], Section], ...] = (
    waterfall,
    strip,
    ttft_by_source,
    tpot_by_output,
    heatmap,
    pareto,
    acceptance,
    cold_and_warm,
    memory,
    table,
)
# Nothing is fetched and nothing runs, whatever a file that was read holds.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(profile: Profile) -> str:
    """The whole HTML file. Raises ``InputError`` where no request was measured."""
    if not profile.summaries or any(not one.repetitions for one in profile.summaries):
        raise InputError("the profile holds a run without a measured request; profile anew.")
    sections = [make(profile) for make in SECTIONS]
    # Those without data stand last, before the table that always has some.
    *charts, numbers = sections
    charts.sort(key=lambda one: not one.body)
    body = "".join(one.html() for one in (*charts, numbers))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(_title(profile))}</title>'
        f"<style>{style()}</style></head><body><main>{_head(profile)}{_figures(profile)}"
        f'<div class="sections">{body}</div>{_notes(profile)}</main></body></html>\n'
    )


def _title(profile: Profile) -> str:
    names = list(dict.fromkeys(run.subject.name for run in profile.runs))
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f"Profile of {', '.join(names[:2])}{more}"


def _head(profile: Profile) -> str:
    machine = profile.machine
    others = f" and {len(profile.machines)} other machines" if profile.machines else ""
    memory_gb = f"{machine.memory / 1e9:.0f} GB" if machine.memory else "memory unknown"
    where = f"{machine.processor}, {machine.cores} cores, {memory_gb}{others}"
    edition = machine.versions.get("edgegen", "")
    when = profile.created.replace("T", " ").replace("+00:00", " UTC")
    return (
        f"<header><h1>{escape(_title(profile))}</h1>"
        f"<p>{escape(where)} · {escape(when)} · edgegen {escape(edition)}</p></header>"
    )


def _figures(profile: Profile) -> str:
    """The best of each kind, and whose it is."""
    ones = profile.summaries
    names = dict(zip(map(id, ones), names_of(ones), strict=True))
    tpots = [one for one in ones if one.times["tpot_ms"].median]
    ups = [one for one in ones if one.speculation is not None]
    ttft = min(ones, key=lambda one: one.times["ttft_ms"].median)
    small = min(ones, key=lambda one: one.run.subject.size)
    found = [("First token", ttft.times["ttft_ms"].median, "ms", ttft)]
    if tpots:
        best = min(tpots, key=lambda one: one.times["tpot_ms"].median)
        found.append(("Per token", best.times["tpot_ms"].median, "ms", best))
        found.append(("Throughput", best.times["decode_tps"].median, "tokens/s", best))
    if ups:
        up = max(ups, key=lambda one: one.speculation.speedup if one.speculation else 0.0)
        found.append(("Speculation", up.speculation.speedup if up.speculation else 0.0, "×", up))
    found.append(("Smallest", small.run.subject.size / MB, "MB", small))
    items = "".join(
        f'<li><span class="what">{what}</span><b>{significant(value)}<small>{unit}</small></b>'
        f"<span>{escape(names[id(one)])}, {escape(one.case.name)}</span></li>"
        for what, value, unit, one in found
    )
    return f'<ul class="figures" aria-label="The best of each">{items}</ul>'


def _notes(profile: Profile) -> str:
    lines = "".join(
        f"<li{' class=bad' if line.startswith('NOT ') else ''}>{escape(line)}</li>"
        for line in notes(profile)
    )
    return f'<ul class="notes">{lines}</ul>'
