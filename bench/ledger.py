"""Proof of identity on real models: every drafter's tokens are those of plain decoding.

    python bench/ledger.py                          go on where the last run stopped
    python bench/ledger.py --models firefox-en-pt --inputs 3
    python bench/ledger.py --full                   every combination of every input: days
    python bench/ledger.py --report                 what the ledger holds, as Markdown

A model writes up to 64 tokens for each of 30 inputs; then every drafter does, those that propose
trees also held to chains. All tokens have to be equal. The first input meets every drafter,
greedily and with seeded sampling, on every kind of graph; the others are compared pairwise: every
two of input, drafter, mode and graphs meet at least once. Bundles are exported once, into the
user's cache folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from ledger_file import PLAIN, Entry, Ledger, report
from ledger_models import DEVICES, INPUTS, MODELS, ONNX, Source, Subject, subjects

from edgegen import GenerationOptions, Pipeline, load
from edgegen.bundle import Bundle
from edgegen.runtime.calibration import user_cache
from edgegen.runtime.drafters import DRAFTERS
from edgegen.runtime.drafters.base import Context, Drafter
from edgegen.runtime.drafters.suffix import Corpus
from edgegen.runtime.generation import Generation
from edgegen.runtime.layout import first_path
from edgegen.runtime.result import Result
from edgegen.runtime.speculation import rows_of
from edgegen.runtime.speculative import SpeculativeDecoding
from edgegen.runtime.verify import Draft

COMBINED = ("suffix+recycling", "lookup+recycling", "aggressive+lookup")
TREES = ("aggressive", "recycling", "trigram", "trigram-mcts", *COMBINED)
CHAIN = " as a chain"
# A corpus that holds the text to be written, so that much is accepted on every model.
CORPUS = " with a corpus"
MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"do_sample": True, "temperature": 0.8, "top_p": 0.95},
}
NEW, ASSISTANT = 64, 8
# Inputs of every bundle in every combination before the next wave.
FIRST, WAVES = 1, (3, 10, INPUTS)
Place = tuple[int, int]  # of a bundle among the model's, and their number


def drafters(subject: Subject) -> list[str]:
    """Every drafter of the table that can take part, combinations, and chains of trees."""
    single = [name for name in DRAFTERS if name != PLAIN and (name != "model" or subject.draft)]
    return [*single, *COMBINED, *(name + CHAIN for name in TREES), f"suffix{CORPUS}"]


class Chains:
    """Another drafter, held to the first path of what it proposes."""

    def __init__(self, drafter: Drafter) -> None:
        self.drafter = drafter

    def draft(self, context: Context, limit: int) -> Draft:
        found = self.drafter.draft(context, limit)
        return Draft.chain([found.tokens[node] for node in first_path(found)])

    def commit(self, length: int) -> None:
        self.drafter.commit(length)


class Bench:
    """A pipeline whose encoder reads a source once for all drafters."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        path, draft = subject.bundle(), subject.draft() if subject.draft else None
        self.pipeline: Pipeline = load(
            path, DEVICES[subject.format], verify=False, draft_model=draft, calibrate=True
        )
        self.digest = digest_of(path, draft)
        self.rows = rows_of(self.pipeline.engine)
        self.chains = False
        engine: Any = self.pipeline.engine
        self._generation: Callable[..., Generation] = engine.generation
        engine.generation = self._made
        for name in ("remember_ids", "remember_samples"):
            setattr(engine, name, once(getattr(engine, name)))

    def _made(self, *args: Any, **named: Any) -> Generation:
        made = self._generation(*args, **named)
        if self.chains and isinstance(made, SpeculativeDecoding):
            made.drafter = Chains(made.drafter)
        return made

    def result(
        self, source: Source, options: GenerationOptions, drafter: str, corpus: Sequence[int]
    ) -> Result:
        name = drafter.removesuffix(CHAIN).removesuffix(CORPUS)
        self.chains = drafter.endswith(CHAIN)
        self.pipeline.engine.corpus = Corpus([corpus]) if drafter.endswith(CORPUS) else None
        # "auto" asks for as much as pays here; the others must draft whether that pays or not.
        asked = None if name in (PLAIN, "auto") else ASSISTANT
        found: Result = self.pipeline.generate(
            source.given, options.with_changes(draft=name, num_assistant_tokens=asked)
        )
        assert found.lossless == "sample-identical", (drafter, found.lossless)
        return found

    def entry(self, index: int, mode: str, drafter: str, reference: Entry | None) -> Entry:
        """The comparison, made now; without a reference it becomes one."""
        source = self.subject.sources[index]
        options = options_of(source, index, mode)
        known = () if reference is None else reference.emitted
        found = self.result(source, options, drafter, known)
        wanted = found.tokens if reference is None else known
        timings = found.timings
        return Entry(
            model=self.subject.model,
            format=self.subject.format,
            precision=self.subject.precision,
            rows=self.rows,
            mode=mode,
            input=index,
            drafter=drafter,
            bundle=self.digest,
            case=case_of(source, options),
            tokens=len(wanted),
            calls=len(timings.steps),
            proposed=timings.draft_tokens_proposed,
            accepted=timings.draft_tokens_accepted,
            reruns=timings.reruns,
            flips=timings.flips,
            equal=found.tokens == wanted,
            first_difference=first_difference(found.tokens, wanted),
            emitted=found.tokens if reference is None or found.tokens != wanted else (),
        )


