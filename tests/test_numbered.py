"""Pieces numbered by another file get the ids transformers gives them, and the text back."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tiny_pieces import UPPER, lines, m2m100_folder, marian_folder, train, write
from tiny_words import WORDS
from transformers import M2M100Tokenizer, MarianTokenizer

from edgegen import manifest
from edgegen.errors import BundleError, CheckpointError
from edgegen.export.checkpoint import TokenizerFiles
from edgegen.export.sources import source_of
from edgegen.export.sources.tokenizer_folder import tokenizers_of
from edgegen.runtime.numbered import NumberedTokenizer
from edgegen.runtime.tokenizer import TextStream, Tokenizer, load_tokenizer

TEXTS = [
    *lines(WORDS[:150], 30, seed=5), *lines(UPPER, 30, seed=6), "", " ", "  bada   bodo ",
    "ßß ba ß", "日本 ba", "BA\nba\tba", "ba</s>bo", "ＢＡ ﬁ", "ba<unk>", "é", ">>fra<< bada",
]  # fmt: skip


def opened(folder: Path, files: TokenizerFiles) -> Tokenizer:
    (folder / "t.json").write_bytes(files.data)
    (folder / "v.json").write_bytes(files.vocabulary)
    record = manifest.Tokenizer(kind="tokenizers", path="t.json", vocabulary="v.json")
    return load_tokenizer(folder, record)


def read(folder: Path) -> dict[str, TokenizerFiles]:
    return tokenizers_of(folder, json.loads((folder / "tokenizer_config.json").read_text()))


def drawn(count: int, most: int) -> list[list[int]]:
    draw = random.Random(3)
    return [[draw.randrange(most) for _ in range(12)] for _ in range(count)]


def test_an_opus_pair_gives_the_ids_and_texts_of_its_own_tokenizer(tmp_path: Path) -> None:
    numbers = marian_folder(tmp_path, ["fra"])
    theirs: Any = MarianTokenizer.from_pretrained(str(tmp_path))
    files = read(tmp_path)
    source, target = (opened(tmp_path, files[side]) for side in ("source", "target"))
    assert isinstance(source, NumberedTokenizer)
    for text in TEXTS:
        assert source.encode(text) == theirs(text).input_ids, text
        assert target.encode(text) == theirs(text_target=text).input_ids, text
        assert target.encode(text, add_special=False) == theirs(text_target=text).input_ids[:-1]
    for ids in drawn(100, len(numbers)):
        spoken = [i for i in ids if i != numbers[">>fra<<"]]
        said = theirs.decode(spoken, skip_special_tokens=True)
        assert target.decode(ids).strip() == said
        stream = TextStream(target)
        assert (stream.push(ids) + stream.finish()).strip() == said
    assert (source.token_to_id(">>fra<<"), source.vocab_size) == (2, len(numbers))


def test_the_same_pieces_twice_are_one_tokenizer(tmp_path: Path) -> None:
    marian_folder(tmp_path)
    (tmp_path / "target.spm").write_bytes((tmp_path / "source.spm").read_bytes())
    assert list(read(tmp_path)) == ["source"]


def test_two_vocabularies_of_numbers_stay_apart(tmp_path: Path) -> None:
    numbers = marian_folder(tmp_path)
    other = {piece: len(numbers) - 1 - i for piece, i in numbers.items()}
    write(tmp_path / "target_vocab.json", other)
    files = tokenizers_of(tmp_path, {"separate_vocabs": True})
    ends = [opened(tmp_path, files[side]).token_to_id("</s>") for side in ("source", "target")]
    assert ends == [0, len(numbers) - 1]


def test_m2m100_numbers_its_languages_behind_its_pieces(tmp_path: Path) -> None:
    numbers = m2m100_folder(tmp_path)
    theirs: Any = M2M100Tokenizer.from_pretrained(str(tmp_path))
    ours = opened(tmp_path, read(tmp_path)["source"])
    for text in TEXTS:
        ids = theirs(text, add_special_tokens=False).input_ids
        assert ours.encode(text, add_special=False) == ids, text
    for ids in drawn(100, len(numbers)):
        spoken = [i for i in ids if i > 3]
        assert ours.decode(ids).strip() == theirs.decode(spoken).strip()
    for code in ("en", "fr", "zu"):
        assert ours.token_to_id(f"__{code}__") == theirs.get_lang_id(code)


@pytest.mark.parametrize("kind", ["fairseq", ["m2m100"]])
def test_languages_that_are_no_known_list_are_refused(kind: object, tmp_path: Path) -> None:
    m2m100_folder(tmp_path)
    with pytest.raises(CheckpointError, match=r"language_codes .* expected 'm2m100' or 'wmt21'"):
        tokenizers_of(tmp_path, {"language_codes": kind})
    assert tokenizers_of(tmp_path, {"language_codes": "m2m100"}) == read(tmp_path)


@pytest.mark.parametrize(
    ("kind", "name", "offset", "said"),
    [
        ("mbart", "sentencepiece.bpe.model", 1, {}),
        ("pegasus", "spiece.model", 103, {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}),
    ],
)
def test_other_sentencepiece_folders_are_numbered_with_their_offset(
    kind: str, name: str, offset: int, said: dict[str, Any], tmp_path: Path
) -> None:
    train(tmp_path / name, lines(WORDS[:150]), **said)
    config = {"tokenizer_class": {"mbart": "MBartTokenizer", "pegasus": "PegasusTokenizer"}[kind]}
    write(tmp_path / "tokenizer_config.json", config)
    write(tmp_path / "config.json", {"model_type": kind})
    import tokenizers

    ours = tokenizers.Tokenizer.from_buffer(tokenizers_of(tmp_path, config)["source"].data)
    pieces: Any = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / name))
    for text in lines(WORDS[:150], 20, seed=5):
        expected = [i + offset for i in pieces.encode(text)]
        assert list(ours.encode(text, add_special_tokens=False).ids) == expected


def test_a_transformers_folder_with_spm_files_is_no_marian_folder(tmp_path: Path) -> None:
    marian_folder(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    assert source_of(str(tmp_path)).name == "marian"
    write(tmp_path / "config.json", {"model_type": "marian"})
    assert source_of(str(tmp_path)).name == "local"


@pytest.mark.parametrize(
    ("numbers", "line"),
    [
        ({"</s>": 0}, "has no '<unk>'"),
        ({"<unk>": 1, "</s>": 0, "a": -1}, "'a' has the number -1"),
        ({"<unk>": 1, "</s>": "0"}, "'</s>' has the number '0'"),
    ],
)
def test_a_vocabulary_that_cannot_be_is_told_in_one_line(
    numbers: dict[str, Any], line: str, tmp_path: Path
) -> None:
    marian_folder(tmp_path)
    write(tmp_path / "vocab.json", numbers)
    with pytest.raises(CheckpointError, match=line) as caught:
        tokenizers_of(tmp_path, {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"[]", b"{", b'{"a": "b"}', b'{"a": 1}'])
def test_a_damaged_vocabulary_in_a_bundle_is_a_bundle_error(data: bytes, tmp_path: Path) -> None:
    marian_folder(tmp_path)
    files = read(tmp_path)["source"]
    with pytest.raises(BundleError, match="Export it again"):
        opened(tmp_path, TokenizerFiles(kind="tokenizers", data=files.data, vocabulary=data))
