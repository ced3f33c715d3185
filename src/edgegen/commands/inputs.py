"""What ``edgegen run`` generates from: words typed, files, lines of standard input."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgegen.errors import InputError
from edgegen.manifest import Manifest

if TYPE_CHECKING:
    from edgegen.runtime.task import Source

# Endings of sound files, to tell a user who gave one to a text model what happened.
AUDIO = frozenset((".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".aiff", ".mp4"))


@dataclass(frozen=True, kw_only=True)
class Given:
    """What was typed. ``system`` alone asks for a chat, a ``suffix`` for what comes before it, and
    ``infill`` for what fills the marks in the sources. Raises ``InputError`` when they exclude each
    other."""

    words: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    whole: bool = False
    chat: bool = False
    system: str | None = None
    suffix: str | None = None
    infill: bool = False

    def __post_init__(self) -> None:
        if self.gapped and self.talks:
            raise InputError("--chat and --system are for conversations; gaps are filled in texts.")
        if self.infill and self.suffix is not None:
            raise InputError(
                "--infill fills marks in a text and --suffix the gap before it; give one of them."
            )

    @property
    def gapped(self) -> bool:
        return self.infill or self.suffix is not None

    @property
    def talks(self) -> bool:
        return self.chat or self.system is not None

    @property
    def reads_stdin(self) -> bool:
        return not self.words and not self.files


@dataclass(frozen=True, kw_only=True)
class Input:
    """One source. ``name`` says which in messages; ``blank`` gives an empty text without a run.

    ``line``: the text that comes back has to fit on one line. ``conversation`` goes on with the
    answer.
    """

    source: Source
    name: str = ""
    line: bool = False
    blank: bool = False
    conversation: list[dict[str, str]] | None = None


def inputs(given: Given, manifest: Manifest) -> Iterator[Input]:
    """The sources in the order given. Raises ``InputError`` for what the model cannot take."""
    if given.gapped:
        from edgegen.runtime.infill import marks_of

        marks_of(manifest)
    if manifest.speech is not None:
        yield from _files(given, manifest, "a speech model", "audio")
        return
    if manifest.image is not None:
        yield from _files(given, manifest, "a model of pictures", "picture")
        return
    if given.talks and manifest.chat is None:
        raise InputError(f"{manifest.name} has no chat template; leave --chat and --system out.")
    yield from _texts(given)


# ------------------------------------------------------------------------ text


def _texts(given: Given) -> Iterator[Input]:
    for word in given.words:
        _refuse_file_name(word)
        yield _text(given, _utf8(word), name="")
    for path in given.files:
        yield _text(given, read_text(path), name=str(path))
    if not given.reads_stdin:
        return
    if given.whole or (given.gapped and not sys.stdin.isatty()):
        yield _text(given, _decoded(sys.stdin.buffer.read(), "standard input"), name="")
    elif sys.stdin.isatty():
        yield from _typed(given)
    else:
        for number, line in enumerate(sys.stdin.buffer, start=1):
            name = f"line {number}"
            yield _text(given, _line(line, number, name), name=name, line=True)


def _text(given: Given, text: str, *, name: str, line: bool = False) -> Input:
    source: Any = [*_opening(given), _said("user", text)] if given.talks else _around(given, text)
    return Input(source=source, name=name, line=line, blank=line and not text.strip())


def _typed(given: Given) -> Iterator[Input]:
    """Lines typed at a terminal; the turns of one conversation in a chat."""
    with suppress(ImportError):  # editing and history of lines, where the system has it
        import_module("readline")
    print("A line, then Enter; Ctrl-D ends.", file=sys.stderr)
    conversation = _opening(given)
    while True:
        try:
            line = input("> ")
        except EOFError:
            print()
            return
        if not line.strip():
            continue
        if given.talks:
            conversation.append(_said("user", line))
            yield Input(source=tuple(conversation), conversation=conversation)
        else:
            yield Input(source=_around(given, line))


def _around(given: Given, text: str) -> Source:
    """A text, or one with gaps."""
    if not given.gapped:
        return text
    from edgegen.runtime.task import Gaps

    return Gaps(text, given.suffix)


def suffix_of(text: str | None, path: Path | None) -> str | None:
    """``--suffix`` or ``--suffix-file``."""
    if text is not None and path is not None:
        raise InputError("--suffix and --suffix-file are one and the same; give one of them.")
    return text if path is None else read_text(path)


def _opening(given: Given) -> list[dict[str, str]]:
    return [] if given.system is None else [_said("system", given.system)]


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _line(raw: bytes, number: int, name: str) -> str:
    text = _decoded(raw, name).removesuffix("\n").removesuffix("\r")
    return text.removeprefix("\ufeff") if number == 1 else text


def read_text(path: Path) -> str:
    """A text file. Raises ``InputError``, in place of a page of noise for a file that is none."""
    if path.suffix.lower() in AUDIO:
        raise InputError(f"{path}: this is a text model; {_SPEECH}")
    return _decoded(path.read_bytes(), str(path)).removeprefix("\ufeff")


_SPEECH = "sound is for the bundle of a speech model."


def _refuse_file_name(word: str) -> None:
    """A single word that names a file is a slip: its content was meant."""
    path = Path(word)
    if path.suffix.lower() in AUDIO and not word.strip().count(" "):
        raise InputError(f"{word!r}: this is a text model; {_SPEECH}")
    try:
        is_file = bool(path.suffix) and path.is_file()
    except (OSError, ValueError):  # too long for a name, or a NUL: then it is text
        return
    if is_file:
        raise InputError(
            f"{word!r} is a file here; --file {word} generates from what is in it "
            f"(to generate from its name, pipe that in)."
        )


def _utf8(word: str) -> str:
    try:
        word.encode()
    except UnicodeEncodeError:
        raise InputError(f"text {word!r}: not UTF-8; give it in that encoding.") from None
    return word


def _decoded(raw: bytes, name: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name}: not UTF-8 text (byte {error.start} is 0x{raw[error.start]:02x}); "
            "convert it, for example with iconv."
        ) from None


# ----------------------------------------------------------- sound and pictures


def _files(given: Given, manifest: Manifest, model: str, kind: str) -> Iterator[Input]:
    """Files of sound or pictures. ``-`` is a sound on standard input."""
    heard = manifest.speech is not None
    if given.talks or given.whole:
        raise InputError(f"{manifest.name} is {model}; --chat and --whole are for text.")
    if given.reads_stdin:
        also = ", or - for one on standard input" if heard else ""
        raise InputError(f"{manifest.name} is {model}; name {kind} files{also}.")
    for word in (*given.words, *map(str, given.files)):
        if word == "-" and heard:
            yield Input(source=_heard(manifest), name="standard input")
        elif not Path(word).exists():
            raise InputError(
                f"{word[:80]!r}: no such file; {manifest.name} is {model} and takes {kind} files."
            )
        else:
            yield Input(source=Path(word), name=word)


def _heard(manifest: Manifest) -> Source:
    """Standard input as samples; a sound file's reader has to go back and forth in it."""
    from edgegen.runtime.audio import read

    assert manifest.speech is not None
    return read(io.BytesIO(sys.stdin.buffer.read()), manifest.speech.sample_rate)
