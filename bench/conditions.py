"""How often the likeliest text is empty or repeats itself, and what a condition makes of it.

    python bench/conditions.py DIR                  beginnings of bench/sentences.txt, 4 beams
    python bench/conditions.py DIR --num-beams 8 --length-penalty 0 --texts FILE
    python bench/conditions.py --learn FILE         write the sources to train a classifier on

Plain beams and beams under the condition take turns, text by text. A classifier the bundle has for
the condition is used. It learns from every other beginning, and is asked about those between.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgegen import GenerationOptions, Pipeline, load
from edgegen.runtime.conditions import Limits, marks_of, read_rules

SENTENCES = Path(__file__).parent / "sentences.txt"
WORDS, LEAST = 4, 7  # of a beginning, and of a sentence that has one
FAULTS = ("not-empty", "not-repetitive")


@dataclass(frozen=True, kw_only=True)
class Written:
    """A text: its ``faults`` among ``FAULTS``, and ``score``, the log-probability over length."""

    text: str
    faults: tuple[str, ...]
    score: float


def beginnings(learning: bool) -> list[str]:
    """The first words of long sentences: those a classifier learns from, or those between."""
    lines = [line.split() for line in SENTENCES.read_text(encoding="utf-8").splitlines()]
    long = [" ".join(words[:WORDS]) for words in lines if len(words) >= LEAST]
    return long[1::2] if learning else long[::2]


def write(pipeline: Pipeline, text: str, options: GenerationOptions) -> Written:
    manifest = pipeline.bundle.manifest
    marks = marks_of(manifest.generation, manifest.speech, manifest.vocabulary)
    result = pipeline.generate(text, options)
    tokens = [token for token in result.tokens if token not in marks]
    limits = Limits(most=len(result.tokens) or 1)
    rules = {name: read_rules(name, limits)[0] for name in FAULTS}
    faults = tuple(name for name, rule in rules.items() if not rule.holds(tokens))
    return Written(text=result.text, faults=faults, score=result.hypotheses[0].score)


def told(name: str, found: Sequence[Written]) -> str:
    counts = [sum(fault in one.faults for one in found) for fault in FAULTS]
    sound = [one.score for one in found if one.score > float("-inf")]
    mean = sum(sound) / len(sound) if sound else float("nan")
    return (
        f"{name:<12} {len(found):>4} texts  {counts[0]:>3} empty  {counts[1]:>3} repetitive  "
        f"{len(found) - len(sound):>3} without an answer  mean score {mean:.3f}"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--learn", type=Path, metavar="FILE")
    parser.add_argument("--texts", type=Path, help="one a line")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--num-beams", type=int, default=4)
    parser.add_argument("--length-penalty", type=float, default=1.0)
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--condition", default="not-empty+not-repetitive")
    parser.add_argument("--without-plain", action="store_true")
    asked = parser.parse_args()
    if asked.bundle is None and asked.learn is None:
        parser.error("name a bundle, or --learn FILE")
    return asked


def compare(
    pipeline: Pipeline, texts: Sequence[str], ways: Mapping[str, GenerationOptions]
) -> dict[str, list[Written]]:
    """What is written each way; every text is printed as it comes."""
    found: dict[str, list[Written]] = {name: [] for name in ways}
    for text in texts:
        for name, options in ways.items():
            one = write(pipeline, text, options)
            found[name].append(one)
            print(name, one.faults, f"{one.score:.3f}", repr(text), repr(one.text), flush=True)
    return found


def main() -> None:
    asked = arguments()
    if asked.learn is not None:
        asked.learn.write_text("\n".join(beginnings(learning=True)) + "\n", encoding="utf-8")
        return
    lines = asked.texts.read_text(encoding="utf-8").splitlines() if asked.texts else None
    texts = [line for line in lines or beginnings(learning=False) if line][: asked.count]
    plain = GenerationOptions(
        num_beams=asked.num_beams,
        length_penalty=asked.length_penalty,
        max_new_tokens=asked.max_new_tokens,
    )
    under = plain.with_changes(condition=asked.condition)
    ways = {"condition": under} if asked.without_plain else {"plain": plain, "condition": under}
    with load(asked.bundle) as pipeline:
        print("classifiers:", [one.condition for one in pipeline.bundle.manifest.conditions])
        found = compare(pipeline, texts, ways)
    for name, every in found.items():
        print(told(name, every))


if __name__ == "__main__":
    main()
