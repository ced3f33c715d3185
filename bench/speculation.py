"""What speculation brings on real models: every drafter beside plain decoding, in turns.

    python bench/speculation.py [--works proofread-20,...] [--threads 1,2] [--json FILE]

Each bundle and thread count has a process of its own, in which the ways to decode take turns;
figures are medians of ratios within a turn, with the lowest and the highest. Texts must be equal.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from ledger_models import (
    DEVICES,
    INTEGERS,
    MODELS,
    ONNX,
    Graphs,
    Model,
    Source,
    bundle,
    conversations,
)
from text_proofs import sentences

from edgegen import GenerationOptions, Pipeline, Result, load

COLUMNS = (
    "work", "graphs", "threads", "tokens an edit", "plain ms a token", "drafter", "length",
    "speed-up",
)  # fmt: skip
TURNS = 6  # the first warms up
TEXTS = 20


@dataclass(frozen=True, kw_only=True)
class Way:
    """A drafter and how many tokens it may guess; None leaves that to the calibration."""

    draft: str
    tokens: int | None = None

    def __str__(self) -> str:
        return self.draft if self.tokens is None else f"{self.draft}:{self.tokens}"


COPYING = (
    *(Way(draft="lookup", tokens=n) for n in (8, 16, 32)),
    *(Way(draft="aggressive+lookup", tokens=n) for n in (8, 16, 32)),
    Way(draft="auto"),
)
COPIED: tuple[Graphs, ...] = (*ONNX, INTEGERS, ("openvino", "int8"))
PROMPTED = (Way(draft="suffix", tokens=8), Way(draft="suffix+recycling"), Way(draft="auto"))
EIGHT_BITS: tuple[Graphs, ...] = (("onnx", "int8"),)
SPOKEN = (
    Way(draft="model", tokens=4), Way(draft="model"), Way(draft="suffix+recycling"),
    Way(draft="auto"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Work:
    """Inputs for a model, and the ways to try on it."""

    model: str
    sources: Callable[[], Sequence[Source]]
    ways: tuple[Way, ...]
    graphs: tuple[Graphs, ...] = (*ONNX, ("openvino", "int8"))
    most: int = 256
    chosen: dict[str, Any] = field(default_factory=dict[str, Any])


def slips(every: int) -> list[Source]:
    """Two sentences each, two letters swapped in every so many words."""
    texts = [text for text in sentences() if len(text.split()) >= 8]
    found: list[Source] = []
    for i in range(TEXTS):
        words = f"{texts[i]} {texts[i + TEXTS]}".split()
        for at in range(every // 2, len(words), every):
            word = words[at]
            words[at] = f"{word[0]}{word[2]}{word[1]}{word[3:]}" if len(word) > 3 else word
        found.append(Source(given=" ".join(words)))
    return found


def translated() -> list[Source]:
    return [Source(given=text) for text in sentences()[:TEXTS]]


def heard() -> list[Source]:
    return list(of("whisper-base").sources()[:10])


def summaries() -> list[Source]:
    return [one for one in conversations() if "Summarise" in one.given[0]["content"]]


WORKS: Mapping[str, Work] = {
    "proofread-20": Work(
        model="proofread-t5",
        sources=lambda: slips(15),
        ways=COPYING,
        graphs=COPIED,
    ),
    "proofread-8": Work(
        model="proofread-t5",
        sources=lambda: slips(6),
        ways=COPYING,
        graphs=COPIED,
    ),
    "summarise": Work(model="smollm2-135m", sources=summaries, ways=PROMPTED, most=96),
    "transcribe": Work(
        model="whisper-base", sources=heard, ways=SPOKEN, graphs=(("onnx", "int8"),)
    ),
    "translate": Work(
        model="firefox-en-pt",
        sources=translated,
        ways=(Way(draft="auto"),),
        graphs=(("onnx", "int8"),),
    ),
}


def of(name: str) -> Model:
    return next(model for model in MODELS if model.name == name)


# ------------------------------------------------------------------ one process


def measure(work: Work, graphs: Graphs, threads: int, texts: int) -> dict[str, Any]:
    """Ratios of plain decoding's time over each way's, a list of turns each."""
    model, sources = of(work.model), work.sources()[:texts]
    folder = bundle(model.checkpoint, graphs)
    draft = bundle(model.draft, graphs) if model.draft else None
    ways = {str(way): way for way in (Way(draft="none"), *work.ways)}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    plain: list[Result] = []
    lengths: dict[str, float] = {}
    device = DEVICES[graphs[0]]
    with load(folder, device, threads=threads, draft_model=draft, calibrate=True) as pipeline:
        for turn in range(TURNS):
            for name, way in ways.items():
                results = [decoded(pipeline, source, way, work.most) for source in sources]
                if turn:
                    seconds[name].append(sum(map(decode_seconds, results)))
                plain = plain or results
                if [r.tokens for r in results] != [r.tokens for r in plain]:
                    raise SystemExit(f"{work.model} {graphs}: {name} changed the text.")
                lengths[name] = statistics.fmean(r.timings.mean_acceptance_length for r in results)
    none = seconds["none"]
    return {
        "tokens": sum(len(r.tokens) for r in plain),
        "edited": edited(pipeline, sources, plain),
        "plain_ms_per_token": 1e3 * statistics.median(none) / sum(len(r.tokens) for r in plain),
        "speedup": {n: [a / b for a, b in zip(none, s, strict=True)] for n, s in seconds.items()},
        "mean_acceptance_length": lengths,
    }


def decoded(pipeline: Pipeline, source: Source, way: Way, most: int) -> Result:
    options = GenerationOptions(
        draft=way.draft, num_assistant_tokens=way.tokens, max_new_tokens=most, **source.options
    )
    result: Result = pipeline.generate(source.given, options)
    return result


def decode_seconds(result: Result) -> float:
    """All of the loop: drafting, decode calls, host; encoding is the same for all."""
    return sum(step.seconds for step in result.timings.steps)


def edited(pipeline: Pipeline, sources: Sequence[Source], plain: Sequence[Result]) -> float | None:
    """Output tokens per place where the output is not the source; None where none is a copy."""
    if not isinstance(sources[0].given, str):
        return None
    tokenizer: Any = getattr(pipeline.task, "source", None)
    places = tokens = 0
    for source, result in zip(sources, plain, strict=True):
        ids = tokenizer.encode(source.given)
        matcher = SequenceMatcher(None, ids, result.tokens, autojunk=False)
        places += sum(kind != "equal" for kind, *_ in matcher.get_opcodes())
        tokens += len(result.tokens)
    return tokens / max(1, places)


# ------------------------------------------------------------------ all of them


def run(
    names: Sequence[str], asked_for: Sequence[str], threads: Sequence[int], texts: int
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name in names:
        for graphs in [" ".join(one) for one in WORKS[name].graphs if " ".join(one) in asked_for]:
            for count in threads:
                one = f"{name},{graphs},{count}"
                asked = [sys.executable, __file__, "--one", one, "--texts", str(texts)]
                found = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=False)
                if found.returncode:
                    raise SystemExit(f"{name} {graphs} {count}: failed, see above.")
                row = json.loads(found.stdout)
                rows.append({"work": name, "graphs": graphs, "threads": count, **row})
                print("\n".join(lines([rows[-1]])), flush=True)
    return rows


def lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Markdown rows: work, precision, threads, tokens an edit, ms a token, way, speed-up."""
    found: list[str] = []
    for row in rows:
        for way, ratios in row["speedup"].items():
            if way == "none":
                continue
            low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
            edits = "–" if row["edited"] is None else f"{row['edited']:.1f}"
            found.append(
                f"| {row['work']} | {row['graphs']} | {row['threads']} | {edits} "
                f"| {row['plain_ms_per_token']:.2f} | {way} "
                f"| {row['mean_acceptance_length'][way]:.2f} "
                f"| {middle:.2f} ({low:.2f}–{high:.2f}) |"
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--works", default=",".join(WORKS))
    parser.add_argument("--threads", default="1,2")
    every = sorted({" ".join(one) for work in WORKS.values() for one in work.graphs})
    parser.add_argument("--graphs", default=",".join(every))
    parser.add_argument("--texts", type=int, default=TEXTS, help="inputs of a work")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        name, graphs, count = asked.one.split(",")
        form, weights = graphs.split()
        print(json.dumps(measure(WORKS[name], (form, weights), int(count), asked.texts)))
        return
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    threads = [int(count) for count in asked.threads.split(",")]
    rows = run(asked.works.split(","), asked.graphs.split(","), threads, asked.texts)
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
