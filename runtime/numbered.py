"""A tokenizer.json that cuts text into pieces, and a vocabulary that numbers them (Marian, M2M100).

Equal, id for id, to what transformers' tokenizers of these models do: pieces the vocabulary lacks
are its unknown token, numbers beyond it are no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import tokenizers

from edgegen.errors import BundleError

from .tokenizer import JsonTokenizer, check_text, checked_ids

UNKNOWN = "<unk>"


class NumberedTokenizer(JsonTokenizer):
    """``numbers``: ids by piece. Raises ``BundleError`` when no piece is ``<unk>``."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, numbers: dict[str, int]) -> None:
        super().__init__(tokenizer)
        if UNKNOWN not in numbers:
            raise BundleError(f"a vocabulary of pieces has no {UNKNOWN!r}. Export it again.")
        self._numbers, self._unknown = numbers, numbers[UNKNOWN]
        self._names = {number: piece for piece, number in numbers.items()}

    @property
    def vocab_size(self) -> int:
        return max(self._names) + 1

    def encode(self, text: str, add_special: bool = True) -> list[int]:
        check_text(text)
        pieces = self._tokenizer.encode(text, add_special_tokens=add_special).tokens
        return [self._numbers.get(piece, self._unknown) for piece in pieces]

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        pieces = self.pieces(skip_special)
        return "".join([*map(pieces.push, checked_ids(ids)), pieces.finish()])

    def token_to_id(self, token: str) -> int | None:
        return self._numbers.get(token)

    def id_to_token(self, token_id: int) -> str | None:
        return self._names.get(token_id)

    def tokens(self) -> dict[str, int]:
        return dict(self._numbers)


def numbers_of(path: Path) -> dict[str, int]:
    """Raises ``BundleError`` when the file is absent or no object of pieces and ids."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, int])
    except (OSError, msgspec.MsgspecError) as error:
        why = " ".join(str(error).split())
        raise BundleError(f"vocabulary {path}: {why[:200]}. Export it again.") from error
