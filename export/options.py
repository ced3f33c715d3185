"""What the user chose for an export. Checked once, when made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from edgegen.errors import ExportError
from edgegen.manifest import HeadFormat, MemoryFormat
from edgegen.registry import unknown

WeightFormat = Literal["fp32", "fp16", "bf16", "int8", "int4", "qdq"]
Format = Literal["onnx", "openvino"]
CacheKind = Literal["in_place", "append", "stateful"]
WEIGHT_FORMATS: tuple[WeightFormat, ...] = ("fp32", "fp16", "bf16", "int8", "int4", "qdq")
FORMATS: tuple[Format, ...] = ("onnx", "openvino")
# The ways a format's decoders may hold keys and values; unless others are asked for, the first.
CACHES: Mapping[Format, tuple[CacheKind, ...]] = {
    "onnx": ("in_place", "append"),
    "openvino": ("append", "stateful"),
}
TAPS = ("topk", "hidden")
# Graphs that may multiply in 8-bit integers.
INTEGER = ("encode", "decode")
MEMORIES: tuple[MemoryFormat, ...] = ("fp32", "int8")
HEADS: tuple[HeadFormat, ...] = ("full", "refined")
MOST_STATIC = 2**15
MOST_DIGITS = 9
LEAST_GROUP, MOST_GROUP = 16, 1024


@dataclass(frozen=True, kw_only=True)
class StaticSizes:
    """Sizes of graphs for devices that compile fixed shapes; a graph for each combination.

    ``source`` tokens a source may have, ``cache`` rows of the text that stand before a call,
    ``tokens`` rows of a call: 1, and a draft with the token before it.
    """

    source: tuple[int, ...] = (32, 64, 128, 256)
    cache: tuple[int, ...] = (64, 128, 256)
    tokens: tuple[int, ...] = (1, 8)

    def __post_init__(self) -> None:
        faults = [
            f"{name}={','.join(map(str, sizes))} (use numbers from 1 to {MOST_STATIC}, rising)"
            for name, sizes in (
                ("source", self.source), ("cache", self.cache), ("tokens", self.tokens),
            )
            if not sizes or list(sizes) != sorted(set(sizes)) or sizes[0] < 1
            or sizes[-1] > MOST_STATIC
        ]  # fmt: skip
        if self.tokens == (1,):
            faults.append("tokens=1 (use a larger size too, which drafts are verified with)")
        if faults:
            raise ExportError(f"static sizes: {'; '.join(faults)}.")

    @classmethod
    def parse(cls, words: Sequence[str]) -> StaticSizes:
        """From ``source=32,64 cache=64 tokens=1,8``; what is left out has its default."""
        said: dict[str, tuple[int, ...]] = {}
        names = [field.name for field in fields(cls)]
        for word in " ".join(words).split():
            name, equals, sizes = word.partition("=")
            numbers = sizes.split(",")
            if name not in names or not equals or not all(map(is_size, numbers)):
                shown = word if len(word) <= 60 else word[:57] + "..."
                raise ExportError(
                    f"static sizes: {shown!r} is not one of source=N,N..., cache=N,N... and "
                    f"tokens=N,N..., N up to {MOST_STATIC}; write e.g. --static source=32,64 "
                    "cache=64,128 tokens=1,8."
                )
            if name in said:
                raise ExportError(f"static sizes: {name} is said twice; give all of it at once.")
            said[name] = tuple(map(int, numbers))
        return cls(**said)


def is_size(digits: str) -> bool:
    """Whether it is a whole number; of very many digits Python makes none."""
    return digits.isdecimal() and len(digits) <= MOST_DIGITS


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """``group_size`` inputs share a scale: 32 is closest to the checkpoint, 128 is faster.

    ``taps`` are further outputs of ``decode``, each in a graph over the same weights that only
    those who want it open: ``topk``, the ids of the largest logits, for drafters that learn;
    ``hidden``, what the logits are made of, for classifiers of conditions.
    ``caches`` are the ways a decoder may hold keys and values, a graph each over the same weights:
    in a buffer it writes into (``in_place``, ONNX on the CPU), outside it (``append``, which GPUs
    need) or inside (``stateful``, OpenVINO). None named is the first of ``CACHES`` a format.
    ``memory`` is how the source's keys and values are held: ``int8`` is a quarter of the bytes a
    step reads, for decoders whose source has one length. ``kv_cache`` is the same of the text's own
    in ONNX caches in place, with scales that the ``calibration`` texts give.
    ``integer`` names ONNX graphs whose quantised weights are multiplied in 8-bit integers, one
    scale a row of activations: ``encode``, and ``decode`` of 8-bit weights, for many rows a call.
    ``head`` is how ONNX decoders read their output table: ``refined`` reads it in 4 bits and the
    words that come out on top once more in the weights' own.
    ``shortlist`` makes a text of the words that the checkpoint's own lexicon gives its source.
    ``static`` asks for graphs of fixed sizes besides those of any size, over the same weights; with
    ``qdq`` those of any size are in fp32. ``calibration`` are the texts its scales come from, by
    default the parity prompts.
    """

    model: str
    output: Path
    formats: tuple[Format, ...] = ("onnx",)
    weight_format: WeightFormat = "fp32"
    group_size: int = 32
    # None: symmetric at 8 bits, and at 4 with static graphs only.
    symmetric: bool | None = None
    parity: bool = True
    parity_prompts: tuple[str, ...] = ()
    min_agreement: float = 0.9
    taps: tuple[str, ...] = ()
    caches: tuple[CacheKind, ...] = ()
    memory: MemoryFormat = "fp32"
    kv_cache: MemoryFormat = "fp32"
    integer: tuple[str, ...] = ()
    head: HeadFormat = "full"
    shortlist: bool = False
    static: StaticSizes | None = None
    calibration: tuple[str, ...] = ()
    task: str | None = None
    revision: str | None = None
    cache_dir: Path | None = None
    command: str = ""

    def __post_init__(self) -> None:
        faults: list[str] = []
        faults += [strange("format", kind, FORMATS) for kind in self.formats if kind not in FORMATS]
        faults += [f"unknown tap {t!r} (use {', '.join(TAPS)})" for t in self.taps if t not in TAPS]
        if self.taps and "onnx" not in self.formats:
            faults.append("taps are made in ONNX graphs only (use --format onnx, or no --taps)")
        faults += self._cache_faults()
        if self.memory not in MEMORIES:
            faults.append(strange("memory", self.memory, MEMORIES))
        if self.kv_cache not in MEMORIES:
            faults.append(strange("kv cache", self.kv_cache, MEMORIES))
        in_place = "onnx" in self.formats and (not self.caches or "in_place" in self.caches)
        if self.kv_cache == "int8" and (self.static is not None or not in_place):
            faults.append(
                "a kv cache in int8 is of ONNX graphs of any size with a cache in place (use "
                "--format onnx and no --static, or no --kv-cache)"
            )
        if self.memory == "int8" and self.static is not None:
            faults.append(
                "a memory in int8 is of graphs of any size (use no --static, or no --memory)"
            )
        if self.shortlist and (self.static is not None or "topk" in self.taps):
            faults.append(
                "a shortlist's graphs give logits of as many words as a source has (use no "
                "--static and no --taps topk, or no --shortlist)"
            )
        faults += self._integer_faults() + self._head_faults()
        if not self.formats:
            faults.append("no format (use onnx, openvino or both)")
        if self.weight_format not in WEIGHT_FORMATS:
            faults.append(strange("weight format", self.weight_format, WEIGHT_FORMATS))
        if self.weight_format == "bf16" and "onnx" in self.formats:
            faults.append(
                "bf16 has no kernels in ONNX Runtime's CPU provider (use --format openvino, "
                "or fp16 or int8)"
            )
        if self.weight_format == "qdq" and (self.static is None or self.formats != ("onnx",)):
            faults.append("qdq is of ONNX graphs of fixed sizes (use --format onnx --static ...)")
        size = self.group_size
        if size < LEAST_GROUP or size & (size - 1) or size > MOST_GROUP:
            faults.append(
                f"group size {size} (use a power of two from {LEAST_GROUP} to {MOST_GROUP})"
            )
        if not 0.0 <= self.min_agreement <= 1.0:
            faults.append(f"min agreement {self.min_agreement} (use 0 to 1)")
        if faults:
            raise ExportError(f"export options: {'; '.join(faults)}.")

    def _integer_faults(self) -> list[str]:
        faults = [
            strange("integer graph", name, INTEGER) for name in self.integer if name not in INTEGER
        ]
        if len(set(self.integer)) < len(self.integer):
            faults.append(f"integer {','.join(self.integer)} (use each once)")
        weights = ("int8",) if "decode" in self.integer else ("int8", "int4")
        if self.integer and (self.weight_format not in weights or "onnx" not in self.formats):
            asked, held = ",".join(self.integer), " or ".join(weights)
            faults.append(
                f"integer {asked} is of ONNX graphs in {held} (use --format onnx --weight-format "
                "int8, or no --integer)"
            )
        return faults

    def _head_faults(self) -> list[str]:
        if self.head not in HEADS:
            return [strange("head", self.head, HEADS)]
        if self.head == "full":
            return []
        faults: list[str] = []
        if self.weight_format not in ("fp32", "int8"):
            faults.append(
                f"a refined head is of weights in fp32 or int8, not {self.weight_format} (use "
                "--weight-format int8, or no --head)"
            )
        if "onnx" not in self.formats:
            faults.append(
                f"a refined head is of ONNX graphs, not {','.join(self.formats)} (use --format "
                "onnx, or no --head)"
            )
        against = {
            "--shortlist": self.shortlist,
            "--integer decode": "decode" in self.integer,
            "--static": self.static is not None,
        }
        faults += [
            f"a refined head and {other} read the output table each in their own way (leave "
            "one of them out)"
            for other, asked in against.items()
            if asked
        ]
        return faults

    def _cache_faults(self) -> list[str]:
        known = list(dict.fromkeys(kind for kinds in CACHES.values() for kind in kinds))
        faults = [strange("cache", kind, known) for kind in self.caches if kind not in known]
        if len(set(self.caches)) < len(self.caches):
            faults.append(f"caches {', '.join(self.caches)} (use each once)")
        for kind in self.caches:
            homes = [form for form, kinds in CACHES.items() if kind in kinds]
            if homes and not set(homes) & set(self.formats):
                faults.append(f"cache {kind} (use --format {homes[0]}, or no --cache)")
        return faults

    def caches_of(self, form: Format) -> tuple[CacheKind, ...]:
        """The kinds asked for that the format has, or its own first one."""
        return tuple(kind for kind in self.caches if kind in CACHES[form]) or CACHES[form][:1]

    @property
    def sym(self) -> bool:
        """As asked, or what is closer to the checkpoint; NPUs keep only symmetric weights small."""
        if self.symmetric is not None:
            return self.symmetric
        return self.weight_format != "int4" or self.static is not None


def strange(what: str, said: str, known: Iterable[str]) -> str:
    """A word that is not known, as one of several faults."""
    return unknown(what, said, [*known]).rstrip(".")
