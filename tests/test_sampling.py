"""Laws of choosing a token: keyed noise, transformers' cuts, log-probabilities."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from edgegen.errors import DeviceError, InputError
from edgegen.runtime.options import GenerationOptions
from edgegen.runtime.sampling import (
    ACCEPT,
    CHOOSE,
    DRAFT,
    RESIDUAL,
    Greedy,
    Row,
    Sampling,
    build_sampler,
    draw,
    gumbel,
    log_probabilities,
    top_ids,
    uniforms,
)


def rows(count: int, vocabulary: int, seed: int = 0, ties: bool = False) -> Row:
    random = np.random.default_rng(seed)
    logits = random.normal(scale=2.5, size=(count, vocabulary)).astype(np.float32)
    if ties:
        logits = np.round(logits)
    logits[:, random.integers(0, vocabulary, vocabulary // 8)] = -np.inf
    return logits


def warped(logits: Row, temperature: float, top_k: int, top_p: float, min_p: float) -> Row:
    """What transformers' warpers, in its order, leave of rows [B, V]."""
    torch = pytest.importorskip("torch")
    made = pytest.importorskip("transformers.generation.logits_process")
    scores: Any = torch.from_numpy(logits.copy())
    chain: list[Any] = []
    if temperature != 1:
        chain.append(made.TemperatureLogitsWarper(temperature))
    if top_k:
        chain.append(made.TopKLogitsWarper(top_k))
    if top_p < 1:
        chain.append(made.TopPLogitsWarper(top_p))
    if min_p:
        chain.append(made.MinPLogitsWarper(min_p))
    for warper in chain:
        scores = warper(None, scores)
    return np.asarray(scores.numpy(), np.float32)


SETTINGS = [
    (0.7, 0, 1.0, 0.0),
    (1.0, 1, 1.0, 0.0),
    (1.0, 5, 1.0, 0.0),
    (1.0, 400, 1.0, 0.0),
    (1.0, 0, 0.9, 0.0),
    (1.0, 0, 0.05, 0.0),
    (1.0, 0, 0.5, 0.0),
    (1.0, 0, 1.0, 0.05),
    (1.0, 0, 1.0, 1.0),
    (1.9, 0, 0.95, 0.02),
    (0.3, 20, 0.8, 0.1),
    (1.3, 12, 0.99, 0.0),
]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("vocabulary", [7, 300, 5000])
@pytest.mark.parametrize(("temperature", "top_k", "top_p", "min_p"), SETTINGS)
def test_the_tokens_left_are_those_transformers_leaves(
    temperature: float, top_k: int, top_p: float, min_p: float, vocabulary: int, ties: bool
) -> None:
    logits = rows(60, vocabulary, seed=vocabulary, ties=ties)
    expected = warped(logits, temperature, top_k, top_p, min_p)
    sampler = Sampling(0, temperature, top_k, top_p, min_p)
    for row, left in zip(logits, expected, strict=True):
        ids, scores = sampler.survivors(row)
        # Which of equal logits top-p keeps is left open by an unstable sort; how many is not.
        if ties and top_p < 1:
            assert np.sort(scores).tolist() == np.sort(left[left > -np.inf]).tolist()
        else:
            assert ids.tolist() == np.flatnonzero(left > -np.inf).tolist()
            assert np.array_equal(scores, left[ids])


def test_of_equal_logits_at_the_edge_of_top_p_the_lowest_ids_stay() -> None:
    ids, _ = Sampling(0, top_p=0.5).survivors(np.array([0, -9, 0, 0, 0], np.float32))
    assert ids.tolist() == [0, 2, 3]
    ids, _ = Sampling(0, top_p=0.4).survivors(np.array([0, -9, 0, 0, 0], np.float32))
    assert ids.tolist() == [0, 2]


def test_equal_scores_at_the_edge_of_top_k_all_stay() -> None:
    row = np.array([1, 3, 3, 2, 3, 2, 0], np.float32)
    assert top_ids(row, 2).tolist() == [1, 2, 4]
    assert top_ids(row, 4).tolist() == [1, 2, 3, 4, 5]
    assert top_ids(np.array([0, -np.inf, 1], np.float32), 3).tolist() == [0, 2]


@pytest.mark.parametrize("k", [1, 3, 50])
def test_blocks_never_change_the_top_k(k: int) -> None:
    for seed in range(20):
        row = rows(1, 64 * 200 + 17, seed, ties=seed % 2 == 0)[0]
        assert top_ids(row, k).tolist() == np.flatnonzero(row >= np.sort(row)[-k]).tolist()


