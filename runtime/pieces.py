"""Token strings turned into text a piece at a time, exactly as the whole would be decoded.

A decoder of the ``tokenizers`` library is a chain of steps over token strings. Each step here
does the same to a stream: it emits what later tokens can no longer change and holds the rest (at
most three bytes of a character, or one run of ``<0x..>`` byte tokens, which decodes as a whole).
So the work per token does not grow with the text. A chain with a step not known here is decoded
once, at the end: late, but never wrong.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol

DecodeTokens = Callable[[list[str]], str]
REPLACEMENT = "\ufffd"
BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
LOCAL_STEPS = frozenset({"Metaspace", "WordPiece", "Replace", "Strip"})


class Pieces(Protocol):
    """Ids in, text out. The texts returned, joined, are the decoding of all ids."""

    def push(self, token_id: int) -> str: ...

    def finish(self) -> str: ...


class Step(Protocol):
    """One decoder step over a stream of strings."""

    def push(self, tokens: Iterable[str]) -> list[str]: ...

    def finish(self) -> list[str]: ...


class LocalStep:
    """A step that looks at one token at a time but may treat the first one differently."""

    anchor = "a"  # any token: what follows it is decoded as a token that is not the first

    def __init__(self, decode: DecodeTokens) -> None:
        self._decode = decode
        self._anchor_length = len(decode([self.anchor]))
        self._started = False

    def push(self, tokens: Iterable[str]) -> list[str]:
        return [self._one(token) for token in tokens]

    def _one(self, token: str) -> str:
        if self._started:
            return self._decode([self.anchor, token])[self._anchor_length :]
        self._started = True
        return self._decode([token])

    def finish(self) -> list[str]:
        return []


class ByteRunStep:
    """``ByteFallback``: a run of byte tokens is one text, or one U+FFFD a byte if any is wrong.

    One bad byte spoils its whole run, so a run is held until another token ends it.
    """

    def __init__(self) -> None:
        self._run = bytearray()

    def push(self, tokens: Iterable[str]) -> list[str]:
        out: list[str] = []
        for token in tokens:
            if byte := BYTE_TOKEN.fullmatch(token):
                self._run.append(int(byte[1], 16))
            else:
                out += [*self.finish(), token]
        return out

    def finish(self) -> list[str]:
        run, self._run = bytes(self._run), bytearray()
        if not run:
            return []
        try:
            return [run.decode("utf-8")]
        except UnicodeDecodeError:
            return [REPLACEMENT] * len(run)


class Utf8Step:
    """Tokens that stand for bytes: at most an unfinished character is held."""

    def __init__(self, to_bytes: Callable[[str], bytes], errors: str = "replace") -> None:
        self._to_bytes = to_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors=errors)

    def push(self, tokens: Iterable[str]) -> list[str]:
        return [self._decoder.decode(self._to_bytes(token)) for token in tokens]

    def finish(self) -> list[str]:
        return [self._decoder.decode(b"", final=True)]


class StripStartStep:
    """``Strip`` after the tokens were fused: up to ``count`` characters at the very beginning."""

    def __init__(self, content: str, count: int) -> None:
        self._content, self._left = content, count

    def push(self, tokens: Iterable[str]) -> list[str]:
        return [self._one(token) for token in tokens]

    def _one(self, text: str) -> str:
        cut = 0
        while self._left and cut < len(text):
            if text[cut] != self._content:
                self._left = 0
                break
            cut, self._left = cut + 1, self._left - 1
        return text[cut:]

    def finish(self) -> list[str]:
        return []


class StepPieces:
    """Ids through ``token_of`` (None: not part of the text), then through the steps in order."""

    def __init__(self, token_of: Callable[[int], str | None], steps: Sequence[Step]) -> None:
        self._token_of, self._steps = token_of, steps

    def push(self, token_id: int) -> str:
        token = self._token_of(token_id)
        if token is None:
            return ""
        texts = [token]
        for step in self._steps:
            texts = step.push(texts)
        return "".join(texts)

    def finish(self) -> str:
        texts: list[str] = []
        for step in self._steps:
            texts = [*step.push(texts), *step.finish()]
        return "".join(texts)


class HeldPieces:
    """Everything held and decoded once: right for any decoder, streaming for none."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []

    def push(self, token_id: int) -> str:
        self._ids.append(token_id)
        return ""

    def finish(self) -> str:
        return self._decode(self._ids)


