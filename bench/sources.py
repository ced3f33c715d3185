"""What it brings to keep: encoded sources from call to call, compiled graphs from start to start.

    python bench/sources.py                        both tables, as Markdown
    python bench/sources.py --threads 2 --turns 5 --works proofread-t5

A source is asked for again under every prompt of its work. A pipeline that keeps encoded sources
and one that does not take turns, each the first in every other; a start on OpenVINO's CPU keeps
nothing, writes compiled graphs or finds them. Medians of milliseconds with the lowest and the
highest; the gain is the median of the ratios within a turn. Texts must be equal, else it ends.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from ledger_models import DEVICES, MODELS, Graphs, bundle

from edgegen import GenerationOptions, Pipeline, Result, load
from edgegen.profiles.summary import longest

SOURCES, KEPT_BYTES = 4, 1 << 29
GRAPHS: tuple[Graphs, ...] = (("onnx", "int8"), ("openvino", "int8"))
Times = dict[str, list[float]]


@dataclass(frozen=True, kw_only=True)
class Work:
    """One of the ledger's models; ``prompts`` are what each of its sources is asked for."""

    name: str
    prompts: tuple[Mapping[str, Any], ...] = ({},)
    new_tokens: tuple[int, ...] = (8, 32)

    def folder(self, graphs: Graphs) -> Path:
        return bundle(MODELS_BY_NAME[self.name].checkpoint, graphs)

    def sources(self) -> Sequence[Any]:
        """What a pipeline is given."""
        return [one.given for one in MODELS_BY_NAME[self.name].sources()[:SOURCES]]


MODELS_BY_NAME = {model.name: model for model in MODELS}
# What is spoken is asked for as it is and in English, with times and without.
SPOKEN = tuple(
    {"language": "en", "task": task, "timestamps": times}
    for task in ("transcribe", "translate")
    for times in (False, True)
)
WORKS = (
    Work(name="proofread-t5"),
    Work(name="firefox-en-pt"),
    Work(name="whisper-base", prompts=SPOKEN),
)


# ------------------------------------------------------------ encoded sources


def kept_sources(path: Path, device: str, work: Work, asked: argparse.Namespace) -> list[str]:
    """A row a length of output: request times with the cache and without."""
    rows: list[str] = []
    with ExitStack() as stack:
        ways: dict[str, Pipeline] = {
            name: stack.enter_context(load(path, device, asked.threads, source_cache_bytes=size))
            for name, size in (("without", 0), ("with", KEPT_BYTES))
        }
        for tokens in work.new_tokens:
            times: Times = {name: [] for name in ways}
            for source in work.sources():
                for prompt in work.prompts:
                    options = GenerationOptions(draft="none", max_new_tokens=tokens, **prompt)
                    again(ways, source, options, asked.turns, times)
            rows.append(row((work.name, device, f"{tokens} tokens"), times, "without", "with"))
    return rows


def again(
    ways: Mapping[str, Pipeline], source: Any, options: GenerationOptions, turns: int, to: Times
) -> None:
    """The same request in turns, after one of each that is left out. Raises ``SystemExit`` where
    texts differ, or where a source is not kept that should be, or kept that should not."""
    first = {name: way.generate(source, options) for name, way in ways.items()}
    for turn in range(turns):
        for name in sorted(ways, reverse=bool(turn % 2)):
            start = perf_counter()
            found = ways[name].generate(source, options)
            to[name].append(perf_counter() - start)
            check(found, first["without"], name == "with")


def check(found: Result, truth: Result, kept: bool) -> None:
    if (found.text, found.tokens) != (truth.text, truth.tokens):
        raise SystemExit(f"texts differ: {found.text!r} and {truth.text!r}")
    if found.cached_source is not kept:
        raise SystemExit(f"a source was {'not ' * kept}found: the cache is too small, or is none")


# ------------------------------------------------------------ compiled graphs


def kept_graphs(path: Path, work: Work, asked: argparse.Namespace) -> str:
    """Seconds until all graphs are compiled; all starts are this process's, after one."""
    times: Times = {"none": [], "cold": [], "cached": []}
    source, options = work.sources()[0], GenerationOptions(draft="none", max_new_tokens=8)
    with TemporaryDirectory() as kept:
        truth = start(path, asked.threads, Path(kept), source, options)[1]
        for _ in range(asked.turns):
            with TemporaryDirectory() as fresh:
                for name, cache in (("none", None), ("cold", Path(fresh)), ("cached", Path(kept))):
                    took, found = start(path, asked.threads, cache, source, options)
                    times[name].append(took)
                    check(found, truth, kept=False)
    return row((work.name, "ov-cpu", spread(times["none"])), times, "cold", "cached")


def start(
    path: Path, threads: int, cache: Path | None, source: Any, options: GenerationOptions
) -> tuple[float, Result]:
    with load(path, "ov-cpu", threads, cache_dir=cache, verify=False) as pipeline:
        found = pipeline.generate(source, options)
        return longest(pipeline.engine.compile_seconds), found


# --------------------------------------------------------------------- tables


def row(cells: Sequence[str], times: Times, before: str, after: str) -> str:
    ratios = [one / two for one, two in zip(times[before], times[after], strict=True)]
    said = (*cells, spread(times[before]), spread(times[after]), f"{median(ratios):.2f}")
    return f"| {' | '.join(said)} |"


def spread(seconds: Sequence[float]) -> str:
    low, middle, high = (1e3 * one for one in (min(seconds), median(seconds), max(seconds)))
    return f"{middle:.1f} ({low:.1f}–{high:.1f})"


def heading(*names: str) -> None:
    print(f"| {' | '.join(names)} |\n|{' --- |' * len(names)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--works", default=",".join(work.name for work in WORKS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=9)
    asked = parser.parse_args()
    works = [work for work in WORKS if work.name in asked.works.split(",")]
    heading("work", "device", "at most", "request, ms", "the same, source kept, ms", "gain")
    for work in works:
        for graphs in GRAPHS:
            found = kept_sources(work.folder(graphs), DEVICES[graphs[0]], work, asked)
            print("\n".join(found), flush=True)
    print()
    heading("work", "device", "no cache, ms", "writing it, ms", "finding it, ms", "gain")
    for work in works:
        print(kept_graphs(work.folder(GRAPHS[1]), work, asked), flush=True)


if __name__ == "__main__":
    main()
