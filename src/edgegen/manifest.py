"""What edgegen.json says: strict, typed, versioned. docs/bundle.md is the written spec.

A reader refuses unknown majors and unknown fields; every path is relative to the bundle.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from edgegen.graph import Graph

SCHEMA_VERSION = "1.0"

CacheKind = Literal["none", "append", "in_place", "stateful", "recurrent"]
RowIndependence = Literal["bit", "rounding"]


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every record in the manifest."""


class File(Part):
    """A file of the bundle. ``path`` uses forward slashes and stays inside the folder."""

    path: str
    sha256: str
    size: int


class Tokenizer(Part):
    """``kind``: ``tokenizers`` (a tokenizer.json at ``path``) or ``bytes`` (ids = byte + offset)."""

    kind: Literal["tokenizers", "bytes"]
    path: str | None = None
    offset: int = 0


class Precision(Part):
    """How the weights of a variant are held. ``rows`` says whether a row's outputs are independent
    of the other rows of a call bit for bit or up to rounding."""

    weight_format: Literal["fp32", "fp16", "bf16", "int8", "int4"]
    group_size: int = 0
    symmetric: bool = True
    rows: RowIndependence = "bit"
    requantised: int = 0  # matrices that were already quantised and had to be quantised anew
    imported: int = 0  # matrices whose quantised codes were taken over exactly


class Cache(Part):
    """The decoder's memory. ``layers`` pairs of ``width`` ports; ``capacity`` 0 grows."""

    kind: CacheKind
    layers: int = 0
    heads: int = 0
    head_dim: int = 0


class Variant(Part):
    """One graph for one backend. ``file`` is the graph, ``weights`` files it needs beside it."""

    format: Literal["onnx", "openvino"]
    precision: Precision
    graph: Graph
    file: str
    weights: tuple[str, ...] = ()
    cache: Cache = Cache(kind="none")
    lowering: str = "plain"
    settings: dict[str, str] = {}
    # Static shapes by free dimension, e.g. {"S": 64, "past": 128, "n": 8}; empty is dynamic.
    buckets: dict[str, int] = {}


class Component(Part):
    """``features``, ``encode``, ``decode``, ``heads``...: the same function, several variants."""

    variants: tuple[Variant, ...]


class GenerationDefaults(Part):
    """Special ids and limits. Ids are the target tokenizer's.

    ``start`` is fed before the first token; -1 stands for an all-zero embedding (Marian).
    ``forced`` are (index among generated tokens, id). ``max_positions`` 0 means no limit.
    """

    start: tuple[int, ...]
    end: tuple[int, ...]
    pad: int = 0
    source_prefix: tuple[int, ...] = ()
    source_suffix: tuple[int, ...] = ()
    forced: tuple[tuple[int, int], ...] = ()
    suppress: tuple[int, ...] = ()
    suppress_at_start: tuple[int, ...] = ()
    max_positions: int = 0
    max_source: int = 0
    max_new_tokens: int = 256


class Speech(Part):
    """What a speech model adds: window, timestamp tokens, languages (empty: one language)."""

    sample_rate: int = 16000
    window_samples: int = 480000
    samples_per_frame: int = 160
    seconds_per_timestamp: float = 0.02
    timestamp_begin: int = 0
    no_timestamps: int = 0
    no_speech: int = -1
    start_of_previous: int = -1
    tasks: dict[str, int] = {}
    languages: dict[str, int] = {}
    max_initial_timestamp: int = 50


class Chat(Part):
    """A Jinja chat template and the special strings it may use."""

    template: str
    bos_token: str = ""
    eos_token: str = ""


class DraftComponent(Part):
    """A drafter that was trained for one target: named by the target's decode graph hash."""

    method: str
    target_sha256: str
    lossless: Literal["greedy-identical", "sample-identical", "distribution-identical", "lossy"]
    component: str


class PromptParity(Part):
    """One prompt through checkpoint and bundle. ``error`` is relative to the logits' scale."""

    prompt: str
    tokens: int
    agreement: float
    error: float


class Parity(Part):
    """The gate's result for one format and precision; ``skipped`` when ``--no-parity`` was given."""

    format: str
    weight_format: str
    skipped: bool = False
    reference: str = ""
    max_error: float = 0.0
    rows_error: float = 0.0  # n=1 against n=5 rows
    agreement: float = 0.0
    prompts: tuple[PromptParity, ...] = ()


class Provenance(Part):
    source: str
    kind: str
    revision: str
    licence: str
    created: str
    command: str
    versions: dict[str, str]
    notes: tuple[str, ...] = ()


class Manifest(Part):
    schema_version: str
    family: str
    model_type: str
    task: Literal["text2text-generation", "automatic-speech-recognition", "text-generation"]
    name: str
    parameters: int
    vocabulary: int
    generation: GenerationDefaults
    tokenizers: dict[str, Tokenizer]
    components: dict[str, Component]
    files: tuple[File, ...]
    provenance: Provenance
    speech: Speech | None = None
    chat: Chat | None = None
    drafts: tuple[DraftComponent, ...] = ()
    parity: tuple[Parity, ...] = ()
    # Port names a graph from another exporter uses for the names of docs/bundle.md.
    port_names: dict[str, str] = {}

    def to_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"
