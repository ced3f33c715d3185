"""``edgegen study``: what a structure costs, by models of random weights made for the question."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from edgegen.errors import BundleError, UnknownName

from .console import stderr
from .lists import numbers, words

if TYPE_CHECKING:
    from edgegen.profiles.study import Settings

HELP = """Measure a structure with random models made for it: encoder-decoder.

An encoder-decoder and a decoder-only model of as many parameters and the same layers, two thirds
of them the encoder's, run in turns on every device here, in float32 and in 8 bits. What drafts
would add is computed from a real model's acceptance (--acceptance) and what calls cost here.
Results are kept after every step: the same command goes on where it stopped. docs/study.md tells
what is compared, and how.

  edgegen study encoder-decoder --quick
  edgegen study encoder-decoder -t 2 -o study.json --report docs/study.md
  edgegen study encoder-decoder -d ort-cpu --sizes 30m -p 128,512 -n 64

Needs pip install 'edgegen\\[export]'.
"""
STUDIES = ["encoder-decoder"]
WHAT, HOW = "What to measure", "Where and how"
# Small enough to see that all of it works; of no other worth.
QUICK: dict[str, Any] = {
    "sizes": ("tiny",), "sources": (16, 48), "outputs": (4, 8), "fewest": 2, "most": 3,
    "seconds": 1.0,
}  # fmt: skip

Name = Annotated[str, Argument(metavar="STUDY", help="encoder-decoder.", show_default=False)]
Output = Annotated[
    Path | None,
    Option("-o", "--output", metavar="FILE", help="Results, and where to go on from. Default: "
           "study.json in edgegen's cache.", show_default=False),
]  # fmt: skip
Report = Annotated[
    Path | None,
    Option(metavar="FILE.md", help="Page to put tables and plots in, between its two marks.",
           show_default=False),
]  # fmt: skip
Quick = Annotated[
    bool, Option("--quick", metavar="", help="Tiny models and lengths: whether all of it works.")
]
Sizes = Annotated[
    str | None,
    Option(metavar="LIST", help="Pairs: tiny, 30m, 300m. Default: 30m,300m.", show_default=False,
           rich_help_panel=WHAT),
]  # fmt: skip
Precisions = Annotated[
    str, Option("--precision", metavar="LIST", help="Weight formats.", rich_help_panel=WHAT)
]
Sources = Annotated[
    str | None,
    Option("-p", "--prompts", metavar="LIST", help="Source lengths in tokens. Default: "
           "128,512,1024.", show_default=False, rich_help_panel=WHAT),
]  # fmt: skip
Outputs = Annotated[
    str | None,
    Option("-n", "--new-tokens", metavar="LIST", help="Output lengths. Default: 32,128.",
           show_default=False, rich_help_panel=WHAT),
]  # fmt: skip
Acceptance = Annotated[
    Path | None,
    Option(metavar="FILE", help="A profile with drafts (edgegen profile --draft lookup --json), "
           "whose acceptance is used. Default: a proofreader's.", show_default=False,
           rich_help_panel=WHAT),
]  # fmt: skip
Devices = Annotated[
    str | None,
    Option("-d", "--device", metavar="LIST", help="Names that edgegen devices lists. Default: all "
           "that can be used.", show_default=False, rich_help_panel=HOW),
]  # fmt: skip
Threads = Annotated[
    int, Option("-t", "--threads", metavar="N", help="Processor threads.", rich_help_panel=HOW)
]
Seconds = Annotated[
    float | None,
    Option(metavar="S", help="How long a pair is repeated at one length, at least three times. "
           "Default: 60.", show_default=False, rich_help_panel=HOW),
]  # fmt: skip


def study(
    name: Name,
    output: Output = None,
    report: Report = None,
    quick: Quick = False,
    sizes: Sizes = None,
    precision: Precisions = "fp32,int8",
    prompts: Sources = None,
    new_tokens: Outputs = None,
    acceptance: Acceptance = None,
    device: Devices = None,
    threads: Threads = 1,
    seconds: Seconds = None,
) -> None:
    from edgegen.devices import DEVICES
    from edgegen.profiles.study import Settings
    from edgegen.registry import unknown

    if name not in STUDIES:
        raise UnknownName(unknown("study", name, STUDIES))
    said: dict[str, Any] = {
        "sizes": words(sizes or ""),
        "precisions": words(precision),
        "sources": numbers("--prompts", prompts or ""),
        "outputs": numbers("--new-tokens", new_tokens or ""),
        "devices": words(device or ",".join(DEVICES)),
        "seconds": seconds,
    }
    chosen = {key: value for key, value in said.items() if value}
    settings = Settings(threads=threads, **{**(QUICK if quick else {}), **chosen})
    measured(settings, acceptance, output or default_output(quick), report)


def measured(
    settings: Settings, acceptance: Path | None, output: Path, report: Path | None
) -> None:
    from edgegen.profiles.study import acceptance as accepted
    from edgegen.profiles.study import page
    from edgegen.profiles.study import study as measure

    from .stages import Stages

    # A profile that cannot be read is said before hours of measuring.
    known = accepted.recorded() if acceptance is None else accepted.read(acceptance)
    output.parent.mkdir(parents=True, exist_ok=True)
    with Stages() as stages:
        found = measure(settings, random_bundle, known, output, stages)
    if report is None:
        print(page.markdown(found), end="")
    else:
        for path in page.put(found, report):
            stderr().print(f"wrote {path}")


def default_output(quick: bool) -> Path:
    from edgegen.runtime.calibration import user_cache

    return user_cache() / "study" / ("quick.json" if quick else "study.json")


def random_bundle(structure: str, size: str, precision: str, device: str) -> Path:
    """The bundle of a random model in edgegen's cache, exported if it is not there.

    Not held against torch, which takes long at these sizes: the families are, by the tests.
    """
    from edgegen import __version__
    from edgegen.bundle import Bundle
    from edgegen.devices import device_named
    from edgegen.export.build import export
    from edgegen.export.options import ExportOptions
    from edgegen.runtime.calibration import user_cache

    kind: Any = device_named(device).limits.formats[0]
    weight_format: Any = precision
    name = f"{structure}-{size}-{precision}-{kind}"
    path = user_cache() / "study" / __version__ / name
    try:
        Bundle.open(path)
    except BundleError:
        path.parent.mkdir(parents=True, exist_ok=True)
        model = f"random:{structure}-{size}"
        options = ExportOptions(
            model=model,
            output=path,
            formats=(kind,),
            weight_format=weight_format,
            parity=False,
            command=f"edgegen export -m {model} --format {kind} --weight-format {precision}",
        )
        export(options)
    return path
