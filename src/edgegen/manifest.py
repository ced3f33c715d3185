"""What edgegen.json says: strict, typed, versioned. docs/bundle.md is the written spec.

A reader refuses unknown majors and unknown fields; every path is relative to the bundle. Ranges
stand in the types, so that decoding checks them and the JSON schema shows them; what ties fields
together is checked in ``bundle_rules.py``.
"""

from __future__ import annotations

from inspect import cleandoc
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from edgegen.graph import Graph, pinned

SCHEMA_VERSION = "2.0"

CacheKind = Literal["none", "append", "in_place", "stateful", "recurrent"]
RowIndependence = Literal["bit", "rounding"]
MemoryFormat = Literal["fp32", "int8"]
HeadFormat = Literal["full", "refined"]
# How ports of a cache in place begin.
CACHE_PORTS = ("key_cache_", "value_cache_")

# Bytes of a file, elements, parameters: nothing edgegen is for reaches 1 Ti of anything.
Count = Annotated[int, Meta(ge=0, le=2**40)]
# Lengths in tokens, rows or samples: buffers are allocated from them.
Length = Annotated[int, Meta(ge=0, le=2**24)]
Positive = Annotated[int, Meta(ge=1, le=2**24)]
Small = Annotated[int, Meta(ge=0, le=2**20)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
OptionalId = Annotated[int, Meta(ge=-1, le=2**31 - 1)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Magnitude = Annotated[float, Meta(ge=0)]
# The length forbids the line break that "$" lets through.
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
RelativePath = Annotated[str, Meta(min_length=1, max_length=512)]
Name = Annotated[str, Meta(min_length=1, max_length=256)]


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every record in the manifest."""


class File(Part, frozen=True, kw_only=True):
    """A file of the bundle. ``path`` uses forward slashes and stays inside the folder."""

    path: RelativePath
    sha256: Sha256
    size: Count


class Tokenizer(Part, frozen=True, kw_only=True):
    """``kind``: ``tokenizers`` (a tokenizer.json at ``path``) or ``bytes`` (id = byte + offset).

    ``vocabulary`` names a JSON object of pieces and ids: the tokenizer.json then only cuts text
    into pieces, and a piece the object lacks is its ``<unk>``.
    """

    kind: Literal["tokenizers", "bytes"]
    path: RelativePath | None = None
    offset: Small = 0
    vocabulary: RelativePath | None = None


class Precision(Part, frozen=True, kw_only=True):
    """How the weights of a variant are held. ``rows`` says whether a row's outputs are independent
    of the other rows of a call bit for bit or up to rounding.

    ``qdq``: weights of 8 bits and activations of 16, scales of both fixed at the export.
    ``memory``: how ``encode`` leaves keys and values of the source and ``decode`` reads them.
    ``head``: how ``decode`` reads its output table; ``refined`` is in 4 bits first and again in
    the weights' own for the words that come out on top, so other logits are those of 4 bits.
    """

    weight_format: Literal["fp32", "fp16", "bf16", "int8", "int4", "qdq"]
    group_size: Small = 0
    symmetric: bool = True
    rows: RowIndependence = "bit"
    memory: MemoryFormat = "fp32"
    head: HeadFormat = "full"
    requantised: Count = 0  # matrices that were already quantised and had to be quantised anew
    imported: Count = 0  # matrices whose quantised codes were taken over exactly


class Cache(Part, frozen=True, kw_only=True):
    """The decoder's memory: ``layers`` pairs of key and value ports of ``heads`` x ``head_dim``.

    A ``recurrent`` cache is ``layers`` states of ``heads * head_dim`` numbers. How many rows an
    ``in_place`` cache holds is the variant's ``buckets["capacity"]``; without it the runtime
    chooses. A call may write ``spare`` rows beyond its own, which mean nothing. With
    ``memory_first`` an ``in_place`` cache begins with the memory's rows, which no port counts.
    ``window_layers`` see the last ``window`` positions only: their keys and values may be left out
    but for the last ``window - 1`` rows before a call. ``held`` is how an ``in_place`` cache holds
    its numbers; int8 are codes whose scales the graph alone knows. Rows from one of ``edges`` on,
    which count those of a memory that comes first, are summed otherwise than rows before it: a call
    with a draft stays on one side.
    """

    kind: CacheKind
    layers: Small = 0
    heads: Small = 0
    head_dim: Small = 0
    spare: Small = 0
    memory_first: bool = False
    window: Small = 0
    window_layers: tuple[Small, ...] = ()
    held: MemoryFormat = "fp32"
    edges: tuple[Positive, ...] = ()

    def alike(self, rows: int) -> int | None:
        """How many rows may come after ``rows`` before any are summed otherwise; None is no end."""
        return next((edge - rows for edge in self.edges if edge >= rows), None)

    @property
    def dtype(self) -> Literal["float32", "int8"]:
        """Of the numbers or codes it holds."""
        return "int8" if self.held == "int8" else "float32"


class Variant(Part, frozen=True, kw_only=True):
    """One graph for one backend. ``file`` is the graph, ``weights`` files it needs beside it."""

    format: Literal["onnx", "openvino"]
    precision: Precision
    graph: Graph
    file: RelativePath
    weights: tuple[RelativePath, ...] = ()
    cache: Cache = Cache(kind="none")
    lowering: str = "plain"
    settings: dict[str, str] = {}
    # Static shapes by free dimension, e.g. {"S": 64, "past": 128, "n": 8}; empty is dynamic.
    buckets: dict[Name, Positive] = {}

    @property
    def static(self) -> bool:
        """Whether the graph takes one size only; how many rows a buffer has is another matter."""
        return bool(self.buckets.keys() - {"capacity"})

    def fixed(self) -> Variant:
        """The variant with the sizes of its buckets in its ports, as a device compiles it."""
        return msgspec.structs.replace(self, graph=pinned(self.graph, self.buckets))


class Component(Part, frozen=True, kw_only=True):
    """``features``, ``encode``, ``decode``, ``heads``...: the same function, several variants."""

    variants: Annotated[tuple[Variant, ...], Meta(min_length=1)]


class GenerationDefaults(Part, frozen=True, kw_only=True):
    """Special ids and limits. Ids are the target tokenizer's.

    ``start`` is fed before the first token; -1 stands for an all-zero embedding (Marian).
    ``source_prefix`` and ``source_suffix`` stand around a source's own ids; where both are empty,
    what the tokenizer's post-processor puts there. ``forced`` are (index among generated tokens,
    id), ``forced_end`` is the token at the length limit (-1: none). ``max_positions`` 0 means no
    limit. From ``min_new_tokens`` on: rules that hold unless a request says otherwise.
    """

    start: tuple[OptionalId, ...]
    end: tuple[TokenId, ...]
    pad: TokenId = 0
    source_prefix: tuple[TokenId, ...] = ()
    source_suffix: tuple[TokenId, ...] = ()
    forced: tuple[tuple[Small, TokenId], ...] = ()
    forced_end: OptionalId = -1
    suppress: tuple[TokenId, ...] = ()
    suppress_at_start: tuple[TokenId, ...] = ()
    max_positions: Length = 0
    max_source: Length = 0
    # Long text is split into sentences, each its own source.
    sentences: bool = False
    # The rows of a prompt see each other, those behind it what came before: a prefix-LM.
    bidirectional_prompt: bool = False
    # The source is the decoder's prompt too, in place of ``start``.
    prompt_from_source: bool = False
    max_new_tokens: Positive = 256
    bad_words_ids: tuple[tuple[TokenId, ...], ...] = ()
    min_new_tokens: Length = 0
    no_repeat_ngram_size: Small = 0
    encoder_no_repeat_ngram_size: Small = 0
    repetition_penalty: Annotated[float, Meta(gt=0)] = 1.0
    # Of beam searches alone, which a request asks for.
    length_penalty: Annotated[float, Meta(ge=-100, le=100)] = 1.0
    early_stopping: bool | Literal["never"] = False


class Translation(Part, frozen=True, kw_only=True):
    """Languages a text model takes: its own codes, and the tokens that say them.

    ``source``: the source language's token stands before or after the whole source, or nowhere.
    ``target``: the wanted language's token is the decoder's start, is forced as the first token, or
    stands before the source. ``default_source`` may be empty.
    """

    languages: Annotated[dict[Name, TokenId], Meta(min_length=1)]
    source: Literal["none", "before", "after"]
    target: Literal["start", "first", "before"]
    default_source: Annotated[str, Meta(max_length=256)] = ""


class Infill(Part, frozen=True, kw_only=True):
    """How a decoder fills gaps. A mark stands for each gap in the text, in this order; behind the
    text come ``separator`` and the mark of the gap to fill, whose text ends with ``end``."""

    marks: Annotated[dict[Name, TokenId], Meta(min_length=1)]
    separator: tuple[TokenId, ...]
    end: TokenId


class Speech(Part, frozen=True, kw_only=True):
    """What a speech model adds: window, timestamp tokens, languages (empty: one language).

    ``window_samples`` is the most a model hears at once; with ``padded`` it always hears that many,
    the rest being silence. ``tokens_per_second`` bounds a window's text by its sound (0: nothing
    does). ``timestamp_begin`` 0: the model writes no times.
    """

    sample_rate: Positive = 16000
    window_samples: Positive = 480000
    padded: bool = True
    tokens_per_second: Magnitude = 0.0
    samples_per_frame: Positive = 160
    seconds_per_timestamp: Magnitude = 0.02
    timestamp_begin: TokenId = 0
    no_timestamps: TokenId = 0
    no_speech: OptionalId = -1
    start_of_previous: OptionalId = -1
    tasks: dict[str, TokenId] = {}
    languages: dict[str, TokenId] = {}
    max_initial_timestamp: Small = 50


class Encoding(Part, frozen=True, kw_only=True):
    """What an encoder that stands alone gives. ``width`` numbers a token or text.

    ``pooling`` made a text's vector of its tokens', ``unit``: scaled to length 1. ``labels`` name
    the classes in the order of ``logits``, which ``scores`` turns into probabilities. ``mask`` is
    the token that stands for a word to be found, -1 where there is none.
    """

    width: Positive
    pooling: Literal["none", "cls", "mean", "max"] = "none"
    unit: bool = False
    labels: tuple[Name, ...] = ()
    scores: Literal["softmax", "sigmoid", "none"] = "softmax"
    mask: OptionalId = -1


class Image(Part, frozen=True, kw_only=True):
    """How a picture becomes the encoder's ``pixel_values``, in this order.

    RGB bytes are resized to ``resize_height`` x ``resize_width`` by the filter ``resample`` (both
    0: not at all), cut to ``height`` x ``width`` around the middle, multiplied by ``scale``, and
    brought to ``(x - mean) / std`` channel by channel.
    """

    height: Annotated[int, Meta(ge=1, le=2**14)]
    width: Annotated[int, Meta(ge=1, le=2**14)]
    resize_height: Annotated[int, Meta(ge=0, le=2**14)] = 0
    resize_width: Annotated[int, Meta(ge=0, le=2**14)] = 0
    resample: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = "bilinear"
    scale: Magnitude = 1 / 255
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


class Chat(Part, frozen=True, kw_only=True):
    """A Jinja chat template and the special strings it may use."""

    template: str
    bos_token: str = ""
    eos_token: str = ""


class DraftComponent(Part, frozen=True, kw_only=True):
    """A drafter that was trained for one target: named by the target's decode graph hash."""

    method: str
    target_sha256: Sha256
    lossless: Literal["greedy-identical", "sample-identical", "distribution-identical", "lossy"]
    component: str


