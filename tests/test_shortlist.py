"""A source's shortlist: its words have the logits they have among all, and others have none."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import source_files
import tiny_pieces
from numpy.typing import NDArray
from tiny_families import CASES, VOCABULARY, write_bundle

from edgegen import GenerationOptions, Pipeline, load
from edgegen.errors import BundleError, CheckpointError, ExportError, ParityError
from edgegen.export.build import check_shortlist
from edgegen.export.checkpoint import Lexicon
from edgegen.export.families import family_of
from edgegen.export.options import ExportOptions, StaticSizes
from edgegen.export.parity import check_last, relative
from edgegen.export.sources.marian import MarianSource
from edgegen.export.sources.marian_lexicon import MARK, lexicon_file, read_lexicon
from edgegen.shortlist import distinct, spread_of

FREQUENT, LIKELY = 9, 6
SOURCES = ([5, 9, 77, 120, 0], [44, 3, 19, 8, 61, 30, 12, 9, 0], [7, 0], [91, 18, 91, 4, 0])
Pipelines = Callable[..., Pipeline]


def lexicon() -> Lexicon:
    drawn = np.random.default_rng(4).integers(0, VOCABULARY, (VOCABULARY, LIKELY))
    return Lexicon(likely=drawn.astype(np.int32), frequent=FREQUENT)


def words_of(source: list[int]) -> list[int]:
    found = lexicon().likely[list(source)].reshape(-1).tolist()
    return sorted({*range(FREQUENT), *found})


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Pipelines:
    @cache
    def opened(weights: str, listed: bool = True, form: str = "onnx", **said: Any) -> Pipeline:
        folder = tmp_path_factory.mktemp("shortlist") / "bundle"
        how: dict[str, Any] = {"weight_format": weights, "formats": (form,), **said}
        path = write_bundle(folder, "marian-ssru", lexicon=lexicon() if listed else None, **how)
        return load(path, {"onnx": "ort-cpu", "openvino": "ov-cpu"}[form])

    return opened


def logits(pipeline: Pipeline, source: list[int], tokens: list[int]) -> NDArray[np.float32]:
    engine = pipeline.engine
    decoder = engine.decoder(engine.remember_ids(source))
    return decoder.forward([-1, *tokens]).logits.copy()


@pytest.mark.parametrize(("form", "weights"), [("onnx", "fp32"), ("openvino", "fp32")])
def test_words_of_the_list_have_their_logits_and_others_none(
    form: str, weights: str, pipelines: Pipelines
) -> None:
    for source in SOURCES:
        found = logits(pipelines(weights, form=form), list(source), [12, 80, 3])
        whole = logits(pipelines(weights, listed=False, form=form), list(source), [12, 80, 3])
        words = words_of(list(source))
        np.testing.assert_allclose(found[:, words], whole[:, words], atol=1e-4)
        assert np.isneginf(np.delete(found, words, 1)).all()


@pytest.mark.parametrize("weights", ["fp32", "int8", "int4"])
def test_rows_are_the_same_bits_alone_and_among_others(weights: str, pipelines: Pipelines) -> None:
    engine = pipelines(weights).engine
    memory = engine.remember_ids(list(SOURCES[1]))
    tokens = [-1, 12, 80, 3, 44, 9, 100, 21, 5]
    together = engine.decoder(memory).forward(tokens).logits.copy()
    decoder = engine.decoder(memory)
    for row, token in enumerate(tokens):
        np.testing.assert_array_equal(decoder.forward([token]).logits[0], together[row])
        decoder.keep(decoder.length + 1)


@pytest.mark.parametrize(
    ("weights", "said"),
    [("fp32", {}), ("int8", {}), ("int8", {"integer": ("encode", "decode")}),
     ("int8", {"memory": "int8"}), ("fp32", {"form": "openvino"}),
     ("int8", {"form": "openvino"})],
)  # fmt: skip
def test_texts_are_made_of_their_own_words_however_they_are_decoded(
    weights: str, said: dict[str, Any], pipelines: Pipelines
) -> None:
    pipeline = pipelines(weights, **said)
    given = [list(source) for source in SOURCES]
    plain = GenerationOptions(draft="none", max_new_tokens=12, min_new_tokens=5)
    alone = [pipeline.generate(source, plain) for source in given]
    for source, result in zip(given, alone, strict=True):
        assert set(result.tokens) <= set(words_of(source)) and len(result.tokens) >= 5
        drafted = pipeline.generate(source, plain.with_changes(draft="lookup"))
        assert drafted.tokens == result.tokens
        beams = pipeline.generate(source, plain.with_changes(num_beams=3))
        assert set(beams.tokens) <= set(words_of(source))
        sampled = pipeline.generate(source, plain.with_changes(do_sample=True, seed=1))
        assert set(sampled.tokens) <= set(words_of(source))
        scored = pipeline.generate(source, plain.with_changes(logprobs=3))
        assert all(np.isfinite(one.logprob) for one in scored.logprobs)
    together = pipeline.generate(given, plain, batch_size=3)
    assert [r.tokens for r in together] == [r.tokens for r in alone]


def test_each_word_is_kept_once_and_its_column_with_it() -> None:
    words = np.array([[3, 1, 3, 7]])
    rows = np.arange(8, dtype=np.float32).reshape(1, 4, 2)
    bias = np.array([[[0, 1, 0, 2]]], np.float32)
    memory = {"words": words, "head_rows": rows, "head_bias": bias, "other": words}
    found = distinct(memory)
    assert found["words"].tolist() == [[1, 3, 7]] and found["other"] is words
    assert found["head_rows"].tolist() == [[[2, 3], [0, 1], [6, 7]]]
    assert found["head_bias"].tolist() == [[[1, 0, 2]]]
    spread = spread_of(found, 9)
    assert spread is not None
    whole = spread(np.array([[0.5, 1.5, 2.5, 99]], np.float32))  # the last is another source's
    assert whole.shape == (1, 9) and whole[0, [1, 3, 7]].tolist() == [0.5, 1.5, 2.5]
    assert np.isneginf(whole[0, [0, 2, 4, 5, 6, 8]]).all()
    assert spread_of({"other": words}, 9) is None
    for wrong in ([[0, 9]], [[-1, 3]]):
        with pytest.raises(BundleError, match=r"proposes word (9|-1) of a vocabulary of 9"):
            spread_of({"words": np.array(wrong)}, 9)
    assert distinct({"other": words}) == {"other": words}


def test_a_logit_missing_on_one_side_is_an_infinite_error() -> None:
    truth = np.array([[1.0, -np.inf, 2.0]], np.float32)
    assert relative(truth, truth) == 0
    assert relative(np.array([[1.0, 0.0, 2.0]], np.float32), truth) == float("inf")
    assert relative(np.array([[1.0, -np.inf, np.nan]], np.float32), truth) == float("inf")


def test_a_last_row_that_differs_when_asked_for_alone_is_refused() -> None:
    rows = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    check_last(rows[1:] * 1.01, rows)
    with pytest.raises(ParityError, match=r"the last row of a call of 2 differs by 2\.5e-01"):
        check_last(rows[1:] * 0.75, rows)


# ------------------------------------------------------------------ the file


def written(path: Path, table: list[list[int]], **said: Any) -> Path:
    offsets = np.cumsum([0, *map(len, table)]).tolist()
    ids = [word for row in table for word in row]
    header = {"mark": MARK, "sum": 0, "first": 2, "most": 3, "words": len(offsets)}
    header = {**header, "entries": len(ids), **said.get("header", {})}
    offsets, ids = said.get("offsets", offsets), said.get("ids", ids)
    data = struct.pack("<6Q", *header.values())
    path.write_bytes(data + struct.pack(f"<{len(offsets)}Q{len(ids)}I", *offsets, *ids))
    return path


def test_a_lexicon_is_read_word_by_word(tmp_path: Path) -> None:
    path = written(tmp_path / "lex.2.3.bin", [[1, 4, 2], [], [3], [0, 1], [4]])
    found = read_lexicon(path, 5)
    assert found.frequent == 2
    assert found.likely.tolist() == [[1, 4, 2], [0, 0, 0], [3, 0, 0], [0, 1, 0], [4, 0, 0]]


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"header": {"mark": 1}}, "it starts with 0x1, a shortlist with 0xf11a48d5013417f5"),
        ({"header": {"words": 9}}, "a shortlist of 8 words, the model has 2"),
        ({"header": {"first": 3}}, "3 frequent words and 3 a word cannot be"),
        ({"header": {"most": 2**40}}, "cannot be"),
        ({"header": {"entries": 2**50}}, "the entries needs"),
        ({"offsets": [0, 3, 2]}, "its offsets do not divide its entries"),
        ({"offsets": [1, 1, 2]}, "its offsets do not divide its entries"),
        ({"offsets": [0, 1, 2**63]}, "its offsets do not divide its entries"),
        ({"ids": [1, 2]}, "it names word 2 of 2"),
    ],
)
def test_a_damaged_lexicon_is_one_line(said: dict[str, Any], line: str, tmp_path: Path) -> None:
    path = written(tmp_path / "lex.bin", [[1], [0]], **said)
    with pytest.raises(CheckpointError, match=line):
        read_lexicon(path, 2)


def test_a_cut_lexicon_is_one_line(tmp_path: Path) -> None:
    data = written(tmp_path / "lex.bin", [[1], [0]]).read_bytes()
    for length in (1, 47, 60, len(data) - 1):
        (tmp_path / "cut.bin").write_bytes(data[:length])
        with pytest.raises(CheckpointError, match="needs"):
            read_lexicon(tmp_path / "cut.bin", 2)


def test_one_lexicon_lies_beside_a_model(tmp_path: Path) -> None:
    assert lexicon_file(tmp_path) is None
    one = written(tmp_path / "lex.a.bin", [[0]])
    assert lexicon_file(tmp_path) == one
    written(tmp_path / "lex.b.bin", [[0]])
    with pytest.raises(CheckpointError, match=r"found lex.a.bin, lex.b.bin; keep one"):
        lexicon_file(tmp_path)


def test_a_checkpoint_s_lexicon_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    folder = source_files.write_marian(tmp_path / "m", tiny_pieces.spm_bytes())
    found = MarianSource().load(str(folder), None, None)
    assert found.lexicon is not None
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        found.lexicon()
    for path in folder.glob("lex.*"):
        path.unlink()
    assert MarianSource().load(str(folder), None, None).lexicon is None


# ------------------------------------------------------------------ asking for it


def test_where_there_is_none_it_is_refused_in_a_line(tmp_path: Path) -> None:
    options = ExportOptions(model="tiny", output=tmp_path, shortlist=True)
    family = family_of(CASES["t5-tied"].make())[1]
    with pytest.raises(ExportError, match="this t5 model comes with none"):
        check_shortlist(options, family)
    checkpoint = replace(CASES["marian-ssru"].make(), lexicon=lexicon)
    family = family_of(checkpoint)[1]
    check_shortlist(replace(options, shortlist=False), family)
    assert not family.shape.shortlisted
    check_shortlist(options, family)
    assert family.shape.shortlisted


@pytest.mark.parametrize("said", [{"static": StaticSizes()}, {"taps": ("topk",)}])
def test_graphs_of_fixed_sizes_have_none(said: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="as many words as a source has"):
        ExportOptions(model="tiny", output=tmp_path, shortlist=True, **said)
