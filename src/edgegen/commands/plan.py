"""``edgegen profile --plan``: where the parts of a bundle run best here, measured and written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from msgspec import to_builtins
from typer import Context, Option

from edgegen.errors import InputError

from .console import print_json, stdout
from .lists import numbers, words

PLAN = "Plan"

Plan = Annotated[
    bool,
    Option(
        "--plan", metavar="", rich_help_panel=PLAN,
        help="Find the fastest place for each part of one bundle, among the devices of -d.",
    ),
]  # fmt: skip
Goal = Annotated[
    str,
    Option(
        "--for", metavar="GOAL", rich_help_panel=PLAN,
        help="What is to be least: ttft, tpot, or energy (processor seconds, a proxy).",
    ),
]  # fmt: skip
MemoryLimit = Annotated[
    float | None,
    Option(metavar="MB", rich_help_panel=PLAN, show_default=False,
           help="Memory the parts may take in all. Default: any."),
]  # fmt: skip
DraftModel = Annotated[
    Path | None,
    Option(metavar="DIR", rich_help_panel=PLAN, show_default=False,
           help="Bundle of a smaller model to draft with, tried on each device."),
]  # fmt: skip
Write = Annotated[
    bool,
    Option("--write", metavar="", rich_help_panel=PLAN,
           help="Keep the plan in the user's cache, where edgegen run finds it."),
]  # fmt: skip
Placement = Annotated[
    Path | None,
    Option(metavar="FILE", rich_help_panel=PLAN, show_default=False,
           help="Write the plan to this file, for edgegen run --placement."),
]  # fmt: skip


# What only a plan takes, and what it has no use for.
OF_PLANS = ("goal", "memory_limit", "draft_model", "write", "placement")
OF_SWEEPS = (
    "texts", "warm_ups", "draft", "num_assistant_tokens", "engine", "html", "save", "kind",
)  # fmt: skip


def check_typed(context: Context) -> None:
    """Raises ``InputError`` for an option that would change nothing."""
    planned = context.params["plan"]
    idle = OF_SWEEPS if planned else OF_PLANS
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if option.name in idle and source is not None and source.name == "COMMANDLINE":
            spelled = max(option.opts, key=len)
            raise InputError(f"{spelled} is {'not for a plan' if planned else 'for --plan'}.")


def planning(typed: dict[str, Any]) -> None:
    """Measure, print why, and write what was asked for, with the options as they were typed."""
    from edgegen.bundle import Bundle
    from edgegen.devices import DeviceOptions
    from edgegen.profiles.placing import Planning, plan
    from edgegen.runtime.placement import usual_file, write_plan

    from .stages import Stages

    bundle = one("bundle", typed["bundles"])
    audio = typed["audio"] or [None]
    precision = words(typed["precision"] or "") or (None,)
    asked = Planning(
        bundle=bundle,
        devices=words(typed["device"]),
        threads=one("--threads", numbers("--threads", typed["threads"])),
        precision=one("--precision", precision),
        exact=typed["exact"],
        source_tokens=one("--prompts", numbers("--prompts", typed["prompts"] or "128")),
        new_tokens=one("--new-tokens", numbers("--new-tokens", typed["new_tokens"])),
        goal=typed["goal"],
        memory_limit_mb=typed["memory_limit"],
        draft_model=typed["draft_model"],
        audio=one("--audio", audio),
        rounds=typed["repetitions"],
    )
    with Stages() as stages:
        found = plan(asked, stages)
    files = [typed["placement"]] if typed["placement"] else []
    if typed["write"]:
        options = DeviceOptions(threads=asked.threads, exact=asked.exact)
        files.append(usual_file(Bundle.open(bundle, verify=False), options))
    for file in files:
        write_plan(found, file)
    if typed["as_json"]:
        print_json(to_builtins(found))
        return
    console = stdout()
    for line in (*found.reasons, *(f"written to {file}" for file in files)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def one(name: str, given: Any) -> Any:
    """The only one. Raises ``InputError`` for several, since a plan is for one case."""
    if len(given) != 1:
        raise InputError(f"{name}: a plan is for one, got {len(given)}; give one.")
    return given[0]
