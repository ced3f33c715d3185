"""``edgegen compare``: two saved profiles against each other, and an exit status for a gate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from msgspec import to_builtins
from typer import Argument, Exit, Option

from .console import print_json, stdout, table
from .lists import words

if TYPE_CHECKING:
    from edgegen.profiles.compare import Change

HELP = """Compare two profiles: which numbers changed by more than a threshold, and which way.

Takes files that edgegen profile --json wrote on one machine, and compares what both hold: the same
bundle, device, threads, precision, case, drafter and inputs. A time counts as changed where the
spreads of its repetitions do not overlap either. Exit status: 0 nothing is worse; 1 something is
slower or larger, or could not be measured again; 2 the files cannot be compared. edgegen profile
compare is the same.

  edgegen profile bundles/en-pt --json > before.json
  edgegen profile bundles/en-pt --json > after.json
  edgegen compare before.json after.json --threshold 1.2 \\
    --metric tpot_ms,ttft_ms
"""
Before = Annotated[Path, Argument(metavar="BEFORE", help="A profile.", show_default=False)]
After = Annotated[Path, Argument(metavar="AFTER", help="A later one.", show_default=False)]
Threshold = Annotated[
    float, Option(metavar="RATIO", help="Ratio from which a change counts: 1.1 is 10 %.")
]
Metric = Annotated[
    str | None,
    Option(
        metavar="LIST", help="Numbers to compare. Default: all times and sizes.", show_default=False
    ),
]
Every = Annotated[bool, Option("--all", metavar="", help="Show what did not change too.")]
Json = Annotated[bool, Option("--json", metavar="", help="Print JSON.")]


def compare(
    before: Before,
    after: After,
    threshold: Threshold = 1.1,
    metric: Metric = None,
    every: Every = False,
    as_json: Json = False,
) -> None:
    from edgegen.profiles import Profile
    from edgegen.profiles.compare import METRICS
    from edgegen.profiles.compare import compare as ratios_of

    found = ratios_of(
        Profile.load(before), Profile.load(after), threshold, words(metric or "") or METRICS
    )
    shown = found.ratios if every else found.changes
    if as_json:
        missing = to_builtins(found.missing)
        print_json({"changes": [*map(_record, shown)], "missing": missing, "notes": found.notes})
    else:
        _print(shown)
        told = f"{len(found.ratios)} ratios, {len(found.worse)} worse by more than {threshold:g}x."
        for line in (told, *found.notes):
            stdout().print(line, markup=False, highlight=False, soft_wrap=True)
    if found.worse or found.missing:
        raise Exit(1)


def _record(change: Change) -> dict[str, object]:
    from edgegen.profiles.compare import KEY

    numbers = {"before": change.before, "after": change.after, "ratio": change.ratio}
    where = dict(zip(KEY, change.key, strict=True))
    return {**where, "metric": change.name, **numbers, "verdict": change.verdict}


def _print(changes: tuple[Change, ...]) -> None:
    if not changes:
        return
    from rich.text import Text

    shown = table("where", "number", "before", "after", "ratio", "")
    for one in changes:
        numbers = (f"{one.before:.3f}", f"{one.after:.3f}", f"{one.ratio:.2f}x")
        style = "bold red" if one.worse else ""
        shown.add_row(Text(one.where), one.name, *numbers, Text(one.verdict or "same", style=style))
    stdout().print(shown)
