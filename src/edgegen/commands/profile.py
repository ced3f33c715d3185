"""``edgegen profile``: times and memory of bundles on devices, measured here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Context, Option

from edgegen.errors import InputError, UnknownName

from . import plan as plans
from .console import stdout
from .lists import numbers, words

if TYPE_CHECKING:
    from edgegen.profiles import Profile

HELP = """Measure time to first token, time per token, memory and size of bundles on this machine.

Each bundle, device, precision and number of threads runs in a process of its own; one warm-up and
five repetitions, medians with their spread. Prompts have exactly the lengths -p asks for and give
exactly -n tokens, so that runs compare; texts and audio run to the model's own end. With --draft
plain decoding is measured in turns with it, and the speed-up and equal tokens reported.
With --plan each part of one bundle is timed on every device, and the best place for each, with or
without drafts, is told; --write or --placement FILE keeps it (docs/placement.md).
Saved profiles (.json files) in place of folders are read and nothing is measured.
docs/metrics.md defines every number, docs/profiling.md shows the reports.

  edgegen profile bundles/en-pt
  edgegen profile bundles/en-pt -d ort-cpu,ov-cpu -t 1,4 -p 32,128 -n 64
  edgegen profile bundles/asr --audio talk.wav -d ort-cpu,ov-cpu
  edgegen profile bundles/en-pt --texts short --draft lookup
  edgegen profile bundles/en-pt bundles/en-pt-int4 -o md > report.md
  edgegen profile bundles/* -p 32,128 -n 16,64 --draft lookup \\
    --save all.json --html all.html
  edgegen profile all.json --html all.html
  edgegen profile bundles/en-pt -d all --plan --for ttft -p 32 -n 32 --write
"""
WHAT, HOW = "What to run", "Where and how"

Bundles = Annotated[
    list[Path],
    Argument(
        metavar="DIR", help="Bundle folders; or saved profiles, to show again.", show_default=False
    ),
]
Prompts = Annotated[
    str | None,
    Option(
        "-p", "--prompts", metavar="LIST",
        help="Prompt lengths in tokens of the encoder's input (of the prompt, without an "
        "encoder). Default: 128, where no texts or audio are given.",
        show_default=False, rich_help_panel=WHAT,
    ),
]  # fmt: skip
NewTokens = Annotated[
    str,
    Option("-n", "--new-tokens", metavar="LIST", help="Tokens each prompt gives.",
           rich_help_panel=WHAT),
]  # fmt: skip
Texts = Annotated[
    str | None,
    Option(
        metavar="NAME", help='Texts to run: "short" or "prose", or a JSONL file of {"text": ...}.',
        show_default=False, rich_help_panel=WHAT,
    ),
]  # fmt: skip
Audio = Annotated[
    list[Path] | None,
    Option(metavar="FILE", help="Audio to transcribe. May be repeated.", show_default=False,
           rich_help_panel=WHAT),
]  # fmt: skip
Devices = Annotated[
    str,
    Option("-d", "--device", "--devices", metavar="LIST", rich_help_panel=HOW,
           help="Names that edgegen devices lists; all: those that are here."),
]  # fmt: skip
Threads = Annotated[
    str, Option("-t", "--threads", metavar="LIST", help="Processor threads.", rich_help_panel=HOW)
]
Repetitions = Annotated[
    int, Option("-r", "--repetitions", metavar="N", help="Measured rounds.", rich_help_panel=HOW)
]
WarmUps = Annotated[
    int, Option("--warm-ups", metavar="N", help="Rounds before, left out.", rich_help_panel=HOW)
]
Drafters = Annotated[
    str,
    Option("--draft", metavar="LIST", help="Drafters to measure against plain decoding.",
           rich_help_panel=HOW),
]  # fmt: skip
NumAssistantTokens = Annotated[
    int | None,
    Option(metavar="N", help="Tokens a drafter guesses at a time. Default: edgegen's choice.",
           show_default=False, rich_help_panel=HOW),
]  # fmt: skip
Precision = Annotated[
    str | None,
    Option(metavar="LIST", help="Weight formats, where a bundle has several. Default: the "
           "narrowest.", show_default=False, rich_help_panel=HOW),
]  # fmt: skip
Exact = Annotated[
    bool,
    Option("--exact/--fast", metavar="", help="Float arithmetic in float32, or in what the "
           "device does faster. Default: exact.", show_default=False, rich_help_panel=HOW),
]  # fmt: skip
Kind = Annotated[
    str,
    Option("-o", "--output-format", metavar="KIND", help="table, json, csv, md or html."),
]
Engine = Annotated[
    str,
    Option(metavar="NAME", help="Where the sweep runs: local, or ray for the nodes of a cluster.",
           rich_help_panel=HOW),
]  # fmt: skip
Html = Annotated[
    Path | None,
    Option("--html", metavar="FILE", help="Write a page with charts too.", show_default=False),
]
Save = Annotated[
    Path | None,
    Option("--save", metavar="FILE", help="Write the JSON too, for compare and --html.",
           show_default=False),
]  # fmt: skip
Json = Annotated[
    bool, Option("--json", metavar="", help="Short for -o json: every step of every run.")
]


def profile(
    ctx: Context,
    bundles: Bundles,
    prompts: Prompts = None,
    new_tokens: NewTokens = "64",
    texts: Texts = None,
    audio: Audio = None,
    device: Devices = "ort-cpu",
    threads: Threads = "1",
    repetitions: Repetitions = 5,
    warm_ups: WarmUps = 1,
    draft: Drafters = "none",
    num_assistant_tokens: NumAssistantTokens = None,
    precision: Precision = None,
    exact: Exact = True,
    engine: Engine = "local",
    html: Html = None,
    save: Save = None,
    kind: Kind = "table",
    as_json: Json = False,
    plan: plans.Plan = False,
    goal: plans.Goal = "tpot",
    memory_limit: plans.MemoryLimit = None,
    draft_model: plans.DraftModel = None,
    write: plans.Write = False,
    placement: plans.Placement = None,
) -> None:
    plans.check_typed(ctx)
    if plan:
        plans.planning(ctx.params)
        return
    from edgegen.profiles import profile as measure

    from .stages import Stages

    kind = known_kind("json" if as_json else kind)
    if saved(bundles):
        report(read(bundles), kind, html, save)
        return
    with Stages() as stages:
        found = measure(
            bundles,
            words(device),
            numbers("--prompts", prompts or ""),
            numbers("--new-tokens", new_tokens),
            repetitions,
            numbers("--threads", threads),
            words(draft),
            texts=texts,
            audio=audio or (),
            warmups=warm_ups,
            num_assistant_tokens=num_assistant_tokens,
            precision=words(precision or ""),
            exact=exact,
            engine=engine,
            progress=stages,
        )
    report(found, kind, html, save)


def saved(paths: list[Path]) -> bool:
    """Whether saved profiles are given. Raises ``InputError`` where bundles are among them."""
    files = [path.suffix == ".json" and not path.is_dir() for path in paths]
    if any(files) and not all(files):
        raise InputError("bundle folders and saved profiles (.json) are not taken together.")
    return any(files)


def read(paths: list[Path]) -> Profile:
    from edgegen.profiles import Profile
    from edgegen.profiles.measure import merge

    return merge([Profile.load(path) for path in paths])


def report(found: Profile, kind: str, html: Path | None, save: Path | None) -> None:
    """Files first: what was measured is kept, whatever becomes of standard output."""
    from edgegen.profiles.report import tables, write

    if save is not None:
        found.save(save)
    if html is not None:
        html.write_text(write(found, "html"), encoding="utf-8")
    if kind == "table":
        stdout().print(tables(found))
    else:
        print(write(found, kind), end="")


def known_kind(kind: str) -> str:
    """Raises ``UnknownName`` before minutes of measuring, not after."""
    from edgegen.profiles.report import WRITERS
    from edgegen.registry import unknown

    kinds = ["table", *WRITERS]
    if kind not in kinds:
        raise UnknownName(unknown("report format", kind, kinds))
    return kind
