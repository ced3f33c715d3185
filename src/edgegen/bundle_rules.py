"""The rules a manifest of untrusted origin must keep. Knows edgegen.json alone, no other file.

Types, ranges and unknown fields are checked by decoding into ``Manifest``; here stand the version
policy, the form of paths and what ties fields together. docs/bundle.md gives the reasons.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

import msgspec

from edgegen.errors import BundleError
from edgegen.graph import Port
from edgegen.manifest import (
    CACHE_PORTS,
    SCHEMA_VERSION,
    DraftComponent,
    GenerationDefaults,
    Manifest,
    Tokenizer,
    Variant,
)
from edgegen.untrusted import UNREADABLE, reason, shown

MANIFEST_NAME = "edgegen.json"
MAX_MANIFEST_BYTES = 16 * 2**20
MAX_FILES = 10_000
MAX_BYTES = 2**40  # of all files together, and of any one buffer a shape asks for
MAX_RANK = 16
MAX_CACHE_ROW = 2**22  # keys of one position in all layers; the largest models have 2**18
SHOWN_FAULTS = 20

DTYPES = frozenset(
    (
        *("bool", "int4", "int8", "int16", "int32", "int64"),
        *("uint4", "uint8", "uint16", "uint32", "uint64"),
        *("float8_e4m3fn", "float8_e5m2", "float16", "bfloat16", "float32", "float64"),
    )
)
ENCODER_TASKS = frozenset(
    ("feature-extraction", "text-classification", "token-classification", "fill-mask")
)
# Characters every file system keeps as they are, in one spelling.
_PATH_PART = re.compile(r"[A-Za-z0-9._+=@,~-]{1,128}")
_DRIVE = re.compile(r"[A-Za-z]:")
_DEVICE_NAME = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_FREE_DIM = re.compile(r"[A-Za-z_]\w{0,63}(\+\w{1,64}){0,7}", re.ASCII)
_VERSION = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})")


class _Versioned(msgspec.Struct):
    """All that is read before the version is known."""

    schema_version: str


def read_manifest(data: bytes) -> Manifest:
    """Decode the bytes of edgegen.json.

    Raises ``BundleError`` for other majors, and for whatever is not this major's JSON; nothing
    else escapes, however the bytes were made.
    """
    try:
        version = msgspec.json.decode(data, type=_Versioned).schema_version
    except UNREADABLE as fault:
        raise BundleError(f"{MANIFEST_NAME} cannot be read: {reason(fault)}.") from None
    newer = _check_version(version)
    try:
        return msgspec.json.decode(data, type=Manifest)
    except UNREADABLE as fault:
        way_out = (
            f" It has version {version}, newer than {SCHEMA_VERSION}: pip install -U edgegen."
            if newer
            else ""
        )
        raise BundleError(
            f"{MANIFEST_NAME} does not follow version {SCHEMA_VERSION}: {reason(fault)}.{way_out}"
        ) from None


def _check_version(version: str) -> bool:
    """True when a newer minor; raises ``BundleError`` for a major this reader does not know."""
    found = _VERSION.fullmatch(version)
    if not found:
        raise BundleError(
            f"{MANIFEST_NAME}: schema_version must look like {SCHEMA_VERSION!r}, "
            f"not {shown(version)}."
        )
    own_major, own_minor = map(int, SCHEMA_VERSION.split("."))
    major, minor = int(found[1]), int(found[2])
    if major != own_major:
        way_out = "pip install -U edgegen" if major > own_major else "export the model anew"
        raise BundleError(
            f"{MANIFEST_NAME} has version {version}; this edgegen reads {own_major}.x: {way_out}."
        )
    return minor > own_minor


def one_line(faults: Iterable[str]) -> str:
    """All faults as one line; past ``SHOWN_FAULTS`` they are counted."""
    listed = list(faults)
    more = len(listed) - SHOWN_FAULTS
    return "; ".join(listed[:SHOWN_FAULTS]) + (f"; and {more} more" if more > 0 else "") + "."


def path_fault(path: str) -> str | None:
    """Why ``path`` may not name a file of a bundle, or None."""
    if "\0" in path:
        return "holds a NUL"
    if "\\" in path:
        return "holds a backslash; use /"
    if path.startswith("/") or _DRIVE.match(path):
        return "is not relative to the bundle"
    parts = path.split("/")
    if ".." in parts:
        return "leaves the bundle"
    for part in parts:
        if not _PATH_PART.fullmatch(part) or part.endswith(".") or _DEVICE_NAME.fullmatch(part):
            return f"has the part {shown(part)!r}, which is not a name on every system"
    if path.casefold() == MANIFEST_NAME:
        return "is the manifest itself"
    return None


def manifest_faults(manifest: Manifest) -> list[str]:
    """Everything in ``manifest`` that decoding cannot see to be wrong; empty when it may be used.

    Also to be run on manifests made in Python: those were never decoded, so round-trip them first.
    """
    listed = {file.path for file in manifest.files}
    faults = list(_file_list_faults(manifest))
    for name, tokenizer in manifest.tokenizers.items():
        faults += _tokenizer_faults(f"tokenizer {shown(name)}", tokenizer, listed)
    for name, component in manifest.components.items():
        for index, variant in enumerate(component.variants):
            faults += _variant_faults(f"component {shown(name)}[{index}]", variant, listed)
    faults += _id_faults(manifest.generation, manifest.vocabulary)
    faults += _language_faults(manifest)
    faults += _encoding_faults(manifest)
    faults += _infill_faults(manifest)
    faults += _draft_faults(manifest.drafts, set(manifest.components))
    faults += _condition_faults(manifest)
    return faults


def _file_list_faults(manifest: Manifest) -> Iterator[str]:
    if len(manifest.files) > MAX_FILES:
        yield f"{len(manifest.files)} files are listed, at most {MAX_FILES} may be"
    if sum(file.size for file in manifest.files) > MAX_BYTES:
        yield f"the files are said to hold more than {MAX_BYTES} bytes"
    seen: dict[str, str] = {}
    for file in manifest.files:
        if fault := path_fault(file.path):
            yield f"path {shown(file.path)} {fault}"
            continue
        other = seen.setdefault(file.path.casefold(), file.path)
        if other is not file.path:
            same = "twice" if other == file.path else f"beside {other}, the same to some systems"
            yield f"path {file.path} is listed {same}"


def _tokenizer_faults(where: str, tokenizer: Tokenizer, listed: set[str]) -> Iterator[str]:
    if tokenizer.kind == "tokenizers" and tokenizer.path is None:
        yield f"{where} has no path"
    if tokenizer.path is not None and tokenizer.path not in listed:
        yield f"{where} names {shown(tokenizer.path)}, which is not in files"
    if tokenizer.vocabulary is not None and tokenizer.vocabulary not in listed:
        yield f"{where} names {shown(tokenizer.vocabulary)}, which is not in files"


def _variant_faults(where: str, variant: Variant, listed: set[str]) -> Iterator[str]:
    for path in (variant.file, *variant.weights):
        if path not in listed:
            yield f"{where} names {shown(path)}, which is not in files"
    beside = PurePosixPath(variant.file).parent
    for path in variant.weights:
        if beside not in PurePosixPath(path).parents:
            yield f"{where} has weights {shown(path)} outside the folder of its graph"
    fixed = variant.fixed().graph
    for side in (fixed.inputs, fixed.outputs):
        if len({port.name for port in side}) < len(side):
            yield f"{where} names a port twice"
        for port in side:
            yield from _port_faults(where, port)
    yield from _cache_faults(where, variant)


def _port_faults(where: str, port: Port) -> Iterator[str]:
    name = shown(port.name)
    if not port.name or len(port.name) > 256:
        yield f"{where} has a port name of {len(port.name)} characters"
    if port.dtype not in DTYPES:
        yield f"{where} port {name} has the unknown type {shown(port.dtype)}"
    if len(port.shape) > MAX_RANK:
        yield f"{where} port {name} has {len(port.shape)} dimensions, at most {MAX_RANK} may be"
        return
    sizes = [dim for dim in port.shape if isinstance(dim, int)]
    if any(size < 0 for size in sizes) or math.prod(max(1, s) for s in sizes) * 8 > MAX_BYTES:
        yield f"{where} port {name} has an absurd shape"
    for dim in port.shape:
        if isinstance(dim, str) and not _FREE_DIM.fullmatch(dim):
            yield f"{where} port {name} has a dimension {shown(dim)!r}, which is no name or sum"


def _cache_faults(where: str, variant: Variant) -> Iterator[str]:
    """Runtimes allocate caches from these numbers before any graph has agreed with them."""
    cache = variant.cache
    numbers = cache.layers * cache.heads * cache.head_dim
    if cache.kind in ("append", "in_place", "recurrent") and not numbers:
        yield f"{where} has a cache of kind {cache.kind} without layers, heads or head_dim"
    if cache.layers * max(1, cache.heads) * max(1, cache.head_dim) > MAX_CACHE_ROW:
        yield f"{where} asks for more than {MAX_CACHE_ROW} numbers a position in its cache"
    if cache.memory_first and cache.kind != "in_place":
        yield f"{where} has a cache of kind {cache.kind} that begins with a memory"
    if cache.held != "fp32" and cache.kind != "in_place":
        yield f"{where} has a cache of kind {cache.kind} held in {cache.held}"
    if list(cache.edges) != sorted(set(cache.edges)):
        yield f"{where} has a cache whose edges do not rise"
    ports = [port for port in variant.graph.inputs if port.name.startswith(CACHE_PORTS)]
    if any(port.dtype != cache.dtype for port in ports):
        yield f"{where} holds its cache in {cache.held} and has ports for it of another type"
    short = cache.window_layers
    if len(set(short)) < len(short) or max(short, default=-1) >= cache.layers:
        yield f"{where} has a cache with windows in layers it does not have"
    if short and (not cache.window or cache.memory_first):
        yield f"{where} has a cache with windows in some layers and none to go by"
    if 2 * numbers * variant.buckets.get("capacity", 1) * 4 > MAX_BYTES:
        yield f"{where} asks for a cache of more than {MAX_BYTES} bytes"


def _id_faults(generation: GenerationDefaults, vocabulary: int) -> Iterator[str]:
    """Ids index rows of logits, so one outside the vocabulary would fail in mid-sentence."""
    groups: dict[str, tuple[int, ...]] = {
        "start": generation.start,
        "end": generation.end,
        "pad": (generation.pad,),
        "forced": tuple(token for _, token in generation.forced),
        "suppress": generation.suppress,
        "suppress_at_start": generation.suppress_at_start,
        "forced_end": (generation.forced_end,),
        "bad_words_ids": sum(generation.bad_words_ids, ()),
    }
    for name, ids in groups.items():
        if ids and max(ids) >= vocabulary:
            yield f"generation.{name} holds {max(ids)}, the vocabulary has {vocabulary} ids"


def _language_faults(manifest: Manifest) -> Iterator[str]:
    """Languages the decoder is given or made to say index its own tables."""
    translation = manifest.translation
    if translation is None:
        return
    highest = max(translation.languages.values())
    if translation.target != "before" and highest >= manifest.vocabulary:
        yield f"translation holds {highest}, the vocabulary has {manifest.vocabulary} ids"
    if translation.default_source and translation.default_source not in translation.languages:
        yield f"translation has the unknown language {shown(translation.default_source)}"


def _infill_faults(manifest: Manifest) -> Iterator[str]:
    """Marks are fed to the decoder, and gaps end with a token of its."""
    infill = manifest.infill
    if infill is None:
        return
    highest = max(*infill.marks.values(), *infill.separator, infill.end)
    if highest >= manifest.vocabulary:
        yield f"infill holds {highest}, the vocabulary has {manifest.vocabulary} ids"


def _encoding_faults(manifest: Manifest) -> Iterator[str]:
    """An encoder alone is read by its record; with a decoder there is nothing for one to say."""
    alone = manifest.task in ENCODER_TASKS
    if alone != (manifest.encoding is not None):
        yield f"task {manifest.task} {'needs' if alone else 'has no'} encoding record"
    if alone and set(manifest.components) != {"encode"}:
        yield f"task {manifest.task} has components other than encode"
    if manifest.encoding is not None and manifest.encoding.mask >= manifest.vocabulary:
        yield f"encoding.mask is {manifest.encoding.mask}, the vocabulary has fewer ids"


def _draft_faults(drafts: tuple[DraftComponent, ...], components: set[str]) -> Iterator[str]:
    for draft in drafts:
        if draft.component not in components:
            yield f"draft {shown(draft.method)} names no component {shown(draft.component)}"


def _condition_faults(manifest: Manifest) -> Iterator[str]:
    for one in manifest.conditions:
        if one.component not in manifest.components:
            yield f"condition {shown(one.condition)} names no component {shown(one.component)}"
        if one.component in ("features", "encode", "decode"):
            yield f"condition {shown(one.condition)} has {one.component} for a classifier"
