"""What lies just behind an end, and numbers at the end of their range."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_families import CASES, END, VOCABULARY, write_bundle
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import edgegen
from edgegen import EdgegenWarning, GenerationOptions, InputError, Pipeline
from edgegen.export.checkpoint import TokenizerFiles
from edgegen.export.families import family_of
from edgegen.export.reference import TransformersReference
from edgegen.runtime.drafters import store

WORDS = (5, 9, 17)
SOURCE = [44, 3, 19, 8, 61, 30, 12, 9, 1]


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    folder = write_bundle(tmp_path_factory.mktemp("edges") / "t5", "t5-tied")
    with edgegen.load(folder, draft_model=folder) as pipeline:
        yield pipeline


@pytest.mark.parametrize("draft", ["model", "aggressive", "lookup", "recycling"])
@pytest.mark.parametrize("source", ["badu kin", [0, 9, 17, 5, END]])
def test_a_row_behind_the_end_may_leave_no_token(
    t5: Pipeline, draft: str, source: str | list[int]
) -> None:
    """Three words may be said, each once, then the end: a draft that holds the end has a row behind
    it, where everything is forbidden."""
    others = set(range(VOCABULARY)) - {*WORDS, END}
    options = GenerationOptions(
        draft="none",
        suppress=tuple(sorted(others)),
        no_repeat_ngram_size=1,
        min_new_tokens=3,
        max_new_tokens=20,
    )
    plain = t5.generate(source, options)
    assert len(plain.tokens) == 4 and plain.finish_reason == "stop"
    drafted = t5.generate(source, options.with_changes(draft=draft, num_assistant_tokens=8))
    assert drafted.tokens == plain.tokens


def test_a_text_with_no_token_left_is_refused_with_drafts_too(t5: Pipeline) -> None:
    options = GenerationOptions(
        draft="model",
        num_assistant_tokens=8,
        suppress=tuple(sorted(set(range(VOCABULARY)) - set(WORDS))),
        no_repeat_ngram_size=1,
        max_new_tokens=20,
    )
    with pytest.raises(InputError, match="every token is forbidden"):
        t5.generate("badu kin", options)


def byte_words() -> TokenizerFiles:
    """Letters, and bytes for everything else, as Llama's."""
    ids = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    ids |= {f"<0x{value:02X}>": 3 + value for value in range(256)}
    for letter in "▁abcdefghij":
        ids[letter] = len(ids)
    words = Tokenizer(models.BPE(ids, [], unk_token="<unk>", byte_fallback=True))
    words.pre_tokenizer = pre_tokenizers.Metaspace()
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    words.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)])
    words.add_special_tokens(["<pad>", "</s>", "<unk>"])
    return TokenizerFiles(kind="tokenizers", data=words.to_str().encode())


@pytest.mark.parametrize("end", [(END,), ()])
def test_a_stop_string_of_bytes_is_cut_at_the_end_of_a_text_too(
    tmp_path: Path, end: tuple[int, ...]
) -> None:
    folder = write_bundle(tmp_path / "llama", "llama-grouped", words=byte_words())
    with edgegen.load(folder) as pipeline:
        ids = Tokenizer.from_str(byte_words().data.decode()).encode("ab🙂").ids
        forced = tuple(enumerate([*ids, *end]))
        options = GenerationOptions(
            draft="none", forced=forced, stop=("🙂",), max_new_tokens=len(forced)
        )
        result = pipeline.generate("a b", options)
        assert (result.text, result.finish_reason) == ("ab", "stop_string")
        assert "".join(pipeline.stream("a b", options)) == "ab"


def test_a_prompt_is_what_a_decoder_alone_must_not_say_again(tmp_path: Path) -> None:
    """``encoder_no_repeat_ngram_size`` looks at the prompt there, as in transformers."""
    family = family_of(CASES["llama-grouped"].make())[1]
    prompt = [147, 216, 58, 97, 20, 147, 216, 58, 97, 20, 33]
    said: dict[str, Any] = {"max_new_tokens": 12, "min_new_tokens": 12}
    said["encoder_no_repeat_ngram_size"] = 1
    with edgegen.load(write_bundle(tmp_path / "llama", "llama-grouped")) as pipeline:
        plain = GenerationOptions(draft="none", max_new_tokens=12)
        prompt = [*prompt, *pipeline.generate(prompt, plain).tokens[:6], 33]
        ours = list(pipeline.generate(prompt, GenerationOptions(draft="none", **said)).tokens)
    assert not set(ours) & set(prompt)
    ids = torch.tensor([prompt])
    theirs = TransformersReference(family).model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, eos_token_id=1, pad_token_id=0,
        **said,
    )  # fmt: skip
    assert ours == theirs[0, len(prompt) :].tolist()


