"""``edgegen run``: text from a bundle."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer import Context

from . import arguments, places

if TYPE_CHECKING:
    from edgegen.runtime.options import GenerationOptions
    from edgegen.runtime.parts import Fallback
    from edgegen.runtime.pipeline import Pipeline

    from .inputs import Given
    from .outputs import Output

EARLY: dict[str, bool] = {"true": True, "false": False}
# Sources read at a time, as a multiple of those decoded together.
READ_AHEAD = 8

HELP = """Generate text from a bundle: translate, correct, summarise, continue, transcribe.

SOURCE is text for a text model, audio files for a speech model ("-" reads one from standard input)
and picture files for one that captions or reads them. Without SOURCE and --file, standard input is
read line by line: a line out for every line in, in order, an empty one for an empty one. At a
terminal text appears as it is made.

  edgegen run bundles/en-pt "The train leaves at nine."
  edgegen run bundles/en-pt < letter.txt > carta.txt
  edgegen run bundles/news --file article.txt --max-new-tokens 80
  edgegen run bundles/asr talk.mp3 --output-format srt > talk.srt
  edgegen run bundles/code --file top.py --suffix-file bottom.py > whole.py
  edgegen run bundles/captions holiday.jpg
  edgegen run bundles/chat --chat --do-sample --temperature 0.7 --seed 1
  edgegen run bundles/en-pt --json < letter.txt | jq -r .text
  edgegen run bundles/sentences --json "A text." | jq .embedding

A bundle of an encoder alone gives the vector of each source, its classes, its tagged spans or the
words for its masks; of the options those of input, output and device go with it.