class WindowPieces:
    """For a tokenizer known only by ``decode``: the text a token adds after the ones before it.

    Exact when more ids only ever lengthen the text, save for a U+FFFD at its end. The window is
    the tokens of the last piece, which serve as context, and the tokens not yet emitted; a
    U+FFFD that eight tokens did not complete is taken to be meant.
    """

    patience = 8

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._context: list[int] = []
        self._pending: list[int] = []

    def push(self, token_id: int) -> str:
        self._pending.append(token_id)
        text = self._text()
        if text.endswith(REPLACEMENT) and len(self._pending) < self.patience:
            return ""
        if text:  # tokens without text are no context: the next may still be the first word
            self._context, self._pending = self._pending, []
        return text

    def finish(self) -> str:
        text = self._text()
        self._context, self._pending = [], []
        return text

    def _text(self) -> str:
        return self._decode(self._context + self._pending)[len(self._decode(self._context)) :]


def byte_level_alphabet() -> dict[str, int]:
    """The character that stands for each byte in byte-level BPE (Radford et al. 2019, GPT-2).

    Printable Latin-1 bytes stand for themselves, the others for the characters from U+0100 on.
    """
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(b): b for b in plain} | {chr(0x100 + i): b for i, b in enumerate(others)}


ALPHABET = byte_level_alphabet()


def byte_level(token: str) -> bytes:
    """A byte-level token's bytes; one with any other character (an added token) is UTF-8."""
    codes = [ALPHABET.get(character) for character in token]
    known = [code for code in codes if code is not None]
    return bytes(known) if len(known) == len(codes) else token.encode("utf-8")


def steps_of(decoder: Any) -> list[Callable[[], Step]] | None:
    """What makes the streaming steps of a ``tokenizers`` decoder (None: tokens joined by spaces)
    anew for each text.

    Returns None when a step of the chain is not one of those above in an order that streams.
    """
    if decoder is None:
        return [partial(LocalStep, " ".join)]
    steps: list[Callable[[], Step]] = []
    fused = False  # from here on the chain sees one string
    for part in _flat(json.loads(decoder.__getstate__())):
        kind = part["type"]
        if fused:
            if kind == "Fuse":
                continue
            if kind != "Strip" or part["stop"]:
                return None
            steps.append(partial(StripStartStep, part["content"], part["start"]))
        elif kind in LOCAL_STEPS:
            steps.append(partial(LocalStep, _decoder_of(part)))
        elif kind == "ByteFallback":
            steps.append(ByteRunStep)
        elif kind == "ByteLevel":
            steps.append(partial(Utf8Step, byte_level))
        elif kind != "Fuse":
            return None
        fused = fused or kind in ("ByteLevel", "Fuse")
    return steps


def _flat(part: dict[str, Any]) -> list[dict[str, Any]]:
    if part["type"] != "Sequence":
        return [part]
    return [step for inner in part["decoders"] for step in _flat(inner)]


def _decoder_of(part: dict[str, Any]) -> DecodeTokens:
    """The library's own decoder for one step, made by way of an otherwise empty tokenizer."""
    from tokenizers import Tokenizer

    empty = {"type": "BPE", "vocab": {}, "merges": []}
    names = ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor")
    record: dict[str, Any] = {"version": "1.0", "added_tokens": [], **dict.fromkeys(names)}
    decoder = Tokenizer.from_str(json.dumps({**record, "decoder": part, "model": empty})).decoder
    assert decoder is not None
    decode: DecodeTokens = decoder.decode
    return decode
