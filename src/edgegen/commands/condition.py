"""``edgegen condition``: a bundle learns to tell early whether a text will be as wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from .console import print_json, stdout

HELP = """Train a classifier for a condition and put it into the bundle.

The model writes texts for your sources, sampled as it likes; a rule says of each whether the
condition holds; a small network learns to foresee that from the decoder's hidden state. Beam search
with --condition then asks it at every step. The bundle must have been exported with --taps hidden.

  edgegen condition bundles/en-pt --condition not-repetitive \\
    --sources letters.txt
  edgegen run bundles/en-pt "The train." --num-beams 4 \\
    --condition not-repetitive

Needs pip install 'edgegen\\[export]'.
"""
Folder = Annotated[
    Path, Argument(metavar="BUNDLE", help="Bundle to train for.", show_default=False)
]
Rule = Annotated[
    str,
    Option(
        "--condition", metavar="RULES", show_default=False,
        help="not-empty, not-repetitive, length:MIN-MAX, contains:IDS, joined by +.",
    ),
]  # fmt: skip
Sources = Annotated[
    Path, Option("--sources", metavar="FILE", help="Sources, one a line.", show_default=False)
]
Samples = Annotated[int, Option(metavar="N", help="Texts to write.", min=10)]
Temperature = Annotated[float, Option(metavar="X", help="Of the sampling.")]
MaxNewTokens = Annotated[
    int | None, Option(metavar="N", help="Most tokens of a text.", show_default="the bundle's")
]
Seed = Annotated[int, Option(metavar="N", help="Of the first text and the training.", min=0)]
Device = Annotated[str, Option(metavar="NAME", help="Where the texts are written.")]
Threads = Annotated[int, Option(metavar="N", help="Threads of a call.", min=1)]
Precision = Annotated[
    str | None,
    Option(metavar="FORMAT", help="Which decoder of several.", show_default="the smallest"),
]
Output = Annotated[
    Path | None,
    Option("-o", "--output", metavar="DIR", help="Bundle to write.", show_default="the same"),
]
Json = Annotated[bool, Option("--json", metavar="", help="Print what was learned as JSON.")]


def condition(
    bundle: Folder,
    rule: Rule,
    sources: Sources,
    samples: Samples = 2000,
    temperature: Temperature = 1.0,
    max_new_tokens: MaxNewTokens = None,
    seed: Seed = 0,
    device: Device = "ort-cpu",
    threads: Threads = 1,
    precision: Precision = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    from edgegen.errors import InputError
    from edgegen.export.heads.condition import HeadOptions, add, fit
    from edgegen.runtime.observing import check, observe
    from edgegen.runtime.opening import load
    from edgegen.runtime.options import GenerationOptions

    from .stages import Stages

    options = GenerationOptions(
        num_beams=2,
        condition=rule,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        seed=seed,
    )
    try:
        lines = [line for line in sources.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{sources}: {error}; give a UTF-8 text file.") from None
    with load(bundle, device, threads, precision=precision) as pipeline, Stages() as say:
        check(pipeline, lines)
        say(f"writing {samples} texts")
        seen = observe(pipeline, lines, options, samples=samples)
        say(f"training on {len(seen.holds)} beginnings")
        head = fit(seen.hidden, seen.holds, seen.text, HeadOptions(seed=seed))
        say("writing the bundle")
        add(pipeline.bundle, pipeline.engine.variants["decode"], rule, head, output or bundle)
    learned = {
        "condition": rule,
        "texts": int(seen.text.max()) + 1,
        "held": float(seen.held),
        "loss": head.loss,
        "base_loss": head.base_loss,
    }
    if as_json:
        print_json(learned)
        return
    stdout().print(
        f"{rule} held of {seen.held:.1%} of {learned['texts']} texts. Loss on new texts "
        f"{head.loss:.4f} nats, without looking {head.base_loss:.4f}.",
        markup=False,
        soft_wrap=True,
    )
