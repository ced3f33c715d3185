"""Device by precision: one number a pair, the darker the slower."""

from __future__ import annotations

from collections import defaultdict
from html import escape
from statistics import fmean

from ..record import Profile
from ..report import significant
from ..summary import Summary
from .section import Section
from .view import parts_of

TITLE = "Device by precision"
WIDTHS = ("fp32", "bf16", "fp16", "int8", "int4")


def heatmap(profile: Profile) -> Section:
    """Time per token of plain decoding, mean over cases; a table, so that it can be read out."""
    cells: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for one in profile.summaries:
        if one.drafter == "none" and one.times["tpot_ms"].median:
            cells[_row(profile, one), one.run.subject.weight_format].append(
                one.times["tpot_ms"].median
            )
    if len(cells) < 2:
        return Section(
            title=TITLE,
            says="Needs two devices or two precisions: -d ort-cpu,ov-cpu, or the bundles of "
            "several precisions side by side.",
        )
    found = {key: fmean(values) for key, values in cells.items()}
    best, worst = min(found, key=found.__getitem__), max(found, key=found.__getitem__)
    says = (
        f"Fastest is {best[1]} on {best[0]} with {significant(found[best])} ms a token, slowest "
        f"{worst[1]} on {worst[0]} with {significant(found[worst])} ms "
        f"({found[worst] / found[best]:.1f} times that). Mean over cases of the median time per "
        "token, plain decoding; a dash was not measured."
    )
    return Section(title=TITLE, says=says, body=_table(found))


def _row(profile: Profile, one: Summary) -> str:
    """A device, and of which model where there are several."""
    models = {run.subject.source for run in profile.runs}
    parts = parts_of(one)
    many = len({run.place.threads for run in profile.runs}) > 1
    words = [
        one.run.subject.source if len(models) > 1 else "",
        parts["device"],
        parts["threads"] if many else "",
        parts["machine"],
    ]
    return " · ".join(filter(None, words))


def _table(found: dict[tuple[str, str], float]) -> str:
    rows = list(dict.fromkeys(row for row, _ in found))
    known = {name: at for at, name in enumerate(WIDTHS)}
    columns = sorted({one for _, one in found}, key=lambda one: (known.get(one, 99), one))
    low, high = min(found.values()), max(found.values())
    head = "".join(f'<th scope="col">{escape(one)}</th>' for one in columns)
    body = ""
    for row in rows:
        cells = "".join(_cell(found.get((row, one)), low, high) for one in columns)
        body += f'<tr><th scope="row">{escape(row)}</th>{cells}</tr>'
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Device by precision">'
        '<table class="heat"><caption>time per token (ms)</caption><thead><tr><th scope="col">'
        f"device \\ precision</th>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(value: float | None, low: float, high: float) -> str:
    if value is None:
        return '<td class="none">–</td>'
    share = (value - low) / (high - low) if high > low else 0.0
    kind = "dark" if share > 0.55 else "light"
    return f'<td class="{kind}" style="--share:{100 * share:.0f}%">{significant(value)}</td>'
