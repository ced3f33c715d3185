"""Marian's binary lexical shortlist, which Firefox downloads beside a model (``lex.*.bin``).

Layout: marian-dev, src/data/shortlist.h. Six 64-bit numbers (a mark, a checksum, how many of the
most frequent words, how many a source word, how many offsets, how many entries), then the offsets
and the entries, 32-bit ids.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgegen.errors import CheckpointError

from ..checkpoint import Lexicon
from .base import Cursor, map_file

MARK = 0xF11A48D5013417F5
MOST = 1000  # words of a source word; Firefox's have 50


def lexicon_file(folder: Path) -> Path | None:
    """The one shortlist beside a model. Raises ``CheckpointError`` where there are several."""
    found = sorted(folder.glob("lex.*.bin"))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise CheckpointError(f"{folder}: expected one lexical shortlist, found {names}; keep one")
    return found[0] if found else None


def read_lexicon(path: Path, vocabulary: int) -> Lexicon:
    """Raises ``CheckpointError`` on a damaged file, or one of another vocabulary."""
    cursor = Cursor(path, map_file(path))
    mark, _, first, most, words, entries = cursor.numbers("Q", 6, "the header")
    if mark != MARK:
        raise cursor.fault(f"it starts with {mark:#x}, a shortlist with {MARK:#x}")
    if words != vocabulary + 1:
        raise CheckpointError(
            f"{path}: a shortlist of {max(0, words - 1)} words, the model has {vocabulary};"
            " copy the shortlist of the same model"
        )
    if first > vocabulary or most > MOST:
        raise cursor.fault(f"{first} frequent words and {most} a word cannot be")
    offsets = np.frombuffer(cursor.take(8 * words, "the offsets"), "<u8").astype(np.int64)
    ids = np.frombuffer(cursor.take(4 * entries, "the entries"), "<u4").astype(np.int64)
    sizes = np.diff(offsets)
    if offsets[0] or offsets[-1] != entries or (sizes < 0).any() or (sizes > MOST).any():
        raise cursor.fault("its offsets do not divide its entries")
    if entries and ids.max() >= vocabulary:
        raise cursor.fault(f"it names word {ids.max()} of {vocabulary}")
    columns = np.arange(max(1, int(sizes.max())))
    inside = columns < sizes[:, None]
    places = np.where(inside, offsets[:-1, None] + columns, 0)
    table = np.where(inside, ids[places] if entries else 0, 0)
    return Lexicon(likely=table.astype(np.int32), frequent=int(first))
