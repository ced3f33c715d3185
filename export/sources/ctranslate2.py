"""A CTranslate2 folder: model.bin of a Whisper, config.json and tokenizer.json beside it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from edgegen.errors import CheckpointError

from ..checkpoint import Checkpoint, Origin
from .base import fingerprint, map_file, no_revision, path_of, read_json
from .byte_pairs import mended
from .ctranslate2_file import read_model
from .tokenizer_folder import tokenizer_file
from .whisper_generation import generation_of
from .whisper_layout import config_of, weights_of


class CTranslate2Source:
    """What `ct2-transformers-converter` and the faster-whisper models hold."""

    name = "ctranslate2"
    takes = "a CTranslate2 folder of a Whisper model: model.bin (or its parts), tokenizer.json"
    example = "./faster-whisper-base"
    gives: tuple[str, ...] | None = ("whisper",)

    def matches(self, model: str) -> bool:
        path = path_of(model)
        folder = path.parent if path.name == "model.bin" else path
        return bool(parts_of(folder)) and not _is_marian(parts_of(folder)[0])

    def load(self, model: str, revision: str | None, cache_dir: Path | None) -> Checkpoint:
        no_revision(model, revision)
        path = path_of(model)
        folder = path.parent if path.name == "model.bin" else path
        parts = parts_of(folder)
        spec, variables = read_model(folder / "model.bin", _bytes_of(parts))
        if spec != "WhisperSpec":
            raise CheckpointError(
                f"{folder}: a CTranslate2 {spec!r}; this source reads 'WhisperSpec',"
                " name the transformers checkpoint it was converted from instead"
            )
        tokenizer = tokenizer_file(folder / "tokenizer.json")
        words, notes = mended(tokenizer.data)
        config = config_of(folder, variables)
        weights = weights_of(folder, variables, config)
        hints = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
        generation = generation_of(folder, tokenizer.data, config, hints)
        ids = ("decoder_start_token_id", "eos_token_id", "bos_token_id", "pad_token_id")
        return Checkpoint(
            config={**config, **{name: generation[name] for name in ids}},
            weights=weights,
            tokenizers={"source": replace(tokenizer, data=words)},
            origin=Origin(source=model, kind=self.name, revision=fingerprint(parts), notes=notes),
            generation=generation,
        )


def parts_of(folder: Path) -> list[Path]:
    """model.bin, or the pieces ``model.bin.part1``, ``.part2`` ... it was cut into, in order."""
    whole = folder / "model.bin"
    if whole.is_file():
        return [whole]
    numbered = [
        (int(found[1]), path)
        for path in folder.glob("model.bin.part*")
        if (found := re.fullmatch(r"model\.bin\.part(\d+)", path.name))
    ]
    return [path for _, path in sorted(numbered)]


def _bytes_of(parts: list[Path]) -> memoryview:
    if len(parts) == 1:
        return map_file(parts[0])
    return memoryview(b"".join(map_file(part) for part in parts))


def _is_marian(path: Path) -> bool:
    """Marian's files open with a 64-bit 1, so their second word is zero; a name length is not."""
    with path.open("rb") as file:
        return file.read(8) == (1).to_bytes(8, "little")