def test_the_coldest_temperature_is_greedy(t5: Pipeline) -> None:
    greedy = t5.generate(SOURCE, GenerationOptions(draft="none", max_new_tokens=8))
    for temperature in (1e-30, 1e-40, 1e-46, 1e-300):
        cold = GenerationOptions(
            draft="none", max_new_tokens=8, do_sample=True, temperature=temperature
        )
        assert t5.generate(SOURCE, cold).tokens == greedy.tokens


@pytest.mark.parametrize("penalty", [1e-40, 1e-300, 1e300])
def test_a_penalty_at_the_end_of_its_range_is_no_device_s_fault(
    t5: Pipeline, penalty: float
) -> None:
    """What a tiny one divides stays a number: the words so far are said again and again."""
    options = GenerationOptions(
        draft="none", max_new_tokens=8, min_new_tokens=8, repetition_penalty=penalty
    )
    tokens = t5.generate(SOURCE, options).tokens
    assert len(tokens) == 8
    assert (len(set(tokens)) < 8) == (penalty < 1)


@pytest.mark.parametrize("penalty", [-100.0, 100.0])
def test_scores_of_beams_are_numbers_whatever_lengths_weigh(t5: Pipeline, penalty: float) -> None:
    options = GenerationOptions(
        num_beams=2, length_penalty=penalty, max_new_tokens=1300, min_new_tokens=1300
    )
    with np.errstate(all="raise"):
        found = t5.generate(SOURCE, options)
    assert all(np.isfinite(text.score) for text in found.hypotheses)


def test_a_store_that_cannot_be_is_told_before_a_text(t5: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    options = GenerationOptions(draft="trigram", max_new_tokens=8, draft_store=tmp_path / "file")
    with pytest.raises(InputError, match=r"no folder can be made there .*; name another"):
        t5.generate(SOURCE, options)


def test_a_full_disk_costs_what_was_learned_and_not_the_text(
    t5: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgegen.runtime.drafters.trigram.save_arrays", full)
    assert store.save_arrays is not full
    options = GenerationOptions(draft="trigram", max_new_tokens=8, draft_store=tmp_path / "store")
    with pytest.warns(EdgegenWarning, match="not kept .*No space left"):
        found = t5.generate(SOURCE, options)
    assert found.tokens == t5.generate(SOURCE, options.with_changes(draft="none")).tokens


def test_a_word_beyond_the_vocabulary_is_told(t5: Pipeline) -> None:
    options = GenerationOptions(num_beams=2, max_new_tokens=8, condition="contains:99999")
    with pytest.raises(InputError, match=f"has token 99999, and ids are below {VOCABULARY}"):
        t5.generate("badu kin", options)


def test_a_list_of_arrays_is_a_batch(t5: Pipeline, tmp_path: Path) -> None:
    options = GenerationOptions(draft="none", max_new_tokens=5)
    waves = [np.sin(np.arange(n) * 0.05).astype(np.float32) for n in (16000, 30000)]
    with edgegen.load(write_bundle(tmp_path / "whisper", "whisper")) as pipeline:
        found = pipeline.generate(waves, options)
        assert [one.tokens for one in found] == [
            pipeline.generate(wave, options).tokens for wave in waves
        ]
    parts = (SOURCE, SOURCE[3:])
    alone = [t5.generate(part, options).tokens for part in parts]
    together = t5.generate([np.array(part) for part in parts], options)
    assert [one.tokens for one in together] == alone


def test_names_that_are_no_path_are_told(tmp_path: Path) -> None:
    with edgegen.load(write_bundle(tmp_path / "whisper", "whisper")) as pipeline:
        for name in ("talk\x00.wav", "talk\ud800.wav"):
            with pytest.raises(InputError, match="cannot be opened"):
                pipeline.generate(name)
