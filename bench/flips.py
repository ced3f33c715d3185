"""How often rounding would decide a token, on a bundle whose rows agree only up to rounding.

    edgegen export -m proofread-t5 -o b --weight-format int8 --group-size 128
    python bench/flips.py b                       the texts of sentences.txt with slips of typing
    python bench/flips.py b --file letters.txt --draft lookup,recycling --device ov-cpu

For each drafter: rows decided anew and those of them that became another token (with the margin),
and the texts that are not plain decoding's with the margin and without it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from text_proofs import sentences, with_slips

import edgegen
from edgegen import GenerationOptions, Pipeline
from edgegen.runtime.result import Result
from edgegen.runtime.speculation import noise_of

WIDTHS = (16, 7, 7, 7, 9, 10, 8, 8)
HEADINGS = ("drafter", "tokens", "calls", "reruns", "flips", "flip rate", "without", "with")


def without_margin(pipeline: Pipeline) -> Pipeline:
    """The pipeline, told that its rows are equal bit for bit."""
    variants = pipeline.engine.parts.variants
    for name in [name for name in variants if name.partition("+")[0] == "decode"]:
        precision = msgspec.structs.replace(variants[name].precision, rows="bit")
        variants[name] = msgspec.structs.replace(variants[name], precision=precision)
    return pipeline


def told(name: str, results: Sequence[Result], others: int, wrong: int) -> None:
    times = [result.timings for result in results]
    tokens, flips = sum(one.tokens for one in times), sum(one.flips for one in times)
    cells = (
        name,
        tokens,
        sum(len(one.steps) for one in times),
        sum(one.reruns for one in times),
        flips,
        f"{flips / tokens:.4%}",
        others,
        wrong,
    )
    line(cells)


def line(cells: Sequence[Any]) -> None:
    print(" ".join(f"{cell!s:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--file", type=Path, help="texts, one a line")
    parser.add_argument("--device", default="ort-cpu")
    parser.add_argument("--draft", default="lookup,aggressive+lookup,recycling,trigram")
    parser.add_argument("--num-assistant-tokens", type=int, default=8)
    asked = parser.parse_args()
    given = asked.file.read_text(encoding="utf-8").splitlines() if asked.file else None
    texts = with_slips(sentences()) if given is None else given
    careful = edgegen.load(asked.bundle, device=asked.device)
    careless = without_margin(edgegen.load(asked.bundle, device=asked.device))
    noise = noise_of(careful.engine, GenerationOptions())
    print(f"{len(texts)} texts; a logit is taken to move by {noise:.1e} of its row's largest")
    plain = [one.tokens for one in careful.generate(texts, GenerationOptions(draft="none"))]
    line(HEADINGS)
    for name in asked.draft.split(","):
        options = GenerationOptions(draft=name, num_assistant_tokens=asked.num_assistant_tokens)
        kept, loose = (one.generate(texts, options) for one in (careful, careless))
        told(name, kept, differing(loose, plain), differing(kept, plain))


def differing(results: Sequence[Result], plain: Sequence[tuple[int, ...]]) -> int:
    return sum(found.tokens != tokens for found, tokens in zip(results, plain, strict=True))


if __name__ == "__main__":
    main()
