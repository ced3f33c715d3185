"""Folders with their own tokenizers, exported and run: the text is that of transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tokenizers
import torch
from tiny_bart import tiny_kin_model
from tiny_pieces import lines, m2m100_folder, marian_folder, train, write
from tiny_words import WORDS
from transformers import (
    AutoTokenizer,
    BartTokenizer,
    GenerationConfig,
    M2M100Tokenizer,
    MarianTokenizer,
    MBart50Tokenizer,
    MBartTokenizer,
)

import edgegen
from edgegen.bundle import Bundle
from edgegen.cli import main
from edgegen.errors import EdgegenWarning, InputError
from edgegen.manifest import Manifest, Translation
from edgegen.runtime.languages import code_of
from edgegen.runtime.options import GenerationOptions
from edgegen.runtime.translation import frame_for

TEXTS = lines(WORDS[:150], 6, seed=9)
LENGTH = 14


def save(folder: Path, kind: str, tokenizer: Any, size: int = 0, **rules: Any) -> Any:
    """A tiny model beside its tokenizer, as ``save_pretrained`` writes both; returns the model."""
    ids = {
        "vocab_size": size or len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    start = rules.pop("decoder_start_token_id", tokenizer.eos_token_id)
    model = tiny_kin_model(kind, **ids, decoder_start_token_id=start)
    make: Any = GenerationConfig
    model.generation_config = make(
        decoder_start_token_id=start, pad_token_id=ids["pad_token_id"],
        eos_token_id=ids["eos_token_id"], max_length=LENGTH, **rules,
    )  # fmt: skip
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def truth(model: Any, tokenizer: Any, text: str, **said: Any) -> str:
    rows = torch.tensor([tokenizer(text).input_ids])
    found = model.generate(rows, num_beams=1, do_sample=False, **said)
    return str(tokenizer.decode(found[0], skip_special_tokens=True))


@pytest.fixture
def export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[Path], Path]:
    """``edgegen export`` of a folder, its parity gate included."""

    def call(folder: Path) -> Path:
        bundle = tmp_path / "bundle"
        status = main(["export", "-m", str(folder), "-o", str(bundle)])
        assert status == 0, capsys.readouterr().err
        return bundle

    return call


def bart(folder: Path) -> tuple[Any, Any]:
    made: Any = tokenizers.ByteLevelBPETokenizer()
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    made.train_from_iterator(lines(WORDS), vocab_size=400, special_tokens=names)
    made.save_model(str(folder))
    merges = (folder / "merges.txt").read_text().splitlines()[1:]
    vocabulary = made.get_vocab()
    pairs: Any = [tuple(merge.split(" ")) for merge in merges]
    tokenizer = BartTokenizer(vocab=vocabulary, merges=pairs)
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink()
    rules = {"forced_bos_token_id": 0, "forced_eos_token_id": 2, "no_repeat_ngram_size": 3}
    return save(folder, "bart", tokenizer, **rules), tokenizer


def opus(folder: Path, languages: tuple[str, ...] = ()) -> tuple[Any, Any]:
    numbers = marian_folder(folder, languages)
    tokenizer: Any = MarianTokenizer.from_pretrained(str(folder))
    pad = numbers["<pad>"]
    rules: dict[str, Any] = {"bad_words_ids": [[pad]], "forced_eos_token_id": 0}
    rules |= {"no_repeat_ngram_size": 3, "decoder_start_token_id": pad}
    return save(folder, "marian", tokenizer, **rules), tokenizer


@pytest.mark.parametrize("make", [bart, opus])
def test_an_exported_folder_writes_what_transformers_writes(
    make: Callable[[Path], tuple[Any, Any]],
    tmp_path: Path,
    export: Callable[[Path], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    model, tokenizer = make(folder)
    bundle = export(folder)
    roles = set(Bundle.open(bundle).manifest.tokenizers)
    assert roles == ({"source"} if make is bart else {"source", "target"})
    said: list[str] = []
    for text in TEXTS:
        capsys.readouterr()
        assert main(["run", str(bundle), text]) == 0
        said.append(capsys.readouterr().out.strip())
    assert said == [truth(model, tokenizer, text).strip() for text in TEXTS]
    assert len(set(said)) > 3


def test_an_opus_model_of_several_targets_is_told_which(
    tmp_path: Path, export: Callable[[Path], Path]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    model, tokenizer = opus(folder, ("fra", "deu"))
    with edgegen.load(export(folder)) as pipeline:
        for code, name in (("fra", "French"), ("deu", "de-AT")):
            result = pipeline.generate(TEXTS[0], GenerationOptions(language=name))
            assert result.text.strip() == truth(model, tokenizer, f">>{code}<<{TEXTS[0]}")
            typed = pipeline.generate(f">>{code}<< {TEXTS[0]}").text
            assert typed == result.text
        with pytest.raises(InputError, match="one kind of source"):
            pipeline.generate(TEXTS[0], GenerationOptions(source_language="en"))


def mbart(folder: Path, kind: Any) -> Any:
    train(folder / "sentencepiece.bpe.model", lines(WORDS[:150]))
    write(folder / "tokenizer_config.json", {"tokenizer_class": kind.__name__})
    write(folder / "config.json", {"model_type": "mbart"})
    return AutoTokenizer.from_pretrained(str(folder))


@pytest.mark.parametrize("kind", [MBartTokenizer, MBart50Tokenizer])
def test_mbart_is_told_its_languages_before_or_after_the_source(
    kind: Any, tmp_path: Path, export: Callable[[Path], Path]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    tokenizer = mbart(folder, kind)
    to = tokenizer.convert_tokens_to_ids("de_DE")
    key = "decoder_start_token_id" if kind is MBartTokenizer else "forced_bos_token_id"
    model = save(folder, "mbart", tokenizer, forced_eos_token_id=2)
    with edgegen.load(export(folder)) as pipeline:
        for source, code in (("fr", "fr_XX"), (None, "en_XX")):
            tokenizer.src_lang = code
            options = GenerationOptions(language="German", source_language=source)
            found = pipeline.generate(TEXTS[1], options).text
            assert found == truth(model, tokenizer, TEXTS[1], **{key: to})
        with pytest.raises(InputError, match="did you mean 'german'"):
            pipeline.generate("ba", GenerationOptions(language="gerrman"))


def test_m2m100_is_told_its_languages_by_its_first_tokens(
    tmp_path: Path, export: Callable[[Path], Path]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    m2m100_folder(folder)
    tokenizer: Any = M2M100Tokenizer.from_pretrained(str(folder))
    highest = max(tokenizer.lang_code_to_id.values())
    model = save(folder, "m2m_100", tokenizer, size=highest + 9)
    with edgegen.load(export(folder)) as pipeline:
        assert pipeline.bundle.manifest.translation is not None
        for source, target in (("fr", "de"), (None, "uk")):
            tokenizer.src_lang = source or "en"
            options = GenerationOptions(language=target, source_language=source)
            result = pipeline.generate(TEXTS[2], options)
            rows = torch.tensor([tokenizer(TEXTS[2]).input_ids])
            wanted = tokenizer.get_lang_id(target)
            said = model.generate(rows, num_beams=1, do_sample=False, forced_bos_token_id=wanted)[
                0, 1:
            ].tolist()
            assert list(result.tokens) == said and result.tokens[0] == wanted
            assert "__" not in result.text


# ------------------------------------------------------------------------- by name

NLLB = {"eng_Latn": 1, "por_Latn": 2, "zho_Hans": 3, "zho_Hant": 4, "arb_Arab": 5, "als_Latn": 6}


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("por_Latn", "por_Latn"), ("POR-latn", "por_Latn"), ("pt", "por_Latn"),
        ("pt-BR", "por_Latn"), ("Portuguese", "por_Latn"), ("por", "por_Latn"),
        ("arabic", "arb_Arab"), ("albanian", "als_Latn"), ("zho_Hant", "zho_Hant"),
    ],
)  # fmt: skip
def test_languages_of_longer_codes_go_by_short_codes_and_names(said: str, code: str) -> None:
    assert code_of(said, NLLB) == code


def test_a_name_of_several_codes_is_answered_with_them() -> None:
    with pytest.raises(InputError, match="'chinese' is zho_Hans and zho_Hant here"):
        code_of("chinese", NLLB)
    with pytest.raises(InputError, match="did you mean 'portuguese'"):
        code_of("portugese", NLLB)
    with pytest.raises(InputError, match="Known: arb_Arab"):
        code_of("fr", {"arb_Arab": 5})


def test_a_bundle_of_one_language_takes_none(tiny_t5_bundle: Path) -> None:
    manifest = Bundle.open(tiny_t5_bundle).manifest
    for options in (GenerationOptions(language="pt"), GenerationOptions(source_language="pt")):
        with pytest.raises(InputError, match="tiny-t5 is neither"):
            frame_for(manifest, options)


def test_a_source_too_long_keeps_what_stands_around_it(
    tmp_path: Path, tiny_t5_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with edgegen.load(tiny_t5_bundle) as pipeline:
        task: Any = pipeline.task
        plain = pipeline.engine.manifest
        said = Translation(languages={"en": 7, "pt": 8}, source="after", target="before")
        defaults = msgspec.structs.replace(plain.generation, source_suffix=(1,), max_source=5)
        manifest: Manifest = msgspec.structs.replace(plain, translation=said, generation=defaults)
        pipeline.engine.manifest = manifest
        task.defaults = defaults
        seen: list[list[int]] = []
        remember = pipeline.engine.remember_ids

        def noted(ids: list[int], *, draft: bool) -> Any:
            seen.append(ids)
            return remember(ids, draft=draft)

        monkeypatch.setattr(pipeline.engine, "remember_ids", noted)
        options = GenerationOptions(language="pt", source_language="en", max_new_tokens=2)
        with pytest.warns(EdgegenWarning, match="only the first 5"):
            pipeline.generate("ba bin dor ba bin", options)
        body = task.source.encode("ba bin", add_special=False)
        assert seen == [[8, *body, 1, 7]]
