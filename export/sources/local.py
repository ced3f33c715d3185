"""A transformers folder on this machine: config.json, weights, tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from edgegen.errors import CheckpointError

from ..checkpoint import Checkpoint, Origin
from .base import fingerprint, no_revision, path_of, read_json
from .sentence_folder import pooling_of
from .tensor_files import weight_files, weights_of
from .tokenizer_folder import tokenizers_of

# Beside a checkpoint that is the untrained start of one.
NOTES_FILE = "adaptation.json"


class LocalSource:
    """The folder `save_pretrained` writes."""

    name = "local"
    takes = "a transformers folder: config.json, *.safetensors or pytorch_model.bin, tokenizer.json"
    example = "./my-t5"
    gives: tuple[str, ...] | None = None

    def matches(self, model: str) -> bool:
        return path_of(model).is_dir()

    def load(self, model: str, revision: str | None, cache_dir: Path | None) -> Checkpoint:
        folder = path_of(model)
        no_revision(model, revision)
        checkpoint = checkpoint_of(folder)
        origin = Origin(
            source=model,
            kind=self.name,
            revision=fingerprint(weight_files(folder)),
            licence=checkpoint.origin.licence,
            notes=checkpoint.origin.notes,
        )
        return replace(checkpoint, origin=origin)


def checkpoint_of(folder: Path) -> Checkpoint:
    """Read a transformers folder, weights lazily. ``origin`` holds the folder, the licence its
    README states and what was left out. Raises ``CheckpointError``."""
    config = read_json(folder / "config.json")
    _refuse_quantised(folder, config)
    weights, notes = weights_of(folder)
    tokenizer_config = _optional(folder / "tokenizer_config.json")
    return Checkpoint(
        config=config,
        weights=weights,
        tokenizers=tokenizers_of(folder, tokenizer_config),
        origin=Origin(
            source=str(folder),
            kind="local",
            licence=_licence(folder),
            notes=(*notes, *_notes(folder)),
        ),
        generation=_optional(folder / "generation_config.json"),
        preprocessor=_optional(folder / "preprocessor_config.json"),
        chat_template=_chat_template(folder, tokenizer_config),
        tokenizer_config=tokenizer_config,
        pooling=pooling_of(folder),
    )


def _notes(folder: Path) -> tuple[str, ...]:
    """What `edgegen adapt` wrote about the folder it made; trained checkpoints come without."""
    found = _optional(folder / NOTES_FILE).get("notes")
    lines = cast(list[object], found) if isinstance(found, list) else []
    return tuple(line for line in lines if isinstance(line, str))


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _refuse_quantised(folder: Path, config: Mapping[str, Any]) -> None:
    quantisation = config.get("quantization_config")
    if quantisation is None:
        return
    method = "unknown"
    if isinstance(quantisation, dict):
        method = cast(dict[str, Any], quantisation).get("quant_method", method)
    raise CheckpointError(
        f"{folder}: weights are packed by {method!r}, expected plain floats;"
        " name the model's unquantised folder or its GGUF file"
    )


def _chat_template(folder: Path, tokenizer_config: Mapping[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        try:
            return path.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise CheckpointError(
                f"{path}: not UTF-8 text (byte {error.start}); fetch the file again"
            ) from None
    template = tokenizer_config.get("chat_template")
    if isinstance(template, list):  # several named templates: transformers uses "default"
        return _default(folder, cast(list[object], template))
    return template if isinstance(template, str) else None


def _default(folder: Path, entries: list[object]) -> str | None:
    for entry in entries:
        named: Mapping[str, Any] = entry if isinstance(entry, Mapping) else {}
        name, template = named.get("name"), named.get("template")
        if not isinstance(name, str) or not isinstance(template, str):
            raise CheckpointError(
                f"{folder}: the chat_template of tokenizer_config.json has an entry"
                f" {str(entry)[:60]!r}, expected a name and a template, both text;"
                " fetch the file again"
            )
        if name == "default":
            return template
    return None


def _licence(folder: Path) -> str:
    """The `license:` line of the model card's front matter, where hub models state it."""
    card = folder / "README.md"
    lines = card.read_text("utf-8", "replace").splitlines() if card.is_file() else []
    if not lines or lines[0].strip() != "---":
        return "unknown"
    for line in lines[1:]:
        key, _, value = line.partition(":")
        if line.strip() == "---":
            break
        if key == "license" and value.strip():
            return value.strip().strip("'\"")
    return "unknown"