def test_greedy_takes_the_lowest_id_on_ties() -> None:
    row = np.array([0, 2, 1, 2], np.float32)
    assert Greedy().choose(row, 9) == 1
    only = Greedy().distribution(row)
    assert (only.ids.tolist(), only.probabilities.tolist()) == ([1], [1.0])


def test_samples_follow_the_softmax() -> None:
    stats = pytest.importorskip("scipy.stats")
    row = np.array([1.0, 0.0, -1.0, 0.5, 2.0, -3.0], np.float32)
    expected = Sampling(0).distribution(row).probabilities
    for seed in range(5):
        picks = [Sampling(seed).choose(row, position) for position in range(8000)]
        counts = np.bincount(picks, minlength=len(row))
        assert stats.chisquare(counts, expected * len(picks)).pvalue > 1e-3


def test_samples_follow_the_softmax_over_seeds_as_well_as_over_positions() -> None:
    stats = pytest.importorskip("scipy.stats")
    row = np.array([0.3, 0.0, -1.0, 1.5], np.float32)
    expected = Sampling(0).distribution(row).probabilities
    picks = [Sampling(seed).choose(row, 4) for seed in range(8000)]
    assert stats.chisquare(np.bincount(picks), expected * len(picks)).pvalue > 1e-3


def test_positions_and_uses_are_independent() -> None:
    stats = pytest.importorskip("scipy.stats")
    row = np.zeros(4, np.float32)
    picks = np.array([Sampling(3).choose(row, position) for position in range(16000)])
    others = np.array([Sampling(3, use=DRAFT).choose(row, position) for position in range(16000)])
    for left, right in [(picks[:-1], picks[1:]), (picks[:-2], picks[2:]), (picks, others)]:
        table = np.bincount(4 * left + right, minlength=16).reshape(4, 4)
        assert stats.chi2_contingency(table).pvalue > 1e-3


def test_uniforms_are_uniform_in_the_open_interval() -> None:
    stats = pytest.importorskip("scipy.stats")
    ids = np.arange(262144)
    for use in (CHOOSE, ACCEPT, RESIDUAL, DRAFT):
        values = uniforms(2**64 - 1, use, 7, ids)
        assert values.min() > 0 and values.max() < 1
        assert stats.kstest(values, "uniform").pvalue > 1e-3
        assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.01


def test_splitmix64_is_the_published_one() -> None:
    """State 0's first outputs, from the reference implementation (prng.di.unimi.it)."""
    from edgegen.runtime import sampling

    golden = 0x9E3779B97F4A7C15
    first = sampling._mix_int(golden)  # pyright: ignore[reportPrivateUsage]
    second = sampling._mix_int(2 * golden % 2**64)  # pyright: ignore[reportPrivateUsage]
    assert (first, second) == (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4)


def test_the_array_and_the_integer_mix_agree() -> None:
    from edgegen.runtime import sampling

    mix = sampling._mix_int  # pyright: ignore[reportPrivateUsage]
    golden, mask, key = 0x9E3779B97F4A7C15, 2**64 - 1, 0
    for word in (11, CHOOSE, 5):
        key = mix((key + word + golden) & mask)
    expected = [((mix((key + golden * (i + 1)) & mask) >> 12) + 0.5) / 2**52 for i in range(50)]
    assert uniforms(11, CHOOSE, 5, np.arange(50)).tolist() == expected


def test_the_noise_of_a_token_depends_on_no_other_token() -> None:
    all_ids = np.arange(1000)
    everyone = gumbel(5, CHOOSE, 2, all_ids)
    few = np.array([700, 3, 999])
    assert np.array_equal(gumbel(5, CHOOSE, 2, few), everyone[few])


def test_cutting_tokens_that_lose_changes_nothing() -> None:
    for seed, row in enumerate(rows(50, 400)):
        winner = Sampling(seed).choose(row, 1)
        cut = np.where(np.arange(400) % 3 == winner % 3, row, -np.inf).astype(np.float32)
        assert Sampling(seed).choose(cut, 1) == winner


def test_a_distribution_sums_to_one_and_knows_its_tokens() -> None:
    row = np.array([0.0, math.log(3), -np.inf, 0.0], np.float32)
    found = Sampling(0).distribution(row)
    assert found.ids.tolist() == [0, 1, 3]
    assert found.probabilities.tolist() == pytest.approx([0.2, 0.6, 0.2])
    assert found.of(1) == pytest.approx(0.6)
    assert (found.of(2), found.of(99)) == (0.0, 0.0)
    assert found.entropy() == pytest.approx(-(0.4 * math.log(0.2) + 0.6 * math.log(0.6)))


