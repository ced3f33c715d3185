"""Text to ids and back on the device, and text streamed from ids as they come.

Knows tokenizer.json files (the ``tokenizers`` library) and byte models; knows no special ids
beyond those a file's post-processor adds: a bundle's generation record holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeGuard, runtime_checkable

from edgegen import manifest
from edgegen.errors import BundleError, InputError

from .pieces import HeldPieces, Pieces, Step, StepPieces, Utf8Step, WindowPieces, steps_of

if TYPE_CHECKING:
    import tokenizers

    from edgegen.bundle import Bundle


class Tokenizer(Protocol):
    """Text to ids and ids to text."""

    @property
    def vocab_size(self) -> int:
        """How many ids there are, added tokens included."""
        ...

    def encode(self, text: str, add_special: bool = True) -> list[int]:
        """Ids of ``text``; with ``add_special`` also those the post-processor puts around it."""
        ...

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str: ...

    def token_to_id(self, token: str) -> int | None: ...


class Incremental(Protocol):
    """A tokenizer that can decode a stream exactly; ``TextStream`` asks for it first."""

    def pieces(self, skip_special: bool = True) -> Pieces: ...


def is_incremental(tokenizer: object) -> TypeGuard[Incremental]:
    """What ``isinstance`` would say of the protocol, in a hundredth of its time."""
    return hasattr(tokenizer, "pieces")


@runtime_checkable
class Listed(Protocol):
    """A tokenizer that can list its tokens, so that two of them can be compared."""

    def tokens(self) -> dict[str, int]:
        """Every token's own spelling and its id."""
        ...


@dataclass(frozen=True, kw_only=True)
class Located:
    """Ids of a text with, for each, the characters it stands for, whether the post-processor put it
    there, and whether it goes on with the word of the one before."""

    ids: list[int]
    spans: list[tuple[int, int]]
    special: list[bool]
    inside: list[bool]

    def first(self, count: int) -> Located:
        """The first ``count``, those the post-processor puts at the end kept."""
        ends = 0
        while ends < count and self.special[-1 - ends]:
            ends += 1
        kept = [*range(count - ends), *range(len(self.ids) - ends, len(self.ids))]
        return Located(
            ids=[self.ids[i] for i in kept],
            spans=[self.spans[i] for i in kept],
            special=[self.special[i] for i in kept],
            inside=[self.inside[i] for i in kept],
        )


