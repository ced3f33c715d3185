"""What a caller of a pipeline may rely on: pieces, results, stops, threads, faults in one line."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import Forest, Oracle
from tiny_families import END, VOCABULARY, WORDS, write_bundle

import edgegen
from edgegen import GenerationOptions, InputError, Pipeline
from edgegen.errors import EdgegenWarning
from edgegen.runtime.budget import Fixed
from edgegen.runtime.decoder import Decoder, Scores
from edgegen.runtime.drafters.base import Drafter
from edgegen.runtime.speculative import SpeculativeDecoding
from edgegen.runtime.tokenizer import TextStream

TEXT = "ba dest fin gor lust man"
NAMES = ["t5-tied", "marian-ssru", "llama-grouped", "gemma3"]
SHORT = GenerationOptions(max_new_tokens=24)
Pipelines = Callable[[str], Pipeline]


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Pipelines:
    @cache
    def pipeline(name: str) -> Pipeline:
        return edgegen.load(write_bundle(tmp_path_factory.mktemp("bundle") / "b", name))

    return pipeline


@pytest.fixture(params=NAMES)
def pipeline(request: pytest.FixtureRequest, pipelines: Pipelines) -> Pipeline:
    return pipelines(request.param)


def drafted_by(
    monkeypatch: pytest.MonkeyPatch, pipeline: Pipeline, drafter: Drafter, nodes: int = 7
) -> None:
    """From here on every generation of the pipeline drafts with this one."""
    plain = pipeline.engine.generation

    def generation(*arguments: Any, **named: Any) -> Any:
        made = plain(*arguments, **named)
        assert isinstance(made, SpeculativeDecoding)
        made.drafter, made.budget = drafter, Fixed(nodes)
        return made

    monkeypatch.setattr(pipeline.engine, "generation", generation)


def prompt_of(pipeline: Pipeline, text: str = TEXT) -> list[int]:
    """What the decoder is fed before the first new token."""
    if "encode" in pipeline.engine.variants:
        return list(pipeline.bundle.manifest.generation.start)
    return words(text)


def words(text: str) -> list[int]:
    return [3 + WORDS.index(word) for word in text.split()]


# -------------------------------------------------------------------------- text and pieces


@pytest.mark.parametrize("stop", [(), ("no such words",), ("a",), ("n ", "st")])
@pytest.mark.parametrize("draft", ["none", "lookup"])
def test_pieces_join_to_the_text(pipeline: Pipeline, stop: tuple[str, ...], draft: str) -> None:
    options = SHORT.with_changes(stop=stop, draft=draft)
    stream = pipeline.stream(TEXT, options)
    pieces = list(stream)
    assert "".join(pieces) == stream.result.text
    again = pipeline.generate(TEXT, options)
    assert (again.text, again.tokens) == (stream.result.text, stream.result.tokens)
    assert all(pieces)


def test_without_stops_pieces_come_while_the_model_writes(pipeline: Pipeline) -> None:
    stream = pipeline.stream(TEXT, SHORT)
    assert next(stream)
    with pytest.raises(InputError, match="read it to its end"):
        _ = stream.result
    assert len(list(stream)) > 10


def test_text_nobody_waits_for_is_made_when_the_model_has_written(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    push, forward = TextStream.push, Decoder.forward

    def pushed(stream: TextStream, ids: Iterable[int]) -> str:
        made.append("text")
        return push(stream, ids)

    def decoded(decoder: Decoder, *arguments: Any, **named: Any) -> Scores:
        made.append("call")
        return forward(decoder, *arguments, **named)

    monkeypatch.setattr(TextStream, "push", pushed)
    monkeypatch.setattr(Decoder, "forward", decoded)
    result = pipeline.generate(TEXT, SHORT)
    assert made == ["call"] * len(result.timings.steps) + ["text"]
    made.clear()
    assert "".join(pipeline.stream(TEXT, SHORT)) == result.text
    assert made[:4] == ["call", "text"] * 2


def test_the_text_is_the_tokens_without_the_end(pipeline: Pipeline) -> None:
    result = pipeline.generate(TEXT, SHORT)
    assert result.text.split() == [WORDS[token - 3] for token in result.tokens if token > 2]
    assert result.timings.tokens == len(result.tokens)


@pytest.mark.parametrize("hide", [False, True])
def test_a_stop_string_cuts_at_the_same_letter_whoever_drafts(
    pipeline: Pipeline, hide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = pipeline.generate(TEXT, SHORT)
    letters = free.text
    stop = letters[len(letters) // 2 : len(letters) // 2 + 4]  # across a token's border or two
    options = SHORT.with_changes(stop=(stop,))
    plain = pipeline.generate(TEXT, options)
    assert plain.finish_reason == "stop_string"
    assert plain.text == letters[: letters.index(stop)]
    known = [*prompt_of(pipeline), *free.tokens]
    drafter = Forest(known, VOCABULARY) if hide else Oracle(known)
    drafted_by(monkeypatch, pipeline, drafter)
    drafted = pipeline.generate(TEXT, options)
    assert (drafted.text, drafted.tokens) == (plain.text, plain.tokens)
    assert drafted.timings.draft_tokens_accepted > 0
    assert "".join(pipeline.stream(TEXT, options)) == plain.text


def test_a_shorter_limit_gives_the_beginning(pipeline: Pipeline) -> None:
    whole = pipeline.generate(TEXT, SHORT)
    for count in (1, 5, 23):
        part = pipeline.generate(TEXT, SHORT.with_changes(max_new_tokens=count))
        assert part.tokens == whole.tokens[:count]
        assert part.finish_reason == "length"
        assert whole.text.startswith(part.text)


def test_an_end_token_ends_and_is_no_text_and_a_least_length_puts_it_off(tmp_path: Path) -> None:
    free = edgegen.load(write_bundle(tmp_path / "free", "t5-tied")).generate(TEXT, SHORT)
    end = free.tokens[6]
    at = free.tokens.index(end)
    pipeline = edgegen.load(write_bundle(tmp_path / "b", "t5-tied", defaults={"end": (end,)}))
    result = pipeline.generate(TEXT, SHORT)
    assert (result.tokens, result.finish_reason) == (free.tokens[: at + 1], "stop")
    assert len(result.text.split()) == at
    later = pipeline.generate(TEXT, SHORT.with_changes(min_new_tokens=15))
    assert len(later.tokens) >= 15 and end not in later.tokens[:15]


def test_the_same_seed_is_the_same_text(pipeline: Pipeline) -> None:
    options = SHORT.with_changes(do_sample=True, temperature=1.5, seed=5)
    assert pipeline.generate(TEXT, options).text == pipeline.generate(TEXT, options).text
    other = options.with_changes(seed=6)
    assert pipeline.generate(TEXT, other).text != pipeline.generate(TEXT, options).text


def test_log_probabilities_are_those_of_one_forward_over_the_text(pipeline: Pipeline) -> None:
    result = pipeline.generate(TEXT, SHORT.with_changes(logprobs=3, draft="lookup"))
    engine, prompt = pipeline.engine, prompt_of(pipeline)
    memory = engine.remember_ids([*words(TEXT), END]) if "encode" in engine.variants else None
    tokens = [*prompt, *result.tokens[:-1]]
    rows = engine.decoder(memory).forward(tokens, first_row=len(prompt) - 1).logits
    wide = rows.astype(np.float64)
    logs = wide - np.log(np.exp(wide - wide.max(-1, keepdims=True)).sum(-1, keepdims=True))
    logs -= wide.max(-1, keepdims=True)
    expected = [logs[i, token] for i, token in enumerate(result.tokens)]
    assert len(result.logprobs) == len(result.tokens)
    np.testing.assert_allclose([s.logprob for s in result.logprobs], expected, atol=1e-4)
    assert sum(s.logprob for s in result.logprobs) == pytest.approx(sum(expected), abs=1e-3)
    for row, score in zip(logs, result.logprobs, strict=True):
        assert [token for token, _ in score.alternatives] == np.argsort(-row, kind="stable")[
            :3
        ].tolist()


def test_layout_between_sentences_is_kept(pipelines: Pipelines) -> None:
    text = "Ba dest. Fin gor!\n\n  Lust man?\n---\n"
    pipeline = pipelines("marian-ssru")
    result = pipeline.generate(text, SHORT)
    assert len(result.timings.passes) == 3
    first, rest = result.text.split("\n\n  ")
    alone = [pipeline.generate(one, SHORT).text for one in ("Ba dest.", "Fin gor!", "Lust man?")]
    assert first == f"{alone[0]} {alone[1]}" and rest == f"{alone[2]}\n---\n"


# --------------------------------------------------------------------------------- sources


def test_a_list_gives_a_list_in_order(pipeline: Pipeline) -> None:
    texts = [TEXT, "gor gor", "man", TEXT]
    results = pipeline.generate(texts, SHORT)
    assert [one.text for one in results] == [pipeline.generate(t, SHORT).text for t in texts]
    assert results[0].text == results[3].text
    assert pipeline.generate([], SHORT) == []


def test_ids_say_what_their_text_says(pipeline: Pipeline) -> None:
    ids = words(TEXT) + ([END] if "encode" in pipeline.engine.variants else [])
    expected = pipeline.generate(TEXT, SHORT).text
    assert pipeline.generate(ids, SHORT).text == expected
    assert pipeline.generate(np.array(ids), SHORT).text == expected
    assert [r.text for r in pipeline.generate([ids, ids], SHORT)] == [expected] * 2


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ([3, VOCABULARY], "outside the vocabulary"),
        ([-1, 5], "outside the vocabulary"),
        ([3.5, 4.0], "token ids"),
        (np.zeros((2, 2), np.int64), "token ids"),
        (np.zeros(0, np.int64), "token ids"),
        (17, "token ids"),
        (None, "token ids"),
        (Path("speech.wav"), "text model"),
    ],
)
def test_what_is_no_source_is_refused_in_one_line(
    pipeline: Pipeline, source: Any, said: str
) -> None:
    with pytest.raises(InputError, match=said) as caught:
        pipeline.generate(source, SHORT)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "  ", "\n\n"])
def test_an_empty_text(text: str, pipelines: Pipelines) -> None:
    """Nothing to correct is a slip; nothing to translate is nothing; nothing to continue begins."""
    with pytest.raises(InputError, match="empty"):
        pipelines("t5-tied").generate(text)
    translated = pipelines("marian-ssru").generate(text)
    assert (translated.text, translated.tokens, translated.finish_reason) == (text, (), "stop")
    begun = pipelines("llama-grouped").generate("", SHORT)
    assert len(begun.tokens) == 24


def test_an_option_that_names_no_token_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(InputError, match="forced has id"):
        pipeline.generate(TEXT, SHORT.with_changes(forced=((0, VOCABULARY),)))


def test_a_source_too_long_is_shortened_with_a_warning_or_refused(tmp_path: Path) -> None:
    pipeline = edgegen.load(write_bundle(tmp_path / "b", "t5-tied", defaults={"max_source": 5}))
    with pytest.warns(EdgegenWarning, match="7 tokens and the model takes 5"):
        result = pipeline.generate(TEXT, SHORT)
    assert len(result.warnings) == 1
    assert result.text == pipeline.generate([*words(TEXT)[:4], END], SHORT).text
    with pytest.raises(InputError, match="7 tokens and the model takes 5"):
        pipeline.generate(TEXT, SHORT.with_changes(truncate=False))


def test_a_prompt_too_long_keeps_its_end(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", "gemma3", defaults={"max_positions": 20})
    pipeline, long = edgegen.load(folder), " ".join([TEXT] * 5)
    options = GenerationOptions(max_new_tokens=8)
    with pytest.warns(EdgegenWarning, match="takes 20; only the last 12 were used"):
        result = pipeline.generate(long, options)
    assert result.tokens == pipeline.generate(words(long)[-12:], options).tokens
    with pytest.raises(InputError, match="30 tokens"):
        pipeline.generate(long, options.with_changes(truncate=False))


def test_a_long_sentence_is_cut_and_nothing_of_it_is_lost(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", "marian-ssru", defaults={"max_source": 6})
    result = edgegen.load(folder).generate(" ".join([TEXT] * 3), SHORT)
    assert sum(one.source_tokens - 1 for one in result.timings.passes) == 18
    assert all(one.source_tokens <= 6 for one in result.timings.passes)
    assert result.warnings == ()


# --------------------------------------------------------------------- threads and endings


def test_threads_share_a_pipeline_and_get_their_own_answers(pipeline: Pipeline) -> None:
    texts = [" ".join(WORDS[i : i + 2 + i % 5]) for i in range(0, 48, 3)]
    options = [
        SHORT.with_changes(do_sample=i % 2 == 1, seed=i, draft=("none", "lookup")[i % 3 == 0])
        for i in range(len(texts))
    ]
    expected = [pipeline.generate(t, o).text for t, o in zip(texts, options, strict=True)]
    found: list[dict[int, str]] = [{} for _ in range(4)]

    def work(mine: dict[int, str], order: Sequence[int]) -> None:
        for i in order:
            mine[i] = "".join(pipeline.stream(texts[i], options[i]))

    orders = [np.random.default_rng(seed).permutation(len(texts)).tolist() for seed in range(4)]
    threads = [
        threading.Thread(target=work, args=(mine, order))
        for mine, order in zip(found, orders, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mine in found:
        assert [mine.get(i) for i in range(len(texts))] == expected


def test_generations_may_take_turns(pipeline: Pipeline) -> None:
    texts = [TEXT, "gor gor", "man lust"]
    expected = [pipeline.generate(text, SHORT).text for text in texts]
    streams = [pipeline.stream(text, SHORT) for text in texts]
    found = ["", "", ""]
    for _ in range(60):
        for i, stream in enumerate(streams):
            found[i] += next(stream, "")
    assert found == expected


def test_a_cancelled_stream_stops_and_leaves_the_pipeline_whole(pipeline: Pipeline) -> None:
    expected = pipeline.generate(TEXT, SHORT).text
    with pipeline.stream(TEXT, SHORT.with_changes(max_new_tokens=10**6)) as stream:
        shown = next(stream) + next(stream)
    assert shown and expected.startswith(shown)
    assert list(stream) == []
    with pytest.raises(InputError, match="no result"):
        _ = stream.result
    assert pipeline.generate(TEXT, SHORT).text == expected


def graph_of(pipeline: Pipeline, part: str) -> weakref.ref[Any]:
    session: Any = pipeline.engine.session(part)
    return weakref.ref(session.inner.inference)


@pytest.mark.parametrize("name", NAMES)
def test_close_frees_the_graphs_and_says_so_afterwards(name: str, tmp_path: Path) -> None:
    pipeline = edgegen.load(write_bundle(tmp_path / "b", name))
    with pipeline:
        pipeline.generate(TEXT, SHORT)
        graphs = [graph_of(pipeline, part) for part in pipeline.bundle.manifest.components]
        assert all(graph() is not None for graph in graphs)
    gc.collect()
    assert all(graph() is None for graph in graphs)
    with pytest.raises(InputError, match="closed"):
        pipeline.generate(TEXT, SHORT)
    pipeline.close()  # once more does no harm


def test_a_finished_generation_leaves_no_cache_behind(pipeline: Pipeline) -> None:
    """Keys and values of a text go with its stream, whether it ended, broke off or was dropped."""
    made: list[weakref.ref[Any]] = []
    plain = pipeline.engine.decoder

    def decoder(*arguments: Any) -> Any:
        found = plain(*arguments)
        made.append(weakref.ref(found))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.engine, "decoder", decoder)
        pipeline.generate(TEXT, SHORT)
        stream = pipeline.stream(TEXT, SHORT)
        next(stream)
        stream.close()
        dropped = pipeline.stream(TEXT, SHORT)
        next(dropped)
        del dropped
    gc.collect()
    assert len(made) == 3 and all(one() is None for one in made)
