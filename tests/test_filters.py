"""Laws of the filters: each leaves exactly what its namesake in transformers leaves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgegen.errors import InputError
from edgegen.manifest import GenerationDefaults, Speech
from edgegen.runtime.filters import (
    BadWords,
    EncoderNoRepeatNgram,
    ForcedTokens,
    LogitsFilter,
    MinNewTokens,
    NoRepeatNgram,
    RepetitionPenalty,
    SuppressAtStart,
    SuppressTokens,
    WhisperTimestamps,
    build_filters,
)
from edgegen.runtime.history import HistoryBuffer
from edgegen.runtime.options import GenerationOptions
from edgegen.runtime.sampling import Ids, Row

VOCABULARY = 40
DEFAULTS = GenerationDefaults(start=(0,), end=(1,))


def made(name: str) -> Any:
    module = pytest.importorskip("transformers.generation.logits_process")
    return getattr(module, name)


def assert_equal_everywhere(
    rule: LogitsFilter, processor: Any, prompt: int, vocabulary: int = VOCABULARY
) -> None:
    """Thousands of random histories of few distinct tokens, so that every rule fires."""
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(prompt)
    for length in [*range(prompt, prompt + 12)] * 3:
        ids = random.integers(0, int(random.choice([4, 12, vocabulary])), (60, length))
        logits = random.normal(scale=3, size=(60, vocabulary)).astype(np.float32)
        logits[random.random(logits.shape) < 0.1] = -np.inf
        expected = processor(torch.from_numpy(ids), torch.from_numpy(logits.copy())).numpy()
        for row, tokens, wanted in zip(logits, ids, expected, strict=True):
            assert np.array_equal(filtered(rule, row, tokens, prompt), wanted), tokens


def filtered(rule: LogitsFilter, logits: Row, tokens: Ids, prompt: int) -> Row:
    """Half of what was generated is committed, the rest is a draft path. A token that is spared is
    the likeliest before and after."""
    history = HistoryBuffer(tokens[:prompt].tolist(), source=[2, 3])
    middle = (prompt + len(tokens)) // 2
    history.commit(tokens[prompt:middle].tolist())
    row, best = logits.copy(), int(logits.argmax())
    path = tokens[middle:].tolist()
    spared = rule.spares(best, history.at(path))
    rule.apply(row, history.at(path))
    assert not spared or (row[best] == logits[best] and row.argmax() == best)
    return row


# A prompt of 1 is an encoder-decoder's start token, a longer one a decoder-only model's prompt.
prompts = pytest.mark.parametrize("prompt", [1, 6])


@prompts
@pytest.mark.parametrize("penalty", [0.7, 1.2, 2.0])
def test_repetition_penalty_equals_transformers(penalty: float, prompt: int) -> None:
    processor = made("RepetitionPenaltyLogitsProcessor")(penalty)
    assert_equal_everywhere(RepetitionPenalty(penalty), processor, prompt)


@prompts
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_no_repeat_ngram_equals_transformers(size: int, prompt: int) -> None:
    processor = made("NoRepeatNGramLogitsProcessor")(size)
    assert_equal_everywhere(NoRepeatNgram(size), processor, prompt)


@prompts
def test_bad_words_equal_transformers(prompt: int) -> None:
    words = [[7], [1], [2, 3], [2, 2, 1], [0, 1, 2], [3, 0], [0, 1, 2, 3, 0, 1, 2]]
    processor = made("NoBadWordsLogitsProcessor")(words, eos_token_id=1)
    options = GenerationOptions(bad_words_ids=tuple(map(tuple, words)))
    (rule,) = build_filters(options, DEFAULTS, vocabulary=VOCABULARY)
    assert isinstance(rule, BadWords)
    assert_equal_everywhere(rule, processor, prompt)


@prompts
def test_min_new_tokens_equals_transformers(prompt: int) -> None:
    processor = made("MinNewTokensLengthLogitsProcessor")(prompt, 5, [1, 9])
    assert_equal_everywhere(MinNewTokens(5, (1, 9)), processor, prompt)


@prompts
def test_suppressing_equals_transformers(prompt: int) -> None:
    processor = made("SuppressTokensLogitsProcessor")([3, 8])
    assert_equal_everywhere(SuppressTokens((3, 8)), processor, prompt)
    for index in (0, 2):
        at_start = made("SuppressTokensAtBeginLogitsProcessor")([3, 8], prompt + index)
        assert_equal_everywhere(SuppressAtStart((3, 8), index), at_start, prompt)


def test_a_forced_first_token_equals_transformers() -> None:
    processor = made("ForcedBOSTokenLogitsProcessor")(5)
    assert_equal_everywhere(ForcedTokens([(0, 5)]), processor, 1)


def test_forced_tokens_hold_at_their_index_alone() -> None:
    rule, row = ForcedTokens([(0, 5), (2, 7)]), np.arange(VOCABULARY, dtype=np.float32)
    for count, token in enumerate([5, VOCABULARY - 1, 7, VOCABULARY - 1]):
        assert filtered(rule, row, np.arange(1 + count), 1).argmax() == token


@pytest.mark.parametrize("prompt", [1, 4])
@pytest.mark.parametrize("limit", [None, 0, 6])
def test_whisper_timestamps_equal_transformers(limit: int | None, prompt: int) -> None:
    """Vocabulary: 0-19 text, 20 the end, 21-23 special, 23 no-timestamps, 24-55 times."""
    torch = pytest.importorskip("torch")
    config = SimpleNamespace(no_timestamps_token_id=23, eos_token_id=20, bos_token_id=20)
    config.max_initial_timestamp_index = limit
    processor = made("WhisperTimeStampLogitsProcessor")(config, begin_index=prompt)
    rule = WhisperTimestamps(timestamp_begin=24, no_timestamps=23, end=20, max_initial=limit)
    random = np.random.default_rng(prompt)
    for length in [*range(prompt, prompt + 9)] * 4:
        ids = random.integers(0, 20, (60, length))
        times = np.sort(random.integers(24, 56, ids.shape), axis=1)
        ids = np.where(random.random(ids.shape) < 0.5, times, ids)
        # Both outcomes of the probability rule: times as a whole likelier, and not.
        logits = random.normal(scale=2, size=(60, 56)).astype(np.float32)
        logits[:, 24:] += random.choice([-6, -2, 0, 2], (60, 1)).astype(np.float32)
        logits[random.random(logits.shape) < 0.1] = -np.inf
        expected = processor(torch.from_numpy(ids), torch.from_numpy(logits.copy())).numpy()
        for row, tokens, wanted in zip(logits, ids, expected, strict=True):
            assert np.array_equal(filtered(rule, row, tokens, prompt), wanted), tokens


def test_whisper_rules_wait_until_the_forced_tokens_are_out() -> None:
    rule = WhisperTimestamps(timestamp_begin=24, no_timestamps=23, end=20, begin=2)
    row = np.zeros(56, np.float32)
    assert np.array_equal(filtered(rule, row, np.array([0, 21]), 1), row)
    assert filtered(rule, row, np.array([0, 21, 22]), 1).argmax() == 24


@pytest.mark.parametrize(
    ("rule", "token", "spared"),
    [
        (RepetitionPenalty(1.5), 5, False),
        (RepetitionPenalty(1.5), 7, True),
        (RepetitionPenalty(0.5), 7, False),
        (NoRepeatNgram(2), 5, False),
        (NoRepeatNgram(2), 7, True),
        (EncoderNoRepeatNgram(1), 3, False),
        (EncoderNoRepeatNgram(2), 3, True),
        (BadWords([(4, 5), (9,)]), 5, False),
        (BadWords([(4, 5), (9,)]), 7, True),
        (MinNewTokens(4, (7,)), 7, False),
        (MinNewTokens(3, (7,)), 7, True),
        (SuppressTokens((7,)), 7, False),
        (SuppressTokens((7,)), 5, True),
        (SuppressAtStart((7,), 3), 7, False),
        (SuppressAtStart((7,), 2), 7, True),
        (ForcedTokens([(3, 7)]), 7, False),
        (ForcedTokens([(2, 7)]), 5, True),
    ],
)
def test_a_filter_spares_what_it_leaves_alone(rule: LogitsFilter, token: int, spared: bool) -> None:
    history = HistoryBuffer([0], source=[2, 3])
    history.commit([4, 5])
    assert rule.spares(token, history.at([4])) == spared


def test_filters_read_the_draft_path_of_their_own_row() -> None:
    history = HistoryBuffer([0])
    history.commit([4, 5])
    rule = NoRepeatNgram(2)
    rows = [np.zeros(VOCABULARY, np.float32) for _ in range(3)]
    for row, path in zip(rows, [(), (4,), (6, 4)], strict=True):
        rule.apply(row, history.at(path))
    assert [np.flatnonzero(row).tolist() for row in rows] == [[], [5], [5]]
    assert history.count == 2


def test_history_grows_and_keeps_what_was_committed() -> None:
    history = HistoryBuffer([9, 8], source=[1, 2, 3])
    history.commit(list(range(500)))
    assert history.at([7] * 300).decoder_ids[-1] == 7
    seen = history.at([6])
    assert seen.source.tolist() == [1, 2, 3]
    assert seen.prompt.tolist() == [9, 8]
    assert seen.generated.tolist() == [*range(500), 6]
    assert seen.count == 501


def test_ids_the_vocabulary_lacks_are_passed_over() -> None:
    for rule in (RepetitionPenalty(1.5), NoRepeatNgram(1), NoRepeatNgram(2)):
        row = np.ones(3, np.float32)
        assert filtered(rule, row, np.array([-1, 7, -1]), 1).tolist() == [1, 1, 1]


def test_no_filter_is_built_when_none_is_active() -> None:
    assert build_filters(GenerationOptions(), DEFAULTS, vocabulary=VOCABULARY) == ()
    options = GenerationOptions(do_sample=True, top_k=3, stop=("x",), min_new_tokens=0)
    assert build_filters(options, DEFAULTS, vocabulary=VOCABULARY) == ()


def test_filters_come_in_order_and_nothing_forbids_a_forced_token() -> None:
    options = GenerationOptions(
        repetition_penalty=1.1,
        no_repeat_ngram_size=2,
        bad_words_ids=((4,),),
        min_new_tokens=2,
        suppress=(6,),
        forced=((0, 6),),
        timestamps=True,
    )
    defaults = GenerationDefaults(start=(0,), end=(20,), forced=((0, 9), (1, 5)))
    speech = Speech(timestamp_begin=24, no_timestamps=23)
    filters = build_filters(options, defaults, vocabulary=56, speech=speech)
    assert [type(rule) for rule in filters] == [
        RepetitionPenalty,
        NoRepeatNgram,
        BadWords,
        MinNewTokens,
        SuppressTokens,
        WhisperTimestamps,
        ForcedTokens,
    ]
    for path, token in [((), 6), ((6,), 5)]:
        row, history = np.zeros(56, np.float32), HistoryBuffer([0])
        for rule in filters:
            rule.apply(row, history.at(path))
        assert np.flatnonzero(row > -np.inf).tolist() == [token]


def test_suppressing_at_the_start_follows_the_forced_tokens() -> None:
    defaults = GenerationDefaults(start=(0,), end=(1,), forced=((0, 9),), suppress_at_start=(3,))
    rule = build_filters(GenerationOptions(), defaults, vocabulary=VOCABULARY)[0]
    assert rule == SuppressAtStart((3,), 1)


def test_a_bad_word_is_banned_with_and_without_a_space_before() -> None:
    def encode(text: str) -> list[int]:
        return [3 + len(text), 2]

    options = GenerationOptions(bad_words=("abc",))
    (rule,) = build_filters(options, DEFAULTS, vocabulary=VOCABULARY, encode=encode)
    for first in (6, 7):
        row = filtered(rule, np.zeros(VOCABULARY, np.float32), np.array([0, first]), 1)
        assert np.flatnonzero(row).tolist() == [2]


def test_what_cannot_be_filtered_is_refused() -> None:
    with pytest.raises(InputError, match=r"forced has id 40; suppress has id 99; .* 0 to 39"):
        options = GenerationOptions(suppress=(99,), forced=((0, 40),))
        build_filters(options, DEFAULTS, vocabulary=VOCABULARY)
    with pytest.raises(InputError, match="no tokenizer"):
        build_filters(GenerationOptions(bad_words=("x",)), DEFAULTS, vocabulary=VOCABULARY)
    with pytest.raises(InputError, match="no timestamp tokens"):
        build_filters(GenerationOptions(timestamps=True), DEFAULTS, vocabulary=VOCABULARY)
