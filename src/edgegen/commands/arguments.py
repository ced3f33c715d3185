"""Arguments of ``edgegen run``: names, panels and help. Defaults are Python's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from edgegen.runtime.drafters import DRAFTERS

INPUT, OUTPUT, LENGTH, BEAMS = "Input", "Output", "Length and end", "Beams"
CHOICE, RULES, SPEECH = "Choice of tokens", "Repeats and words", "Speech"
DRAFT, DRAFTED = "Speculation", "Length of drafts"


def option(*names: str, panel: str, help: str, metavar: str = "") -> Any:
    """An option whose default stands in its help, since unset means Python's. A flag takes no
    ``metavar``."""
    return Option(*names, help=help, show_default=False, rich_help_panel=panel, metavar=metavar)


BundleDir = Annotated[Path, Argument(metavar="DIR", help="Bundle folder.", show_default=False)]
Sources = Annotated[
    list[str] | None,
    Argument(metavar="SOURCE", help="Texts, audio files or pictures.", show_default=False),
]
Files = Annotated[
    list[Path] | None,
    option(
        "-f", "--file", panel=INPUT, metavar="FILE",
        help="A file that is one source: a text of any length, audio or a picture. May be "
        "repeated.",
    ),
]  # fmt: skip
Whole = Annotated[
    bool,
    option("--whole", panel=INPUT, help="Take standard input as one text, not one a line."),
]
Chat = Annotated[
    bool,
    option(
        "--chat", panel=INPUT,
        help="Put each source in the bundle's chat template, as a conversation of its own; "
        "at a terminal, one conversation.",
    ),
]  # fmt: skip
System = Annotated[
    str | None,
    option("--system", panel=INPUT, metavar="TEXT", help="What the model is told first; --chat."),
]
Suffix = Annotated[
    str | None,
    option(
        "--suffix", panel=INPUT, metavar="TEXT",
        help="Write what belongs between each source and this text, for models that fill gaps.",
    ),
]  # fmt: skip
SuffixFile = Annotated[
    Path | None,
    option("--suffix-file", panel=INPUT, metavar="FILE", help="The same from a file."),
]
Infill = Annotated[
    bool,
    option(
        "--infill", panel=INPUT,
        help="Fill each source's own gaps, marked <mask_1>, <mask_2> and so on.",
    ),
]  # fmt: skip
BatchSize = Annotated[
    int | None,
    option(
        "--batch-size", panel=INPUT, metavar="N",
        help="Sources decoded together: more words a second, no drafts, and nothing is shown "
        "before several are done. Default: 1.",
    ),
]  # fmt: skip
Workers = Annotated[
    int | None,
    option(
        "--workers", panel=INPUT, metavar="N",
        help="Batches decoded side by side, each with --threads of its own. Default: 1.",
    ),
]  # fmt: skip
Truncate = Annotated[
    bool | None,
    option(
        "--truncate/--no-truncate", panel=INPUT,
        help="Shorten a source that is too long, with a warning, or refuse it. Default: shorten.",
    ),
]  # fmt: skip
OutputFormat = Annotated[
    str,
    option(
        "--output-format", panel=OUTPUT, metavar="KIND",
        help="text, json (one object a line), or for speech srt or vtt subtitles. Default: text.",
    ),
]  # fmt: skip
Json = Annotated[bool, option("--json", panel=OUTPUT, help="Short for --output-format json.")]
Timings = Annotated[
    bool,
    option(
        "--timings", panel=OUTPUT,
        help="Times of each source on standard error, in ms; docs/metrics.md defines them.",
    ),
]  # fmt: skip
Logprobs = Annotated[
    int | None,
    option(
        "--logprobs", panel=OUTPUT, metavar="K",
        help="Log-probabilities of the tokens and of the K likeliest instead; json only.",
    ),
]  # fmt: skip
MaxNewTokens = Annotated[
    int | None,
    option(
        "--max-new-tokens", panel=LENGTH, metavar="N",
        help="Most tokens a sentence, prompt or audio window may give. Default: the bundle's.",
    ),
]  # fmt: skip
MinNewTokens = Annotated[
    int | None,
    option(
        "--min-new-tokens", panel=LENGTH, metavar="N",
        help="Tokens before which the text may not end. Default: the bundle's.",
    ),
]  # fmt: skip
Stop = Annotated[
    list[str] | None,
    option(
        "--stop", panel=LENGTH, metavar="TEXT",
        help="Text that ends the generation and is cut off. May be repeated.",
    ),
]  # fmt: skip
DoSample = Annotated[
    bool | None,
    option(
        "--do-sample/--no-do-sample", panel=CHOICE,
        help="Draw tokens by their probabilities. Default: take the likeliest (greedy).",
    ),
]  # fmt: skip
Temperature = Annotated[
    float | None,
    option(
        "--temperature", panel=CHOICE, metavar="T",
        help="Above 0; below 1 is more certain. Default: 1.",
    ),
]  # fmt: skip
TopK = Annotated[
    int | None,
    option("--top-k", panel=CHOICE, metavar="K", help="Draw from the K likeliest. Default: all."),
]
TopP = Annotated[
    float | None,
    option(
        "--top-p", panel=CHOICE, metavar="P",
        help="Draw from the fewest likeliest that hold this probability. Default: 1, all.",
    ),
]  # fmt: skip
MinP = Annotated[
    float | None,
    option(
        "--min-p", panel=CHOICE, metavar="P",
        help="Leave out tokens less likely than this share of the likeliest. Default: 0, none.",
    ),
]  # fmt: skip
Seed = Annotated[
    int | None,
    option(
        "--seed", panel=CHOICE, metavar="N",
        help="The same seed draws the same text, whatever the drafter. Default: 0.",
    ),
]  # fmt: skip
RepetitionPenalty = Annotated[
    float | None,
    option(
        "--repetition-penalty", panel=RULES, metavar="X",
        help="Above 1 makes what was written less likely, 1 is off. Default: the bundle's.",
    ),
]  # fmt: skip
NoRepeatNgramSize = Annotated[
    int | None,
    option(
        "--no-repeat-ngram-size", panel=RULES, metavar="N",
        help="No run of N tokens comes twice; 0 is off. Default: the bundle's.",
    ),
]  # fmt: skip
EncoderNoRepeatNgramSize = Annotated[
    int | None,
    option(
        "--encoder-no-repeat-ngram-size", panel=RULES, metavar="N",
        help="No run of N tokens of the source is written; 0 is off. Default: the bundle's.",
    ),
]  # fmt: skip
BadWords = Annotated[
    list[str] | None,
    option(
        "--bad-words", panel=RULES, metavar="TEXT",
        help="Text that may not be written. May be repeated.",
    ),
]  # fmt: skip
NumBeams = Annotated[
    int | None,
    option(
        "--num-beams", panel=BEAMS, metavar="N",
        help="Texts followed at once, for the likeliest of all. Default: 1, greedy.",
    ),
]  # fmt: skip
NumReturnSequences = Annotated[
    int | None,
    option(
        "--num-return-sequences", panel=BEAMS, metavar="N",
        help="How many of them to write, each on a line behind its score; of a source that is one "
        "sentence or audio window. Default: 1.",
    ),
]  # fmt: skip
LengthPenalty = Annotated[
    float | None,
    option(
        "--length-penalty", panel=BEAMS, metavar="X",
        help="Above 0 favours long texts, below 0 short ones. Default: 1.",
    ),
]  # fmt: skip
EarlyStopping = Annotated[
    str | None,
    option(
        "--early-stopping", panel=BEAMS, metavar="WHEN",
        help="true: as soon as N texts ended; never: when none can better them; false: when none "
        "is likely to. Default: false.",
    ),
]  # fmt: skip
NumBeamGroups = Annotated[
    int | None,
    option(
        "--num-beam-groups", panel=BEAMS, metavar="N",
        help="Groups of beams that avoid each other's words. Default: 1.",
    ),
]  # fmt: skip
DiversityPenalty = Annotated[
    float | None,
    option(
        "--diversity-penalty", panel=BEAMS, metavar="X",
        help="What a word costs that another group chose at the same place. Default: 0.",
    ),
]  # fmt: skip
Condition = Annotated[
    str | None,
    option(
        "--condition", panel=BEAMS, metavar="RULES",
        help="What must be so of a text: not-empty, not-repetitive, length:MIN-MAX, contains:IDS, "
        "joined by +. Default: nothing.",
    ),
]  # fmt: skip
ForceWords = Annotated[
    list[str] | None,
    option(
        "--force-words", panel=BEAMS, metavar="TEXT",
        help="Text that must be written. May be repeated.",
    ),
]  # fmt: skip
Language = Annotated[
    str | None,
    option(
        "--language", panel=SPEECH, metavar="NAME",
        help="Language spoken, e.g. pt or portuguese; of a translation, the one wanted. "
        "Default: heard or chosen by the model.",
    ),
]  # fmt: skip
SourceLanguage = Annotated[
    str | None,
    option(
        "--source-language", panel=SPEECH, metavar="NAME",
        help="Language a translation is from. Default: the bundle's.",
    ),
]  # fmt: skip
Task = Annotated[
    str | None,
    option(
        "--task", panel=SPEECH, metavar="TASK",
        help="transcribe, or translate into English. Default: transcribe.",
    ),
]  # fmt: skip
Timestamps = Annotated[
    bool | None,
    option(
        "--timestamps/--no-timestamps", panel=SPEECH,
        help="Write when each segment was said, in seconds. Default: no; srt and vtt: yes.",
    ),
]  # fmt: skip
Drafter = Annotated[
    str | None,
    option(
        "--draft", panel=DRAFT, metavar="NAME",
        help=f"Drafter that guesses ahead, for speed: {', '.join(DRAFTERS)}. The text stays the "
        "same, but with --verifier rejection or typical. Default: auto, which drafts only where "
        "that pays here, or model with --draft-model.",
    ),
]  # fmt: skip
DraftModel = Annotated[
    Path | None,
    option(
        "--draft-model", "--draft_model", panel=DRAFT, metavar="DIR",
        help="Bundle of a smaller model that guesses.",
    ),
]  # fmt: skip
DraftDevice = Annotated[
    str | None,
    option(
        "--draft-device", "--draft_device", panel=DRAFT, metavar="NAME",
        help="Where it runs. Default: as --device.",
    ),
]  # fmt: skip
DraftThreads = Annotated[
    int | None,
    option(
        "--draft-threads", panel=DRAFT, metavar="N", help="Its threads. Default: as --threads."
    ),
]  # fmt: skip
Confidence = Annotated[
    float | None,
    option(
        "--assistant-confidence-threshold", panel=DRAFTED, metavar="P",
        help="A draft model stops after a token less likely than this. Default: 0, never.",
    ),
]  # fmt: skip
NumAssistantTokens = Annotated[
    int | None,
    option(
        "--num-assistant-tokens", panel=DRAFTED, metavar="N",
        help="Tokens to guess ahead at a time. Default: edgegen's choice.",
    ),
]  # fmt: skip
DraftStore = Annotated[
    Path | None,
    option(
        "--draft-store", panel=DRAFT, metavar="DIR",
        help="Where recycling and trigram keep what texts taught them. Default: nowhere.",
    ),
]  # fmt: skip
Corpus = Annotated[
    Path | None,
    option(
        "--corpus", panel=DRAFT, metavar="FILE",
        help="Text file that suffix and auto may copy from: texts like those to be written.",
    ),
]  # fmt: skip
Verifier = Annotated[
    str | None,
    option(
        "--verifier", panel=DRAFT, metavar="NAME",
        help="How guesses are accepted: match (same text), rejection (same distribution) or "
        "typical (lossy). Default: match.",
    ),
]  # fmt: skip