class JsonTokenizer:
    """A tokenizer.json. Truncation and padding written in the file are switched off: cutting a
    text is the caller's decision, never a side effect."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder().values()
        self._special = frozenset(token.content for token in added if token.special)

    @classmethod
    def from_file(cls, path: Path) -> JsonTokenizer:
        """Raises ``BundleError`` when the file is absent or not a tokenizer.json."""
        return cls(tokenizer_from(path))

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str, add_special: bool = True) -> list[int]:
        check_text(text)
        return list(self._tokenizer.encode(text, add_special_tokens=add_special).ids)

    def located(self, text: str) -> Located:
        """Ids as ``encode`` gives them, and where each comes from."""
        check_text(text)
        found = self._tokenizer.encode(text)
        words: list[int | None] = found.word_ids
        return Located(
            ids=list(found.ids),
            spans=list(found.offsets),
            special=[bool(mark) for mark in found.special_tokens_mask],
            inside=[
                word is not None and i > 0 and words[i - 1] == word for i, word in enumerate(words)
            ],
        )

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        return self._tokenizer.decode(checked_ids(ids), skip_special_tokens=skip_special)

    def token_to_id(self, token: str) -> int | None:
        return self._tokenizer.token_to_id(token)

    def id_to_token(self, token_id: int) -> str | None:
        return self._tokenizer.id_to_token(token_id)

    def tokens(self) -> dict[str, int]:
        return self._tokenizer.get_vocab(with_added_tokens=True)

    def pieces(self, skip_special: bool = True) -> Pieces:
        steps = self._steps
        if steps is None:
            return HeldPieces(lambda ids: self.decode(ids, skip_special))

        def token_of(token_id: int) -> str | None:
            token = self.id_to_token(checked_ids([token_id])[0])
            return None if skip_special and token in self._special else token

        return StepPieces(token_of, [make() for make in steps])

    @cached_property
    def _steps(self) -> list[Callable[[], Step]] | None:
        return steps_of(self._tokenizer.decoder)


def tokenizer_from(path: Path) -> tokenizers.Tokenizer:
    """Raises ``BundleError`` when the file is absent or not a tokenizer.json."""
    import tokenizers

    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"tokenizer {path}: cannot be read ({error.strerror}).") from error
    try:
        return tokenizers.Tokenizer.from_buffer(data)
    except Exception as error:  # the library raises bare Exception and ValueError
        why = " ".join(str(error).split())
        raise BundleError(
            f"tokenizer {path}: expected a tokenizer.json, but {why[:200]}. Export it again."
        ) from error


class ByteTokenizer:
    """Bytes as tokens: id = byte + ``offset`` (ByT5, Xue et al. 2021: offset 3, ids 0..2 are
    padding, end and unknown; the end is appended when ``add_special``).

    Ids past the last byte are the sentinels ``<extra_id_n>``. Decoding drops bytes that are not
    UTF-8, as the reference tokenizer does.
    """

    special = ("<pad>", "</s>", "<unk>")

    def __init__(self, offset: int = 3) -> None:
        self._offset = offset
        self._names = self.special[:offset]

    @property
    def vocab_size(self) -> int:
        return self._offset + 256

    def encode(self, text: str, add_special: bool = True) -> list[int]:
        check_text(text)
        ids = [byte + self._offset for byte in text.encode("utf-8")]
        return [*ids, 1] if add_special and len(self._names) > 1 else ids

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        pieces = self.pieces(skip_special)
        return "".join([*map(pieces.push, ids), pieces.finish()])

    def token_to_id(self, token: str) -> int | None:
        if token in self._names:
            return self._names.index(token)
        data = token.encode("utf-8", "surrogatepass")
        return data[0] + self._offset if len(data) == 1 else None

    def tokens(self) -> dict[str, int]:
        named = {name: i for i, name in enumerate(self._names)}
        return named | {f"<0x{byte:02X}>": byte + self._offset for byte in range(256)}

    def pieces(self, skip_special: bool = True) -> Pieces:
        def token_of(token_id: int) -> str | None:
            byte = checked_ids([token_id])[0] - self._offset
            if 0 <= byte < 256:
                return chr(byte)  # Latin-1: one character a byte
            if skip_special:
                return None
            return f"<extra_id_{byte - 256}>" if byte > 0 else self._name(token_id)

        return StepPieces(token_of, [Utf8Step(_latin, errors="ignore")])

    def _name(self, token_id: int) -> str | None:
        return self._names[token_id] if token_id < len(self._names) else None


def _latin(token: str) -> bytes:
    return token.encode("latin-1")


def check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"text: character {error.start} is half of a surrogate pair ({text[error.start]!a}), "
            "which is no Unicode text. Decode the input with errors='replace'."
        ) from error


def checked_ids(ids: Sequence[int]) -> list[int]:
    out = [int(i) for i in ids]  # numpy integers included
    for token_id in out:
        if not 0 <= token_id < 2**32:
            raise InputError(f"token id {token_id}: expected a number from 0 to 4294967295.")
    return out


def load_tokenizer(root: Path, record: manifest.Tokenizer) -> Tokenizer:
    """The tokenizer a bundle's manifest describes; ``root`` is the bundle's folder.

    Raises ``BundleError`` when the record names no file, one outside the bundle or a bad one.
    """
    if record.kind == "bytes":
        return ByteTokenizer(record.offset)
    if record.path is None:
        raise BundleError(f"bundle {root}: a tokenizer of kind 'tokenizers' names no path.")
    tokenizer = tokenizer_from(_inside(root, record.path))
    if record.vocabulary is None:
        return JsonTokenizer(tokenizer)
    from .numbered import NumberedTokenizer, numbers_of

    return NumberedTokenizer(tokenizer, numbers_of(_inside(root, record.vocabulary)))


def load_tokenizers(bundle: Bundle) -> dict[str, Tokenizer]:
    """All of a bundle's, by role."""
    records = bundle.manifest.tokenizers
    return {role: load_tokenizer(bundle.path, record) for role, record in records.items()}


def _inside(root: Path, name: str) -> Path:
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise BundleError(f"bundle {root}: tokenizer path {name!r} leaves the bundle.")
    return path


class TextStream:
    """Text as ids arrive. The pieces joined are ``decode`` of all the ids, however they come.

    A piece never ends in half a character. Held back until it is settled: the unfinished bytes
    of a character, a run of byte-fallback tokens. Changes with every ``push``; one per text.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special: bool = True) -> None:
        self._finished = False
        if is_incremental(tokenizer):
            self._pieces = tokenizer.pieces(skip_special)
        else:
            self._pieces = WindowPieces(lambda ids: tokenizer.decode(ids, skip_special))

    def push(self, ids: Iterable[int]) -> str:
        """The text these ids settle, often one word, possibly empty."""
        if self._finished:
            raise InputError("text stream: it was finished; make a new one for the next text.")
        return "".join([self._pieces.push(token_id) for token_id in ids])

    def finish(self) -> str:
        """What was held back. Nothing can be pushed after it."""
        if self._finished:
            return ""
        self._finished = True
        return self._pieces.finish()