def options_of(source: Source, index: int, mode: str) -> GenerationOptions:
    return GenerationOptions(max_new_tokens=NEW, seed=index, **MODES[mode], **source.options)


def case_of(source: Source, options: GenerationOptions) -> str:
    given = source.given
    said = given.tobytes() if isinstance(given, np.ndarray) else repr(given).encode()
    return sha256(said + repr(options).encode()).hexdigest()[:12]


def digest_of(*bundles: Path | None) -> str:
    files = [
        file for path in bundles if path for file in Bundle.open(path, verify=False).manifest.files
    ]
    return sha256(" ".join(file.sha256 for file in files).encode()).hexdigest()[:12]


def once(encode: Callable[..., Any], most: int = 16) -> Callable[..., Any]:
    """``encode``, remembering what the last sources gave."""
    known: dict[tuple[bytes, bool], Any] = {}

    def remembered(source: Any, *, draft: bool = False) -> Any:
        key = (np.asarray(source).tobytes(), draft)
        if key not in known:
            if len(known) >= most:
                known.pop(next(iter(known)))
            known[key] = encode(source, draft=draft)
        return known[key]

    return remembered


def first_difference(ours: Sequence[int], theirs: Sequence[int]) -> int | None:
    if ours == theirs:
        return None
    pairs = zip(ours, theirs, strict=False)
    shorter = min(len(ours), len(theirs))
    return next((i for i, (a, b) in enumerate(pairs) if a != b), shorter)


def pairwise(place: Place, index: int, mode: int, drafter: int) -> bool:
    """Whether a comparison belongs to the smaller plan, in which each drafter meets each input
    once and every other two factors meet as evenly (all-pairs testing; Cohen et al., "The AETG
    System", 1997)."""
    which, count = place
    turn = index // len(MODES) + drafter
    return (index + drafter) % len(MODES) == mode and turn % count == which


def missing(
    ledger: Ledger, subject: Subject, digest: str, inputs: range, place: Place | None = None
) -> Iterator[tuple[int, str, str]]:
    """Input, mode and drafter of every comparison the ledger does not hold, references first;
    given a place, of those compared pairwise."""
    for index in inputs:
        source = subject.sources[index]
        for number, mode in enumerate(MODES):
            case = case_of(source, options_of(source, index, mode))
            wanted = [
                name
                for at, name in enumerate(drafters(subject))
                if place is None or pairwise(place, index, number, at)
            ]
            for drafter in (PLAIN, *wanted) if wanted else ():
                if ledger.get((digest, case, mode, drafter)) is None:
                    yield index, mode, drafter


def compare(
    ledger: Ledger, subject: Subject, inputs: range, place: Place | None = None
) -> Iterator[Entry]:
    """What is missing of these inputs, added to the ledger one by one."""
    digest = digest_of(subject.bundle(), subject.draft() if subject.draft else None)
    todo = list(missing(ledger, subject, digest, inputs, place))
    if not todo:
        return
    bench = Bench(subject)
    with bench.pipeline:
        for index, mode, drafter in todo:
            source = subject.sources[index]
            case = case_of(source, options_of(source, index, mode))
            reference = ledger.get((digest, case, mode, PLAIN))
            entry = bench.entry(index, mode, drafter, reference)
            ledger.add(entry)
            yield entry


def run(ledger: Ledger, chosen: Sequence[Subject], inputs: int, *, full: bool = False) -> int:
    """The first input in every combination, all of them pairwise, then with ``full`` wave by wave
    in every combination; returns how many comparisons differed."""
    of_model = {one.model: [x for x in chosen if x.model == one.model] for one in chosen}
    differing = 0
    rounds = [(min(FIRST, inputs), True), (inputs, False)]
    rounds += [(min(end, inputs), True) for end in WAVES if full]
    for until, every in rounds:
        for subject in chosen:
            start, count = perf_counter(), 0
            kin = of_model[subject.model]
            place = None if every else (kin.index(subject), len(kin))
            for entry in compare(ledger, subject, range(until), place):
                count += 1
                if not entry.equal:
                    differing += 1
                    print(f"DIFFERS {entry}", flush=True)
            if count:
                name = f"{subject.model} {subject.format} {subject.precision}"
                how = "" if every else " pairwise"
                seconds = perf_counter() - start
                print(f"{name}: inputs to {until}{how}, {count} lines, {seconds:.0f} s", flush=True)
    return differing


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    names = [model.name for model in MODELS]
    formats = [precision for _, precision in ONNX]
    parser.add_argument("--ledger", type=Path, default=user_cache() / "ledger.jsonl")
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--precisions", nargs="+", choices=formats, default=formats)
    parser.add_argument(
        "--inputs", type=int, default=INPUTS, choices=range(1, INPUTS + 1), metavar="N"
    )
    parser.add_argument("--full", action="store_true", help="every combination, not pairwise")
    parser.add_argument("--report", action="store_true", help="compute nothing, print the tables")
    asked = parser.parse_args()
    with Ledger(asked.ledger) as ledger:
        if not asked.report:
            run(
                ledger,
                list(subjects(asked.models, asked.precisions)),
                asked.inputs,
                full=asked.full,
            )
        print(report(ledger.entries.values()))
        return int(any(not entry.equal for entry in ledger.entries.values()))


if __name__ == "__main__":
    sys.exit(main())
