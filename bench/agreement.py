"""How often 8-bit graphs choose the checkpoint's token, family by family: writes docs/agreement.md.

    python bench/agreement.py BUNDLE...    real bundles, by the record their export left

Families no bundle is of stand with the tiny random checkpoints of tests/, whose logits have hardly
any margin: what is far below 100 % there says little about real weights.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from edgegen.bundle import Bundle
from edgegen.export.families import family_of
from edgegen.export.options import ExportOptions, WeightFormat
from edgegen.export.parity import Gate
from edgegen.manifest import Parity

ROOT = Path(__file__).resolve().parent.parent
PAGE, PROMPTS = ROOT / "docs" / "agreement.md", 20
WEIGHTS: WeightFormat = "int8"
sys.path.append(str(ROOT / "tests"))
HEAD = """# Agreement at 8 bits

Written by `python bench/agreement.py`; run it, do not edit. The checkpoint's greedy tokens are fed,
and the share of steps counted at which the 8-bit ONNX graphs (blocks of 32) choose the same token;
the error is the largest of a logit, of the logits' scale. `edgegen export` measures and prints the
same of every model, and `edgegen inspect` shows it.

Random checkpoints are tiny and have hardly any margin between tokens: they show that a family's
8-bit graphs compute what they should, not how good real weights are at 8 bits.

| family | checkpoint | tokens | agreement | largest error |
| --- | --- | --- | --- | --- |
"""


def row(family: str, name: str, parity: Parity) -> str:
    steps = sum(prompt.tokens for prompt in parity.prompts)
    return f"| `{family}` | {name} | {steps} | {parity.agreement:.1%} | {parity.max_error:.1e} |"


def real(paths: list[Path]) -> Iterator[tuple[str, str]]:
    """Family and row of each bundle that was measured at these weights."""
    for path in paths:
        manifest = Bundle.open(path, verify=False).manifest
        for parity in manifest.parity:
            if parity.weight_format == WEIGHTS and parity.format == "onnx" and not parity.skipped:
                source = Path(manifest.provenance.source).name
                yield manifest.family, row(manifest.family, source, parity)


def tiny(name: str) -> Parity:
    """Of a tiny checkpoint over prompts of words it knows."""
    from tiny_families import CASES, WORDS, tokenizer, write_bundle

    case, random = CASES[name], np.random.default_rng(0)
    words = {"source": tokenizer(end=case.family in ("t5", "bart"))}
    family = family_of(replace(case.make(), tokenizers=words))[1]
    texts = [" ".join(random.choice(WORDS, 1 + 2 * (i % 8))) for i in range(PROMPTS)]
    spoken = family.speech() is None and family.image() is None
    with TemporaryDirectory() as folder:
        bundle = Bundle.open(write_bundle(Path(folder) / "b", name, weight_format=WEIGHTS))
        parts = {part: one.variants[0] for part, one in bundle.manifest.components.items()}
        options = ExportOptions(
            model="tiny",
            output=Path(folder) / "b",
            weight_format=WEIGHTS,
            min_agreement=0.0,
            parity_prompts=tuple(texts) if spoken else (),
        )
        return Gate(family, options).check(bundle.path, parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundles", type=Path, nargs="*")
    found = list(real(parser.parse_args().bundles))
    from tiny_families import CASES

    known = {family for family, _ in found}
    for name, case in CASES.items():
        if case.family not in known:
            found.append((case.family, row(case.family, f"random, {name}", tiny(name))))
            print(found[-1][1], flush=True)
    PAGE.write_text(HEAD + "\n".join(line for _, line in found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
