"""What the ledger compares: real models, in what precisions, on what inputs."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from text_proofs import sentences, with_slips

import edgegen
import edgegen.export
from edgegen.bundle import Bundle
from edgegen.errors import BundleError
from edgegen.export.build import export
from edgegen.export.options import ExportOptions, Format
from edgegen.export.sources.packages import fetch_package
from edgegen.runtime import audio
from edgegen.runtime.calibration import user_cache

ROOT = Path(__file__).resolve().parent.parent
# The folder that holds proofread-t5, which no package carries.
FOLDERS = Path(os.environ.get("EDGEGEN_MODELS", ROOT.parent / "shared" / "models"))
INPUTS = 30
DEVICES: dict[Format, str] = {"onnx": "ort-cpu", "openvino": "ov-cpu"}
# A format, and weights with what else is asked for: ``int8+integers``.
Graphs = tuple[Format, str]
INTEGERS: Graphs = ("onnx", "int8+integers")
ONNX: tuple[Graphs, ...] = (("onnx", "fp32"), ("onnx", "int8"), ("onnx", "int4"))
OPENVINO: tuple[Graphs, ...] = (("openvino", "fp32"), ("openvino", "int8"))
TASKS = (
    "Summarise this text in two sentences.",
    "Rewrite this text so that it is easier to read.",
    "Continue this text.",
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a pipeline generates from, and the options that belong to it."""

    given: Any
    options: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, kw_only=True)
class Model:
    """A checkpoint as ``edgegen export`` names it. ``draft`` is the model that drafts for it."""

    name: str
    checkpoint: str
    graphs: tuple[Graphs, ...]
    sources: Callable[[], Sequence[Source]]
    draft: str = ""


def translations() -> list[Source]:
    """Three sentences each."""
    texts = sentences()
    return [Source(given=" ".join(texts[10 + i :: 60][:3])) for i in range(INPUTS)]


def corrections() -> list[Source]:
    """Two sentences each, with letters swapped in every third word."""
    texts = with_slips([text for text in sentences() if len(text.split()) >= 8])
    return [Source(given=f"{texts[i]} {texts[i + INPUTS]}") for i in range(INPUTS)]


def prompts() -> list[str]:
    """Fifteen passages, each under two of the three tasks."""
    own = (ROOT / "bench" / "passages.txt").read_text(encoding="utf-8").split("\n")
    story = (ROOT / "tests" / "reading.txt").read_text(encoding="utf-8").split("\n")
    passages = [line for line in (*own, *story) if line]
    return [f"{TASKS[i % 3]}\n\n{passages[i // 2]}" for i in range(INPUTS)]


def conversations() -> list[Source]:
    return [Source(given=[{"role": "user", "content": text}]) for text in prompts()]


def continuations() -> list[Source]:
    return [Source(given=f"{text}\n\nAnswer:\n") for text in prompts()]


def clips() -> list[Source]:
    """Up to fifteen seconds each of three recordings, every other one with timestamps."""
    folder = fetch_package("moonshine-voice", "0.1.5") / "moonshine_voice" / "assets"
    cuts = (("two_cities", 2, 15), ("endgame_nagg_nell", 1.4, 10), ("beckett", 1, 5))
    found: list[Source] = []
    for name, apart, count in cuts:
        sound = audio.read(folder / f"{name}.wav", 16000)
        for i in range(count):
            start = int(i * apart * 16000)
            options = {"language": "en", "timestamps": len(found) % 2 == 1}
            found.append(Source(given=sound[start : start + 15 * 16000], options=options))
    return found


MODELS = (
    Model(
        name="proofread-t5",
        checkpoint=str(FOLDERS / "proofread-t5"),
        graphs=(*ONNX, *OPENVINO),
        sources=corrections,
    ),
    Model(
        name="firefox-en-pt",
        checkpoint="pypi:firefox-en-pt",
        graphs=(*ONNX, *OPENVINO),
        sources=translations,
    ),
    Model(
        name="smollm2-135m",
        checkpoint="pypi:smollm2-135m",
        graphs=ONNX,
        sources=conversations,
    ),
    Model(
        name="whisper-base",
        checkpoint="pypi:whisper-base",
        graphs=ONNX,
        sources=clips,
        draft="pypi:whisper-tiny.en",
    ),
    Model(
        name="gemma3-270m",
        checkpoint="pypi:gemma3-270m",
        graphs=ONNX,
        sources=continuations,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One bundle to compare on. ``draft`` is the bundle of its draft model."""

    model: str
    format: Format
    precision: str
    bundle: Callable[[], Path]
    sources: Sequence[Source]
    draft: Callable[[], Path] | None = None


def subjects(names: Sequence[str], precisions: Sequence[str]) -> Iterator[Subject]:
    """In the order of the table, the quickest models first; one whose folder is not here is left
    out, with a warning."""
    for model in MODELS:
        if model.name not in names:
            continue
        checkpoint = model.checkpoint
        if not checkpoint.startswith("pypi:") and not Path(checkpoint).is_dir():
            warnings.warn(f"{checkpoint} is not here; {model.name} is left out", stacklevel=2)
            continue
        yield from (subject(model, one) for one in model.graphs if one[1] in precisions)


def subject(model: Model, graphs: Graphs) -> Subject:
    draft = None
    if model.draft:
        draft = lambda: bundle(model.draft, ("onnx", "int8"))  # noqa: E731
    return Subject(
        model=model.name,
        format=graphs[0],
        precision=graphs[1],
        bundle=lambda: bundle(model.checkpoint, graphs),
        sources=model.sources(),
        draft=draft,
    )


def bundle(checkpoint: str, graphs: Graphs) -> Path:
    """The bundle in the user's cache, blocks of 32, exported if it is not there or if the exporter
    has changed since.

    However far its tokens are from the checkpoint's: drafts are held against the bundle's own.
    """
    form, precision = graphs
    weights, _, further = precision.partition("+")
    known: Any = weights
    name = checkpoint.removeprefix("pypi:").rpartition("/")[2]
    folder = user_cache() / "bundles" / edgegen.__version__ / f"{name}-{form}-{precision}"
    command = f"python bench/ledger.py (exporter {exporter()})"
    if folder.exists() and made_by(folder) == command:
        return folder
    export(
        ExportOptions(
            model=checkpoint,
            output=folder,
            formats=(form,),
            weight_format=known,
            group_size=32,
            integer=("encode", "decode") if further == "integers" else (),
            min_agreement=0.0,
            command=command,
        )
    )
    return folder


@cache
def exporter() -> str:
    """A digest of the code that makes bundles."""
    home = Path(edgegen.export.__file__).parent
    code = [path.read_bytes() for path in sorted(home.rglob("*.py"))]
    return sha256(b"".join(code)).hexdigest()[:12]


def made_by(folder: Path) -> str:
    """The command a bundle was made with; empty where it is none that this version reads."""
    try:
        return Bundle.open(folder, verify=False).manifest.provenance.command
    except BundleError:
        return ""
