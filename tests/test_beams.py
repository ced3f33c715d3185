"""Beam search finds transformers' own hypotheses, with its scores, from rows of one cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from beam_truth import NEW, options, searched, sources, truth
from tiny_families import CASES, VOCABULARY, write_bundle
from typer.testing import CliRunner

from edgegen import GenerationOptions, Pipeline, load
from edgegen.cli import app
from edgegen.errors import DeviceError, InputError
from edgegen.export.families import family_of
from edgegen.runtime.decoder import Decoder, Scores
from edgegen.runtime.filters import LogitsFilter, RepetitionPenalty, SuppressTokens
from edgegen.runtime.history import HistoryBuffer
from edgegen.runtime.ranking import LogProbabilities, likeliest

Pipelines = Callable[[str], Pipeline]
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "plain": {"num_beams": 4},
    "long": {"num_beams": 3, "length_penalty": 2.0},
    "short": {"num_beams": 3, "length_penalty": -1.0},
    "early": {"num_beams": 4, "early_stopping": True},
    "never": {"num_beams": 2, "early_stopping": "never", "length_penalty": 1.5},
    "no-repeat": {"num_beams": 4, "no_repeat_ngram_size": 2, "repetition_penalty": 1.3},
}


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Pipelines:
    @cache
    def opened(name: str) -> Pipeline:
        return load(write_bundle(tmp_path_factory.mktemp(name) / "bundle", name))

    return opened


@pytest.mark.parametrize("setting", SETTINGS)
def test_hypotheses_and_scores_are_those_of_transformers(
    pipelines: Pipelines, setting: str
) -> None:
    for source in sources(12, seed=3):
        found = pipelines("t5-tied").generate(source, options(**SETTINGS[setting])).hypotheses
        wanted = truth("t5-tied", {"input_ids": torch.tensor([source])}, SETTINGS[setting])
        assert [list(text.tokens) for text in found] == [tokens for tokens, _ in wanted]
        assert np.allclose([t.score for t in found], [s for _, s in wanted], atol=1e-4)


@pytest.mark.parametrize("name", ["marian-ssru", "llama-grouped", "gemma3", "mt5"])
def test_every_kind_of_cache_finds_what_whole_forwards_find(
    pipelines: Pipelines, name: str
) -> None:
    """Rows of a recurrent decoder follow their own parents, local windows their own past."""
    pipeline = pipelines(name)
    encoder = family_of(CASES[name].make())[1].shape.encoder
    said = options(num_beams=3)
    for source in sources(6, seed=9):
        found = pipeline.generate(source, said).hypotheses
        prompt = list(pipeline.bundle.manifest.generation.start) if encoder else source
        wanted = searched(name, {"input_ids": source} if encoder else {}, prompt, said)
        assert [list(text.tokens) for text in found] == [tokens for tokens, _ in wanted]
        assert np.allclose([text.score for text in found], [s for _, s in wanted], atol=1e-4)


def test_one_group_without_penalty_is_beam_search(pipelines: Pipelines) -> None:
    pipeline = pipelines("t5-tied")
    for source in sources(5, seed=1):
        plain = pipeline.generate(source, options(num_beams=4)).hypotheses
        grouped = options(num_beams=4, num_beam_groups=1, diversity_penalty=0.0)
        assert pipeline.generate(source, grouped).hypotheses == plain


@pytest.mark.parametrize("rules", [{}, {"no_repeat_ngram_size": 2, "suppress": (4, 5, 6)}])
def test_groups_of_one_without_penalty_are_greedy_texts_all_alike(
    rules: dict[str, Any], pipelines: Pipelines
) -> None:
    """With rules too, though all groups share one row."""
    pipeline = pipelines("t5-tied")
    for source in sources(5, seed=2):
        plain = GenerationOptions(max_new_tokens=NEW, draft="none", **rules)
        greedy = pipeline.generate(source, plain)
        said = options(num_beams=4, num_beam_groups=4, **rules)
        found = pipeline.generate(source, said).hypotheses
        assert [text.tokens for text in found] == [greedy.tokens] * 4


def test_the_penalty_makes_texts_differ(pipelines: Pipelines) -> None:
    """Different pairs of neighbours among the texts of a source grow with the penalty."""

    def pairs(penalty: float) -> float:
        shares: list[float] = []
        for source in sources(8, seed=4):
            said = options(num_beams=6, num_beam_groups=3, diversity_penalty=penalty)
            texts = pipelines("marian-ssru").generate(source, said).hypotheses
            every = [
                two for text in texts for two in zip(text.tokens, text.tokens[1:], strict=False)
            ]
            shares.append(len(set(every)) / max(1, len(every)))
        return sum(shares) / len(shares)

    none, some, much = pairs(0.0), pairs(0.5), pairs(1000.0)
    assert none < some <= much


def test_an_overwhelming_penalty_gives_each_group_a_first_word_of_its_own(
    pipelines: Pipelines,
) -> None:
    said = options(num_beams=5, num_beam_groups=5, diversity_penalty=1e6)
    for source in sources(4, seed=5):
        found = pipelines("t5-tied").generate(source, said).hypotheses
        assert len({text.tokens[0] for text in found}) == 5


def test_a_stop_string_ends_a_beam_and_is_cut_from_its_text(pipelines: Pipelines) -> None:
    pipeline, stopped = pipelines("t5-tied"), 0
    for source in sources(6, seed=6):
        word = pipeline.generate(source, options(num_beams=2)).text.split()[1]
        texts = pipeline.generate(source, options(num_beams=2, stop=(word,))).hypotheses
        assert not any(word in text.text for text in texts)
        stopped += sum(text.finish_reason == "stop_string" for text in texts)
    assert stopped


def test_logprobs_of_beams_add_up_to_their_score(pipelines: Pipelines) -> None:
    for source in sources(4, seed=7):
        said = options(num_beams=3, length_penalty=0.0, logprobs=2)
        result = pipelines("t5-tied").generate(source, said)
        assert len(result.logprobs) == len(result.tokens)
        total = sum(token.logprob for token in result.logprobs)
        assert total == pytest.approx(result.hypotheses[0].score, abs=1e-4)


def test_beams_do_not_multiply_rows_or_the_memory(pipelines: Pipelines) -> None:
    """Common beginnings stand once and dropped branches go: far fewer rows than beams x tokens."""
    pipeline = pipelines("t5-tied")
    said = GenerationOptions(num_beams=8, max_new_tokens=60, min_new_tokens=59)
    memory = pipeline.engine.remember_ids(sources(1)[0])
    decoder = pipeline.engine.decoder(memory, said)
    search = pipeline.engine.generation(decoder, said, prompt_length=1, memory=memory)
    most = 0
    for _ in search.run(pipeline.bundle.manifest.generation.start):
        most = max(most, decoder.length)
    assert most < 8 * 60 / 2
    assert all(array.shape[0] == 1 for array in memory.feeds.values())


def test_rows_no_text_can_go_on_from_are_refused(
    pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, every = pipelines("t5-tied"), tuple(range(VOCABULARY))
    with pytest.raises(InputError, match="every token is forbidden"):
        pipeline.generate(sources(1)[0], options(num_beams=2, suppress=every))
    forward = Decoder.forward

    def broken(decoder: Decoder, *given: Any, **named: Any) -> Scores:
        logits = forward(decoder, *given, **named).logits.copy()
        logits[-1, 7] = np.nan
        return Scores(logits)

    monkeypatch.setattr(Decoder, "forward", broken)
    with pytest.raises(DeviceError, match="largest logit is nan"):
        pipeline.generate(sources(1)[0], options(num_beams=2))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"num_beams": 4, "num_beam_groups": 3}, "multiple of num_beam_groups"),
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences=3"),
        ({"num_beams": 2, "diversity_penalty": 1.0}, "num_beam_groups"),
        ({"num_beams": 2, "do_sample": True}, "do_sample"),
        ({"num_beams": 2, "draft": "lookup"}, "no drafts"),
        ({"num_beams": 2, "early_stopping": "soon"}, "early_stopping"),
        ({"num_beams": 0}, "num_beams"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(said: Mapping[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        GenerationOptions(**said)
    assert "\n" not in str(caught.value)


def test_the_command_line_writes_the_texts_and_their_scores(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", "t5-tied")
    asked = ["--num-beams", "3", "--num-return-sequences", "3", "--early-stopping", "true"]
    found = CliRunner().invoke(app, ["run", str(bundle), "badu kin", *asked])
    assert found.exit_code == 0, found.output
    lines = [line.split("\t") for line in found.output.splitlines()]
    scores = [float(score) for score, _ in lines]
    assert len(lines) == 3 and scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("size", [1, 7, 128, 1000, 1024, 5000])
@pytest.mark.parametrize("rows", [1, 4])
def test_the_likeliest_are_those_of_a_whole_sort(rows: int, size: int) -> None:
    """With ties at the edge, forbidden values and fewer allowed ones than are asked for."""
    rng = np.random.default_rng(size)
    for trial in range(40):
        values = rng.normal(size=(rows, size)).astype(np.float32)
        scores = rng.normal(scale=(0, 3, 100)[trial % 3], size=rows).astype(np.float32)
        if trial % 2:  # many ties
            values, scores = values.round(1), scores.round(1)
        values[rng.random((rows, size)) < (0.0, 0.5, 0.999, 1.0)[trial % 4]] = -np.inf
        sums = (values + scores[:, None]).reshape(-1)
        order = np.argsort(-sums, kind="stable")
        finite = [int(place) for place in order if sums[place] > -np.inf]
        wanted = [(*divmod(place, size), sums[place]) for place in finite]
        for count in (1, 2, 8, 40):
            found = likeliest(values, scores, count)
            assert found == wanted[:count], (trial, count)


@pytest.mark.parametrize("rounds", [(4, 1, 3), (1, 4, 2)])
@pytest.mark.parametrize("forbids", [False, True])
def test_log_probabilities_are_those_of_each_call_and_filtered_once(
    forbids: bool, rounds: Sequence[int]
) -> None:
    rng = np.random.default_rng(1)
    history = HistoryBuffer([0], [])
    rules: list[LogitsFilter] = [SuppressTokens((8, 9))]
    rules += [] if forbids else [RepetitionPenalty(2.0)]
    said = LogProbabilities(history, rules)
    for rows in rounds:
        logits = rng.normal(size=(rows, 50)).astype(np.float32)
        wanted = torch.log_softmax(torch.from_numpy(logits), -1).numpy().copy()
        said.read(logits)
        assert np.allclose(said.values + said.offsets[:, None], wanted, atol=1e-6)
        for row in range(rows):
            said.filter(row, (5, 6))
            said.filter(row, (5, 6))
            for token in () if forbids else (0, 5, 6):
                wanted[row, token] *= 2
        wanted[:, [8, 9]] = -np.inf
        assert np.allclose(said.values + said.offsets[:, None], wanted, atol=1e-6)
