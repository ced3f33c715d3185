"""What more beams cost on a bundle: memory of the encoder's rows and of the text's, time a token.

    python bench/beams.py DIR            one thread, 1, 4 and 8 beams
    python bench/beams.py DIR --text "A sentence." --tokens 64 --threads 2

Widths take turns, so that a machine's moods meet all of them. Rows and bytes are those that stand
in the cache at the most; medians of the time of a token.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

from edgegen import GenerationOptions, Pipeline, load
from edgegen.profiles import memory as process
from edgegen.runtime.tokenizer import load_tokenizer

WIDTHS, TURNS = (1, 4, 8), 5
TEXT = "The committee met on Tuesday to talk about the budget, and nobody could say where it went."


@dataclass(frozen=True, kw_only=True)
class Run:
    """One generation. ``rows`` of the cache at the most, ``text_bytes`` of them; ``source_bytes``
    of keys and values of the encoder; ``resident_bytes`` of the process as it ends."""

    tokens: int
    seconds: float
    rows: int
    text_bytes: int
    source_bytes: int
    resident_bytes: int


def run(pipeline: Pipeline, ids: Sequence[int], beams: int, tokens: int) -> Run:
    """``tokens`` tokens with so many beams, none of which may end before."""
    options = GenerationOptions(
        num_beams=beams, max_new_tokens=tokens, min_new_tokens=tokens - 1, draft="none"
    )
    engine, start = pipeline.engine, pipeline.bundle.manifest.generation.start
    encodes = "encode" in pipeline.bundle.manifest.components
    prompt = start if encodes else ids
    memory = engine.remember_ids(ids) if encodes else None
    decoder = engine.decoder(memory, options)
    writing = engine.generation(decoder, options, prompt_length=len(prompt), memory=memory)
    most, begun = 0, perf_counter()
    for _ in writing.run(prompt):
        most = max(most, decoder.length)
    record = decoder.variant.cache
    # A recurrent layer has a state a row, the others a key and a value.
    parts = 1 if record.kind == "recurrent" else 2
    return Run(
        tokens=tokens,
        seconds=perf_counter() - begun,
        rows=most,
        text_bytes=4 * parts * most * record.layers * record.heads * record.head_dim,
        source_bytes=sum(array.nbytes for array in memory.feeds.values()) if memory else 0,
        resident_bytes=process.sample().resident,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", type=Path, metavar="DIR")
    parser.add_argument("--device", default="ort-cpu")
    parser.add_argument("--text", default=TEXT)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    said = parser.parse_args()
    with load(said.bundle, device=said.device, threads=said.threads) as pipeline:
        record = pipeline.bundle.manifest.tokenizers["source"]
        ids = load_tokenizer(pipeline.bundle.path, record).encode(said.text)
        for beams in WIDTHS:
            run(pipeline, ids, beams, said.tokens)
        turns = [{n: run(pipeline, ids, n, said.tokens) for n in WIDTHS} for _ in range(TURNS)]
    print(f"{said.bundle.name}, {len(ids)} source tokens, {said.tokens} new, {said.threads} thread")
    print("beams  source KB  text rows  text KB  resident MB  ms a token  of one beam's")
    one = median(turn[1].seconds for turn in turns)
    for beams in WIDTHS:
        runs = [turn[beams] for turn in turns]
        last, seconds = runs[-1], median(each.seconds for each in runs)
        print(
            f"{beams:5} {last.source_bytes / 1e3:10.0f} {last.rows:10} {last.text_bytes / 1e3:8.0f}"
            f" {last.resident_bytes / 1e6:12.0f} {1e3 * seconds / last.tokens:11.2f}"
            f" {seconds / one:14.2f}"
        )


if __name__ == "__main__":
    main()