Options are those of edgegen.GenerationOptions, under the same names. A default of "the
bundle's" is what the checkpoint came with.
"""


def run(
    ctx: Context,
    bundle: arguments.BundleDir,
    source: arguments.Sources = None,
    files: arguments.Files = None,
    whole: arguments.Whole = False,
    chat: arguments.Chat = False,
    system: arguments.System = None,
    suffix: arguments.Suffix = None, suffix_file: arguments.SuffixFile = None,
    infill: arguments.Infill = False,
    batch_size: arguments.BatchSize = None,
    workers: arguments.Workers = None,
    truncate: arguments.Truncate = None,
    output_format: arguments.OutputFormat = "text",
    as_json: arguments.Json = False,
    timings: arguments.Timings = False,
    logprobs: arguments.Logprobs = None,
    max_new_tokens: arguments.MaxNewTokens = None,
    min_new_tokens: arguments.MinNewTokens = None,
    stop: arguments.Stop = None,
    do_sample: arguments.DoSample = None,
    temperature: arguments.Temperature = None,
    top_k: arguments.TopK = None, top_p: arguments.TopP = None, min_p: arguments.MinP = None,
    seed: arguments.Seed = None,
    repetition_penalty: arguments.RepetitionPenalty = None,
    no_repeat_ngram_size: arguments.NoRepeatNgramSize = None,
    encoder_no_repeat_ngram_size: arguments.EncoderNoRepeatNgramSize = None,
    bad_words: arguments.BadWords = None,
    num_beams: arguments.NumBeams = None,
    num_return_sequences: arguments.NumReturnSequences = None,
    length_penalty: arguments.LengthPenalty = None,
    early_stopping: arguments.EarlyStopping = None,
    num_beam_groups: arguments.NumBeamGroups = None,
    diversity_penalty: arguments.DiversityPenalty = None,
    condition: arguments.Condition = None,
    force_words: arguments.ForceWords = None,
    language: arguments.Language = None,
    source_language: arguments.SourceLanguage = None,
    task: arguments.Task = None,
    timestamps: arguments.Timestamps = None,
    draft: arguments.Drafter = None,
    draft_model: arguments.DraftModel = None,
    draft_device: arguments.DraftDevice = None, draft_threads: arguments.DraftThreads = None,
    num_assistant_tokens: arguments.NumAssistantTokens = None,
    assistant_confidence_threshold: arguments.Confidence = None,
    draft_store: arguments.DraftStore = None,
    corpus: arguments.Corpus = None,
    verifier: arguments.Verifier = None,
    device: places.Device = None,
    placement: places.Placement = None,
    fallback: places.Fallback = None,
    threads: places.Threads = 1,
    precision: places.Precision = None,
    static: places.Static = False,
    exact: places.Exact = True,
    source_cache: places.SourceCache = None,
    cache_dir: places.CacheDir = "auto",
    no_verify: places.NoVerify = False,
) -> None:  # fmt: skip
    generate(ctx.params)


def generate(typed: dict[str, Any]) -> None:
    """Run with the options as they were typed, by name."""
    from .inputs import Given, suffix_of
    from .outputs import Output

    # Mistakes in the words typed are told before a large bundle is read.
    kind = "json" if typed["as_json"] else typed["output_format"]
    output = Output.of(kind, timings=typed["timings"])
    options = output.checked(generation_options(typed))
    given = Given(
        words=tuple(typed["source"] or ()),
        files=tuple(typed["files"] or ()),
        whole=typed["whole"],
        chat=typed["chat"],
        system=typed["system"],
        suffix=suffix_of(typed["suffix"], typed["suffix_file"]),
        infill=typed["infill"],
    )
    with opened(typed, options) as pipeline:
        try:
            write(pipeline, given, output, options, typed)
        finally:
            tell(pipeline.engine.fallbacks)


def opened(typed: dict[str, Any], options: GenerationOptions) -> Pipeline:
    """The bundle, loaded; what is to be known of that goes to standard error."""
    from edgegen.runtime.opening import load

    from .console import aloud
    from .lists import words

    with aloud():
        return load(
            typed["bundle"],
            typed["device"],
            typed["threads"],
            precision=typed["precision"],
            static=typed["static"],
            exact=typed["exact"],
            fallback=words(typed["fallback"] or ""),
            placement=plan_of(typed),
            source_cache_bytes=int(2**20 * (typed["source_cache"] or 0)),
            cache_dir=None if typed["cache_dir"] == "none" else typed["cache_dir"],
            verify=not typed["no_verify"],
            draft_model=typed["draft_model"],
            draft_device=typed["draft_device"],
            draft_threads=typed["draft_threads"],
            corpus=typed["corpus"],
            calibrate=options.draft != "none" and options.num_beams == 1,
        )


def tell(fallbacks: Sequence[Fallback]) -> None:
    """A line for each reason, of all the parts it moved."""
    moved: dict[tuple[str, str], list[str]] = {}
    for one in fallbacks:
        moved.setdefault((one.to, one.reason), []).append(one.part)
    for (to, reason), parts in moved.items():
        print(f"edgegen: {', '.join(parts)} went on on {to}: {reason}", file=sys.stderr)


def write(
    pipeline: Pipeline,
    given: Given,
    output: Output,
    options: GenerationOptions,
    typed: dict[str, Any],
) -> None:
    """All that is given, one after another or so many together."""
    from . import encodings
    from .inputs import inputs

    manifest = pipeline.bundle.manifest
    if manifest.encoding is not None:
        encodings.check_typed(typed, manifest.name)
        for item in inputs(given, manifest):
            encodings.write(pipeline, item, as_json=output.kind == "json")
        return
    if typed["draft"] is None and typed["draft_model"] is None:
        options = options.with_changes(draft=pipeline.defaults.draft)
    output.check_bundle(manifest, options)
    items = inputs(given, manifest)
    together = 1 if typed["batch_size"] is None else typed["batch_size"]
    workers = 1 if typed["workers"] is None else typed["workers"]
    if max(together, workers) == 1:
        for item in items:
            output.write(pipeline, item, options)
        return
    # Enough of them for seats that fall free to be taken at once.
    while part := list(islice(items, max(1, READ_AHEAD * together * workers))):
        output.write_together(pipeline, part, options, together, workers)


def plan_of(typed: dict[str, Any]) -> Path | str | None:
    """The plan asked for; where nothing is said of places, the one measured here, if any."""
    said = (typed["device"], typed["precision"], typed["static"] or None)
    return typed["placement"] or ("auto" if said == (None, None, None) else None)


def generation_options(typed: dict[str, Any]) -> GenerationOptions:
    """The options given by name, all others at their Python defaults. Raises ``InputError``."""
    from dataclasses import fields

    from edgegen.runtime.options import GenerationOptions

    names = {field.name for field in fields(GenerationOptions)}
    given = {name: value for name, value in typed.items() if name in names}
    if typed["draft_model"] is not None and typed["draft"] is None:
        given["draft"] = "model"
    stopping = typed.get("early_stopping")
    given["early_stopping"] = EARLY.get(str(stopping), stopping)
    return GenerationOptions(
        **{name: value for name, value in given.items() if value not in (None, [], ())}
    )