def test_a_draw_never_lands_on_probability_zero() -> None:
    found = (
        Sampling(0)
        .distribution(np.zeros(3, np.float32))
        ._replace(probabilities=np.array([0.0, 1.0, 0.0]))
    )
    assert {draw(found, seed, RESIDUAL, 0) for seed in range(50)} == {1}


def test_log_probabilities_are_those_of_the_softmax() -> None:
    torch = pytest.importorskip("torch")
    for row in rows(20, 6400):
        expected = torch.log_softmax(torch.from_numpy(row).double(), -1)
        chosen = int(row.argmax()) - 1
        score = log_probabilities(row, chosen, 5)
        top = expected.topk(5)
        assert score.logprob == pytest.approx(float(expected[chosen]), abs=1e-5)
        assert [token for token, _ in score.alternatives] == top.indices.tolist()
        assert [p for _, p in score.alternatives] == pytest.approx(top.values.tolist(), abs=1e-5)


def test_alternatives_put_the_lowest_id_first_on_ties_and_leave_out_the_forbidden() -> None:
    row = np.array([1, 2, 2, -np.inf], np.float32)
    assert [token for token, _ in log_probabilities(row, 0, 4).alternatives] == [1, 2, 0]
    assert [token for token, _ in log_probabilities(row, 0, 1).alternatives] == [1]
    assert log_probabilities(row, 0).alternatives == ()


@pytest.mark.parametrize("sampler", [Greedy(), Sampling(0), Sampling(0, top_k=2)])
def test_rows_no_token_can_be_chosen_from_are_refused(sampler: Greedy | Sampling) -> None:
    with pytest.raises(InputError, match="every token is forbidden"):
        sampler.choose(np.full(9, -np.inf, np.float32), 0)
    for bad in (np.nan, np.inf):
        with pytest.raises(DeviceError, match="largest logit"):
            sampler.choose(np.array([0, bad, 1], np.float32), 0)


def test_options_make_the_sampler_they_ask_for() -> None:
    assert isinstance(build_sampler(GenerationOptions(temperature=0.5)), Greedy)
    options = GenerationOptions(do_sample=True, seed=4, temperature=0.5, top_k=3, top_p=0.9)
    assert build_sampler(options) == Sampling(4, 0.5, 3, 0.9, 0.0)


def test_options_name_every_fault_in_one_line() -> None:
    with pytest.raises(InputError) as caught:
        GenerationOptions(temperature=0, top_p=1.5, max_new_tokens=0, draft="lokup", logprobs=-1)
    message = str(caught.value)
    assert "\n" not in message
    for part in ("temperature", "do_sample=False", "top_p", "max_new_tokens", "'lookup'", "logp"):
        assert part in message


BAD: list[dict[str, Any]] = [
    {"stop": "x"},
    {"stop": ("",)},
    {"bad_words": [1]},
    {"bad_words_ids": [[]]},
    {"bad_words_ids": [[-1]]},
    {"suppress": [True]},
    {"forced": [(1, 2, 3)]},
    {"seed": 2**64},
    {"top_k": 1.5},
    {"top_k": True},
    {"min_p": math.nan},
    {"repetition_penalty": 0.0},
    {"min_new_tokens": 5, "max_new_tokens": 4},
    {"task": "sing"},
    {"language": ""},
    {"verifier": "hope"},
    {"do_sample": 1},
    {"truncate": None},
    {"num_assistant_tokens": 0},
]


@pytest.mark.parametrize("fault", BAD, ids=[next(iter(fault)) for fault in BAD])
def test_an_option_out_of_range_is_refused_by_name(fault: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=rf"^generation options: .*{next(iter(fault))}|verifier"):
        GenerationOptions(**fault)


def test_changed_options_are_checked_again_and_lists_become_tuples() -> None:
    options = GenerationOptions().with_changes(stop=["a", "b"], bad_words_ids=[[1, 2]])
    assert (options.stop, options.bad_words_ids) == (("a", "b"), ((1, 2),))
    assert hash(options) == hash(GenerationOptions(stop=("a", "b"), bad_words_ids=((1, 2),)))
    with pytest.raises(InputError, match="top_k"):
        options.with_changes(top_k=-1)
    with pytest.raises(InputError, match="'temprature'; did you mean 'temperature'"):
        options.with_changes(temprature=1.0)