class ConditionComponent(Part, frozen=True, kw_only=True):
    """A classifier trained for one target and one condition, written as requests write it: the
    component gives a text's chance of it from the decoder's ``hidden``."""

    condition: Name
    target_sha256: Sha256
    component: str


class PromptParity(Part, frozen=True, kw_only=True):
    """One prompt through checkpoint and bundle. ``error`` is relative to the logits' scale."""

    prompt: str
    tokens: Length
    agreement: Fraction
    error: Magnitude


class Parity(Part, frozen=True, kw_only=True):
    """The gate's result for one format and precision; ``skipped`` when ``--no-parity`` was set."""

    format: str
    weight_format: str
    memory: MemoryFormat = "fp32"
    cache: MemoryFormat = "fp32"
    head: HeadFormat = "full"
    skipped: bool = False
    reference: str = ""
    max_error: Magnitude = 0.0
    rows_error: Magnitude = 0.0  # n=1 against n=5 rows
    agreement: Fraction = 0.0
    prompts: tuple[PromptParity, ...] = ()


class Provenance(Part, frozen=True, kw_only=True):
    """Where the weights came from and what turned them into graphs."""

    source: str
    kind: str
    revision: str
    licence: str
    created: str
    command: str
    versions: dict[str, str]
    notes: tuple[str, ...] = ()


