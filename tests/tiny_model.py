"""A family's tiny checkpoint as transformers, torch and ONNX sessions, each driven by its ports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from stepping import TorchSession
from tiny_families import CASES, write_bundle
from tiny_sources import ids, source_at, source_of

from edgegen.bundle import Bundle
from edgegen.devices import DeviceOptions, Session, device_named
from edgegen.export.families import family_of
from edgegen.export.families.base import Family
from edgegen.export.formats.caching import cache_of
from edgegen.export.reference import reference_of
from edgegen.export.stepper import Stepper, memory_of

Floats = NDArray[np.float32]
# Of the logits' scale. Sums over 512 tokens in another order moved them by 1.8e-5 on one processor.
IN_TORCH, IN_ONNX = 5e-5, 1e-4
READERS = ("t5", "bart", "codet5p", "marian-ssru", "t5gemma", "t5gemma2")


class Model:
    """A tiny checkpoint as torch, as transformers and as ONNX sessions."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.family: Family = family_of(CASES[name].make())[1]
        self.reference = reference_of(self.family)
        self.bundle = Bundle.open(write_bundle(folder / "bundle", name))
        self.variants = {
            part: self.bundle.component(part).variants[0]
            for part in self.bundle.manifest.components
        }
        self.sessions: dict[str, Session] = {
            part: device_named("ort-cpu").compile(
                self.bundle.file(variant.file), variant, DeviceOptions()
            )
            for part, variant in self.variants.items()
        }
        self.torch: dict[str, Session] = {
            part: TorchSession(self.family, part) for part in self.variants
        }

    @property
    def start(self) -> list[int]:
        return list(self.family.generation().start) if self.family.shape.encoder else []

    def source(self, length: int = 11) -> dict[str, Any]:
        return source_of(self.family.shape, length)

    def memory(
        self, sessions: Mapping[str, Session], source: Mapping[str, Any], padding: int = 0
    ) -> dict[str, Any]:
        return memory_of(sessions, source, padding) if source else {}

    def onnx(
        self, source: Mapping[str, Any] | None = None, padding: int = 0, capacity: int = 64
    ) -> Stepper:
        memory = self.memory(self.sessions, self.source() if source is None else source, padding)
        return Stepper(self.sessions["decode"], self.variants["decode"], memory, capacity)

    def in_torch(self, source: Mapping[str, Any] | None = None, padding: int = 0) -> Stepper:
        memory = self.memory(self.torch, self.source() if source is None else source, padding)
        plain = msgspec.structs.replace(
            self.variants["decode"], cache=cache_of(self.family, "decode", "append")
        )
        return Stepper(self.torch["decode"], plain, memory)

    def truth(self, tokens: Sequence[int], source: Mapping[str, Any] | None = None) -> Floats:
        """One forward over everything, nothing cached."""
        return self.reference.logits(self.source() if source is None else source, tokens)

    def prompt(self, index: int) -> tuple[Mapping[str, Any], list[int]]:
        """Source and decoder prompt, another for each index. Lengths go 1, 3, 5...: past every
        window there is; a text with a source is begun by none to two tokens."""
        length = 2 * index + 1
        if not self.family.shape.encoder:
            return {}, ids(length, seed=index)
        source = source_at(self.family.shape, index, length)
        if self.family.generation().prompt_from_source:
            return source, list(source["input_ids"])
        return source, [*self.start, *ids(index % 3, seed=index)]

    def written(
        self, source: Mapping[str, Any], prompt: Sequence[int], count: int, padding: int = 0
    ) -> list[int]:
        """Arg-max tokens of the ONNX graphs; the prompt is one call, each token another."""
        stepper = self.onnx(source, padding, len(prompt) + count)
        together = self.family.shape.bidirectional_prompt
        rows, found = stepper.decode(prompt, together=together), list[int]()
        while len(found) < count:
            found.append(int(rows[-1].argmax()))
            rows = rows if len(found) == count else stepper.decode(found[-1:])
        return found

    def apart(
        self, source: Mapping[str, Any], prompt: Sequence[int], one: list[int], two: list[int]
    ) -> str:
        """How far apart the checkpoint's logits are where two texts part, of their scale."""
        at = next(i for i, (a, b) in enumerate(zip(one, two, strict=True)) if a != b)
        together = len(prompt) if self.family.shape.bidirectional_prompt else 0
        row = self.reference.logits(source, [*prompt, *two[:at]], together)[-1]
        return f"token {at} is {abs(row[one[at]] - row[two[at]]) / np.abs(row).max():.1e} apart"


def stepwise(stepper: Stepper, tokens: Sequence[int], sizes: Sequence[int]) -> Floats:
    rows, at = [], 0
    for size in sizes:
        rows.append(stepper.decode(tokens[at : at + size]))
        at += size
    assert at == len(tokens)
    return np.concatenate(rows)
