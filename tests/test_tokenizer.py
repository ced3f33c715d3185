"""Laws of tokenizers: text survives, and a stream says what the whole would say."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
import tokenizers
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from edgegen import manifest
from edgegen.errors import BundleError, InputError
from edgegen.runtime.tokenizer import (
    ByteTokenizer,
    JsonTokenizer,
    TextStream,
    Tokenizer,
    load_tokenizer,
)

CORPUS = [
    "The quick brown fox doesn't jump, over the lazy dog's bed.",
    "Füchse über Öl; ¿qué tal? Ça va — naïve “quotes”…",
    "你好,世界。今天天气很好。",
    "مرحبا بالعالم، كيف حالك؟",
    "👩‍👩‍👧‍👦 family 😀 🇩🇪 flags 👍🏽 \t tabs\nand  double  spaces",
]
SPECIAL = ["<pad>", "</s>", "<unk>"]


@cache
def byte_level() -> JsonTokenizer:
    built = tokenizers.Tokenizer(models.BPE())
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    built.train_from_iterator(CORPUS * 3, trainer)
    built.add_special_tokens(["<|en|>"])
    built.add_tokens(["日本 word", "naïve"])  # not spelled in the byte alphabet
    return JsonTokenizer(built)


@cache  # training does not repeat itself exactly
def unigram_json() -> str:
    built = tokenizers.Tokenizer(models.Unigram())
    built.normalizer = normalizers.NFKC()
    built.pre_tokenizer = pre_tokenizers.Metaspace()
    built.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
    )
    built.train_from_iterator(CORPUS * 3, trainer)
    ends = [("</s>", 1)]
    built.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=ends)
    return built.to_str()


@cache
def unigram() -> JsonTokenizer:
    return JsonTokenizer(tokenizers.Tokenizer.from_str(unigram_json()))


@cache
def byte_fallback(strip: bool) -> JsonTokenizer:
    characters = ["▁", "▁▁", "▁the", "a", "b", "e", "你", "é", "<0x", "\ufffd"]
    names = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *characters]
    vocabulary = {name: index for index, name in enumerate(names)}
    built = tokenizers.Tokenizer(
        models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    prepend = [normalizers.Prepend("▁")] if strip else []
    built.normalizer = normalizers.Sequence([*prepend, normalizers.Replace(" ", "▁")])
    chain = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    built.decoder = decoders.Sequence([*chain, *([decoders.Strip(" ", 1, 0)] if strip else [])])
    built.add_special_tokens(SPECIAL)
    return JsonTokenizer(built)


@cache
def word_piece(decoder: bool = True) -> JsonTokenizer:
    words = [*SPECIAL, "do", "not", "##n", "##'t", "'", "s", "'s", ".", "?", "##ing", "é", "n't"]
    vocabulary = {name: index for index, name in enumerate(words)}
    built = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    built.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    built.add_special_tokens(SPECIAL)
    if decoder:
        built.decoder = decoders.WordPiece()
    return JsonTokenizer(built)


@cache
def unknown_decoder() -> JsonTokenizer:
    names = [*SPECIAL, "a</w>", "b", "c</w>"]
    built = tokenizers.Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, []))
    built.decoder = decoders.BPEDecoder()
    return JsonTokenizer(built)


class OnlyDecode:
    """A tokenizer of another make: the protocol and nothing more."""

    def __init__(self, inner: Tokenizer) -> None:
        self.inner = inner
        self.vocab_size = inner.vocab_size
        self.longest = 0

    def encode(self, text: str, add_special: bool = True) -> list[int]:
        return self.inner.encode(text, add_special)

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        self.longest = max(self.longest, len(ids))
        return self.inner.decode(ids, skip_special)

    def token_to_id(self, token: str) -> int | None:
        return self.inner.token_to_id(token)


BUILDS: dict[str, Callable[[], Tokenizer]] = {
    "byte level": byte_level,
    "unigram": unigram,
    "byte fallback": lambda: byte_fallback(strip=False),
    "byte fallback, strip": lambda: byte_fallback(strip=True),
    "word pieces": word_piece,
    "no decoder": lambda: word_piece(decoder=False),
    "unknown decoder": unknown_decoder,
    "bytes": ByteTokenizer,
}


def streamed(tokenizer: Tokenizer, chunks: list[list[int]], skip_special: bool) -> list[str]:
    stream = TextStream(tokenizer, skip_special)
    return [*[stream.push(chunk) for chunk in chunks], stream.finish()]


@pytest.mark.parametrize("name", BUILDS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_stream_of_any_ids_in_any_chunks_says_what_decode_says(
    name: str, data: st.DataObject
) -> None:
    tokenizer = BUILDS[name]()
    ids = st.integers(0, tokenizer.vocab_size + 3)
    chunks = data.draw(st.lists(st.lists(ids, max_size=4), max_size=12))
    skip = data.draw(st.booleans())
    whole = tokenizer.decode([i for chunk in chunks for i in chunk], skip)
    assert "".join(streamed(tokenizer, chunks, skip)) == whole


@pytest.mark.parametrize("name", ["byte level", "byte fallback", "bytes"])
@settings(max_examples=100, deadline=None)
@given(text=st.text())
def test_text_survives_and_no_piece_ends_in_half_a_character(name: str, text: str) -> None:
    tokenizer = BUILDS[name]()
    assume(not any(added in text for added in ("<|en|>", *SPECIAL)))
    assume("▁" not in text)  # SentencePiece's own space sign
    ids = tokenizer.encode(text, add_special=False)
    pieces = streamed(tokenizer, [[i] for i in ids], True)
    assert "".join(pieces) == tokenizer.decode(ids) == text
    assert sum(piece.count("\ufffd") for piece in pieces) == text.count("\ufffd")


def test_a_byte_level_stream_holds_a_character_and_not_more() -> None:
    tokenizer = byte_level()
    ids = [tokenizer.token_to_id(c) for c in "ðŁĺĢ"]  # the four bytes of U+1F600
    assert None not in ids
    assert streamed(tokenizer, [[i] for i in ids if i], True) == ["", "", "", "😀", ""]


def test_the_leading_space_of_the_first_word_alone_is_dropped() -> None:
    tokenizer = unigram()
    ids = tokenizer.encode("the fox the fox", add_special=False)
    assert "".join(streamed(tokenizer, [[0], *[[i] for i in ids]], True)) == "the fox the fox"


@settings(max_examples=100, deadline=None)
@given(text=st.text(), name=st.sampled_from(["byte level", "unigram", "bytes", "word pieces"]))
def test_a_tokenizer_known_only_by_decode_streams_in_a_bounded_window(text: str, name: str) -> None:
    inner = BUILDS[name]()
    ids = inner.encode(text)
    whole = inner.decode(ids)
    outer = OnlyDecode(inner)
    assert "".join(streamed(outer, [[i] for i in ids], True)) == whole


def test_the_window_does_not_grow_with_the_text() -> None:
    outer = OnlyDecode(byte_level())
    ids = outer.encode("the lazy 😀 dog " * 200)
    streamed(outer, [[i] for i in ids], True)
    assert outer.longest <= 16


def test_special_ids_come_from_the_post_processor_and_only_when_asked() -> None:
    tokenizer = unigram()
    assert tokenizer.encode("fox")[-1] == 1
    assert tokenizer.encode("fox", add_special=False) == tokenizer.encode("fox")[:-1]
    assert ByteTokenizer().encode("aé") == [100, 198, 172, 1]
    assert ByteTokenizer().encode("a", add_special=False) == [100]


def test_byte_ids_that_are_no_text_are_skipped_or_named() -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.decode([0, 100, 259, 260, 1]) == "a"
    assert tokenizer.decode([0, 100, 260, 1], skip_special=False) == "<pad>a<extra_id_1></s>"
    assert tokenizer.token_to_id("</s>") == 1
    assert tokenizer.token_to_id("a") == 100
    assert tokenizer.token_to_id("ab") is None
    assert ByteTokenizer(offset=0).encode("a") == [97]


def test_truncation_and_padding_in_the_file_are_switched_off(tmp_path: Path) -> None:
    built = tokenizers.Tokenizer.from_str(unigram_json())
    built.enable_truncation(4)
    built.enable_padding(length=64)
    built.save(str(tmp_path / "tokenizer.json"))
    record = manifest.Tokenizer(kind="tokenizers", path="tokenizer.json")
    loaded = load_tokenizer(tmp_path, record)
    assert loaded.encode(CORPUS[0]) == unigram().encode(CORPUS[0])
    assert loaded.vocab_size == unigram().vocab_size


def test_load_reads_the_kind_the_manifest_names(tmp_path: Path) -> None:
    record = manifest.Tokenizer(kind="bytes", offset=3)
    assert load_tokenizer(tmp_path, record).decode([100, 101]) == "ab"


@pytest.mark.parametrize("content", ["", "not json", "{}", json.dumps({"model": {"type": "x"}})])
def test_a_junk_tokenizer_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    record = manifest.Tokenizer(kind="tokenizers", path="tokenizer.json")
    with pytest.raises(BundleError, match=r"expected a tokenizer\.json") as caught:
        load_tokenizer(tmp_path, record)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "line"),
    [(None, "names no path"), ("absent.json", "cannot be read"), ("../x.json", "leaves the")],
)
def test_a_tokenizer_record_must_name_a_file_of_the_bundle(
    tmp_path: Path, path: str | None, line: str
) -> None:
    with pytest.raises(BundleError, match=line):
        load_tokenizer(tmp_path, manifest.Tokenizer(kind="tokenizers", path=path))


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), unigram()])
def test_what_is_no_text_and_no_id_is_an_input_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="surrogate"):
        tokenizer.encode("a\ud800")
    with pytest.raises(InputError, match="token id -1"):
        tokenizer.decode([-1])
    with pytest.raises(InputError, match="token id -1"):
        TextStream(tokenizer).push([-1])


def test_nothing_is_pushed_after_the_end() -> None:
    stream = TextStream(ByteTokenizer())
    assert (stream.push([100]), stream.finish(), stream.finish()) == ("a", "", "")
    with pytest.raises(InputError, match="finished"):
        stream.push([100])