class Manifest(Part, frozen=True, kw_only=True):
    """The whole of edgegen.json."""

    schema_version: str
    family: str
    model_type: str
    task: Literal[
        "text2text-generation",
        "automatic-speech-recognition",
        "text-generation",
        "image-to-text",
        "feature-extraction",
        "text-classification",
        "token-classification",
        "fill-mask",
    ]
    name: str
    parameters: Count
    vocabulary: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    generation: GenerationDefaults
    tokenizers: dict[Name, Tokenizer]
    components: Annotated[dict[Name, Component], Meta(min_length=1)]
    files: tuple[File, ...]
    provenance: Provenance
    speech: Speech | None = None
    image: Image | None = None
    translation: Translation | None = None
    infill: Infill | None = None
    encoding: Encoding | None = None
    chat: Chat | None = None
    drafts: tuple[DraftComponent, ...] = ()
    conditions: tuple[ConditionComponent, ...] = ()
    parity: tuple[Parity, ...] = ()
    # Port names a graph from another exporter uses for the names of docs/bundle.md.
    port_names: dict[str, str] = {}

    def to_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"


def held_as(numbers: Precision | Parity) -> str:
    """``int8``, and what is held otherwise than usual: ``int8, memory int8, head refined``."""
    parts = {"memory": numbers.memory}
    if isinstance(numbers, Parity):
        parts["cache"] = numbers.cache
    told = [f"{part} {held}" for part, held in parts.items() if held != "fp32"]
    if numbers.head != "full":
        told.append(f"head {numbers.head}")
    return ", ".join([numbers.weight_format, *told])


def json_schema() -> dict[str, Any]:
    """The JSON schema of ``edgegen.json``; docs/bundle.schema.json is this, written out."""
    schema = msgspec.json.schema(Manifest)
    for kind in schema["$defs"].values():
        if "description" in kind:  # Python 3.13 takes a docstring's indentation away by itself
            kind["description"] = cleandoc(kind["description"])
    return schema
