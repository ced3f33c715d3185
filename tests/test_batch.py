"""Texts decoded together are the texts of one at a time, whatever their lengths."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_families import CASES, END, VOCABULARY, WORDS, write_bundle
from typer.testing import CliRunner

from edgegen import GenerationOptions, Pipeline, load
from edgegen.cli import app
from edgegen.errors import InputError
from edgegen.export.families import family_of
from edgegen.runtime.batch import side_by_side

Pipelines = Callable[..., Pipeline]
# Append, in place, recurrent; a bias by distance, learned places, grouped keys.
TOGETHER = ["t5-tied", "mt5", "bart", "marian-ssru", "llama-grouped", "qwen3"]
# Layers with a window, or a memory inside the cache, decode alone.
ALONE = ["gemma3", "t5gemma2"]


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Pipelines:
    @cache
    def opened(name: str, form: str = "onnx") -> Pipeline:
        folder = tmp_path_factory.mktemp(name) / "bundle"
        device = "ort-cpu" if form == "onnx" else "ov-cpu"
        return load(write_bundle(folder, name, formats=(form,)), device)  # type: ignore[arg-type]

    return opened


def sources(name: str, count: int, seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    encoder = family_of(CASES[name].make())[1].shape.encoder
    return [
        [*map(int, random.integers(3, VOCABULARY, int(random.integers(1, 18)))), *[END] * encoder]
        for _ in range(count)
    ]


def plain(**said: Any) -> GenerationOptions:
    asked: dict[str, Any] = {"draft": "none", "max_new_tokens": 14, **said}
    return GenerationOptions(**asked)


@pytest.mark.parametrize("way", ["greedy", "sampled"])
@pytest.mark.parametrize("name", [*TOGETHER, *ALONE])
def test_texts_are_those_of_one_at_a_time(pipelines: Pipelines, name: str, way: str) -> None:
    pipeline, given = pipelines(name), sources(name, 11)
    said = plain(do_sample=way == "sampled", seed=3, repetition_penalty=1.2)
    alone = [pipeline.generate(source, said) for source in given]
    together = pipeline.generate(given, said, batch_size=4)
    assert [result.tokens for result in together] == [result.tokens for result in alone]
    assert [result.text for result in together] == [result.text for result in alone]
    assert [r.finish_reason for r in together] == [r.finish_reason for r in alone]


@pytest.mark.parametrize("name", ["t5-tied", "marian-ssru", "llama-grouped"])
def test_texts_are_the_same_on_openvino(pipelines: Pipelines, name: str) -> None:
    pipeline, given = pipelines(name, "openvino"), sources(name, 9)
    alone = [pipeline.generate(source, plain()).tokens for source in given]
    assert [r.tokens for r in pipeline.generate(given, plain(), batch_size=3)] == alone


def test_texts_that_outgrow_their_first_memory_stay_right(pipelines: Pipelines) -> None:
    said = plain(max_new_tokens=150, min_new_tokens=140)
    pipeline, given = pipelines("t5-tied"), sources("t5-tied", 5, seed=2)
    given[0] = [*given[0][:-1] * 9, END]
    alone = [pipeline.generate(source, said).tokens for source in given]
    assert [r.tokens for r in pipeline.generate(given, said, batch_size=5)] == alone


def test_every_decode_call_is_shared(pipelines: Pipelines, monkeypatch: Any) -> None:
    """Texts of one length each: as many calls as one text takes, not as all."""
    pipeline, calls = pipelines("t5-tied"), 0
    from edgegen.runtime.seats import Seats

    forward = Seats.forward

    def counted(self: Seats, tokens: Any) -> Any:
        nonlocal calls
        calls += 1
        assert len(tokens) == 6
        return forward(self, tokens)

    monkeypatch.setattr(Seats, "forward", counted)
    said = plain(max_new_tokens=9, min_new_tokens=9)
    pipeline.generate(sources("t5-tied", 6), said, batch_size=6)
    assert calls == 9


def test_sentences_of_each_text_are_decoded_beside_the_others(pipelines: Pipelines) -> None:
    pipeline = pipelines("marian-ssru")
    texts = [
        f"{WORDS[i].title()} {WORDS[i + 3]}. {WORDS[i + 5].title()} {WORDS[2 * i]}."
        for i in range(5)
    ]
    alone = [pipeline.generate(text, plain()).text for text in texts]
    assert [r.text for r in pipeline.generate(texts, plain(), batch_size=3)] == alone


def test_beams_are_found_in_a_batch_too(pipelines: Pipelines) -> None:
    pipeline, given = pipelines("t5-tied"), sources("t5-tied", 4, seed=5)
    said = GenerationOptions(num_beams=3, num_return_sequences=3, max_new_tokens=10)
    alone = [pipeline.generate(source, said).hypotheses for source in given]
    assert [r.hypotheses for r in pipeline.generate(given, said, batch_size=4)] == alone


def test_a_bad_source_is_one_line_and_the_pipeline_goes_on(pipelines: Pipelines) -> None:
    pipeline = pipelines("t5-tied")
    with pytest.raises(InputError, match="empty"):
        pipeline.generate(["badu", "  ", "kin"], plain(), batch_size=2)
    assert pipeline.generate(["badu"], plain(), batch_size=2)[0].tokens
    with pytest.raises(InputError, match="batch_size"):
        pipeline.generate(["badu"], plain(), batch_size=0)


def test_lines_come_out_as_they_went_in(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", "t5-tied")
    lines = "\n".join(["badu kin", "", "ger lon", "mun", "", "sa be bi"])
    alone = CliRunner().invoke(app, ["run", str(bundle), "--draft", "none"], input=lines)
    asked = ["run", str(bundle), "--draft", "none", "--batch-size", "3"]
    together = CliRunner().invoke(app, asked, input=lines)
    assert together.exit_code == 0, together.output
    assert together.output == alone.output and together.output.count("\n") == 6


@pytest.mark.parametrize("name", ["t5-tied", "marian-ssru", "gemma3"])
def test_texts_of_several_workers_are_those_of_one(pipelines: Pipelines, name: str) -> None:
    pipeline, given = pipelines(name), sources(name, 11)
    alone = [pipeline.generate(source, plain()).tokens for source in given]
    for size, workers in ((1, 2), (3, 2), (2, 4), (4, 20)):
        found = pipeline.generate(given, plain(), batch_size=size, workers=workers)
        assert [result.tokens for result in found] == alone
    assert pipeline.generate([], plain(), workers=2) == []


def test_what_one_worker_s_text_raises_ends_all_in_one_line(pipelines: Pipelines) -> None:
    pipeline = pipelines("t5-tied")
    given: list[Any] = [*sources("t5-tied", 6), " ", *sources("t5-tied", 6)]
    with pytest.raises(InputError, match="empty"):
        pipeline.generate(given, plain(), batch_size=2, workers=2)
    with pytest.raises(InputError, match="workers must be at least 1, got 0"):
        pipeline.generate(given, plain(), workers=0)
    again = sources("t5-tied", 4)
    alone = [pipeline.generate(source, plain()).tokens for source in again]
    assert [one.tokens for one in pipeline.generate(again, plain(), workers=2)] == alone


def test_the_command_line_has_workers(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", "t5-tied")
    lines = "".join(f"{WORDS[i]} {WORDS[2 * i]}\n" for i in range(3, 10))
    asked = ["run", str(bundle), "--draft", "none"]
    alone = CliRunner().invoke(app, asked, input=lines)
    shared = CliRunner().invoke(app, [*asked, "--batch-size", "2", "--workers", "2"], input=lines)
    assert shared.exit_code == 0 and shared.stdout == alone.stdout


def test_drafts_are_for_workers_of_one_text_at_a_time(pipelines: Pipelines) -> None:
    pipeline, given = pipelines("t5-tied"), sources("t5-tied", 7)
    alone = [pipeline.generate(source, plain()).tokens for source in given]
    found = pipeline.generate(given, plain(draft="lookup"), workers=2)
    assert [one.tokens for one in found] == alone
    assert any(step.drafted for one in found for step in one.timings.steps)
    with pytest.raises(InputError, match=r"draft 'lookup' .* leave batch_size at 1"):
        pipeline.generate(given, plain(draft="lookup"), batch_size=2)
    auto = pipeline.generate(given, plain(draft="auto"), batch_size=2)
    assert [one.tokens for one in auto] == alone


@pytest.mark.parametrize(
    ("lengths", "most", "groups"),
    [
        ([], 256, []),
        ([100, 10, 11, 90], 0, [[1, 2], [3, 0]]),
        ([100, 10, 11, 90], 256, [[1, 2], [3, 0]]),
        ([100, 10, 11, 90], 199, [[1, 2], [3], [0]]),
        ([300, 300], 256, [[0], [1]]),
        ([100, 120, 128], 256, [[0, 1], [2]]),
    ],
)
def test_sources_are_encoded_side_by_side_as_far_as_a_call_does_well(
    lengths: list[int], most: int, groups: list[list[int]]
) -> None:
    assert side_by_side(lengths, most) == groups


def test_workers_share_what_one_of_them_had_room_for(
    pipelines: Pipelines, monkeypatch: Any
) -> None:
    pipeline, given = pipelines("t5-tied"), sources("t5-tied", 7)
    from edgegen.runtime import batch

    sizes: list[int] = []
    made = batch.Batch

    def noted(engine: Any, size: int) -> Any:
        sizes.append(size)
        return made(engine, size)

    monkeypatch.setattr(batch, "Batch", noted)
    for size, workers in ((32, 2), (2, 2), (32, 20), (32, 1)):
        pipeline.generate(given, plain(), batch_size=size, workers=workers)
    assert sizes == [4, 4, 2, 2, *[1] * 20, 7]
