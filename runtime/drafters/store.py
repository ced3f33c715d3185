"""What drafters have learned, kept in files between texts."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.errors import InputError

Arrays = dict[str, NDArray[Any]]


def save_arrays(path: Path, arrays: Arrays) -> None:
    """Write ``path`` whole or not at all. Of two texts that end at a time the later one stands."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        try:
            np.savez(file, allow_pickle=False, **arrays)
            file.close()
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def load_arrays(path: Path, shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> Arrays | None:
    """Arrays by name, or None when there is no such file.

    ``shapes`` gives each one's type and its shape after the first dimension, which all share.
    Raises ``InputError`` when the file holds anything else.
    """
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            found = {name: archive[name] for name in shapes}
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"draft store {path} cannot be read ({why}); delete it.") from error
    counts = {len(array) if array.ndim else -1 for array in found.values()}
    wrong = [
        name
        for name, (dtype, shape) in shapes.items()
        if found[name].dtype != dtype or found[name].shape[1:] != shape
    ]
    if wrong or len(counts) != 1:
        raise InputError(
            f"draft store {path}: {', '.join(wrong) or 'its arrays'} are not what this version "
            "writes; delete it."
        )
    return found


def check_vocabulary(path: Path, vocabulary: int, *ids: NDArray[Any]) -> None:
    """Raises ``InputError`` when a stored id is beyond the vocabulary."""
    largest = max(array.max(initial=-1) for array in ids)
    if largest >= vocabulary:
        raise InputError(
            f"draft store {path}: it has token {largest} and the vocabulary {vocabulary}; "
            "it belongs to another bundle: delete it."
        )
