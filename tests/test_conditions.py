"""Under a condition beam search finds the likeliest text of which the condition holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_families import END, VOCABULARY, write_bundle
from typer.testing import CliRunner

from edgegen import GenerationOptions, Pipeline, load
from edgegen.cli import app
from edgegen.errors import EdgegenError
from edgegen.runtime.beams import BeamSearch
from edgegen.runtime.conditions import Condition, Contains, Limits, read_rules, repeats, runs
from edgegen.runtime.decoder import Scores
from edgegen.runtime.generation import Hypothesis

Pipelines = Callable[[str], Pipeline]
NEW = 12
# The toy language: four words and an end, texts of at most six tokens.
WORDS, STOP, MOST = 4, 4, 6


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Pipelines:
    @cache
    def opened(name: str) -> Pipeline:
        return load(write_bundle(tmp_path_factory.mktemp(name) / "bundle", name))

    return opened


def sources(count: int, seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [
        [*map(int, random.integers(3, VOCABULARY, int(random.integers(2, 14)))), END]
        for _ in range(count)
    ]


def options(**said: Any) -> GenerationOptions:
    given: dict[str, Any] = {"max_new_tokens": NEW, "num_beams": 4, **said}
    return GenerationOptions(**given)


class Language:
    """A random distribution over the next token for each text; ends grow likely at once.

    A target as the loop wants it, whose rows are whole texts.
    """

    chunk = 64

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rows: list[tuple[int, ...]] = []

    @property
    def length(self) -> int:
        return len(self.rows)

    def drafts(self, pending: int) -> int:
        return self.chunk - pending

    def reach(self, length: int) -> int:
        return length

    def logits(self, text: tuple[int, ...]) -> NDArray[np.float32]:
        key = [self.seed, len(text), *text]
        said = np.random.default_rng(key).normal(size=WORDS + 1, scale=1.5).astype(np.float32)
        said[STOP] += 1
        if len(text) > 1:  # what it said it says again
            said[text[-1]] += 2
        return said

    def forward(
        self, tokens: Sequence[int], parents: Sequence[int] | None = None, first_row: int = 0
    ) -> Scores:
        parents = range(-1, len(tokens) - 1) if parents is None else parents
        self._new = list(self.rows)
        for token, parent in zip(tokens, parents, strict=True):
            at = len(self.rows) + parent
            before = self._new[at] if at >= 0 else ()
            self._new.append((*before, token))
        texts = self._new[len(self.rows) + first_row :]
        # The hidden state of a text is the text: its number in base 6, behind the start.
        hidden = np.array([[number(text[1:])] for text in texts], np.float32)
        return Scores(np.stack([self.logits(text) for text in texts]), hidden=hidden)

    def keep(self, length: int, rows: Sequence[int] = ()) -> None:
        self.rows = [*self._new[:length], *(self._new[row] for row in rows)]

    def every(self) -> dict[tuple[int, ...], float]:
        """All texts and their log-probabilities; the longest may lack an end."""
        found: dict[tuple[int, ...], float] = {}
        open_texts: dict[tuple[int, ...], float] = {(): 0.0}
        for length in range(1, MOST + 1):
            grown: dict[tuple[int, ...], float] = {}
            for text, score in open_texts.items():
                row = log_softmax(self.logits((0, *text)))
                for token in range(WORDS + 1):
                    ended = token == STOP or length == MOST
                    (found if ended else grown)[*text, token] = score + float(row[token])
            open_texts = grown
        return found


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    shifted: NDArray[np.float32] = logits - logits.max()
    found: NDArray[np.float32] = shifted - np.log(np.exp(shifted).sum())
    return found


def number(text: Sequence[int]) -> int:
    value = 0
    for token in text:
        value = value * 6 + token + 1
    return value


@dataclass(frozen=True)
class Searching:
    """What a beam search reads of options, with no bound on beams."""

    num_beams: int
    num_return_sequences: int = 1
    num_beam_groups: int = 1
    diversity_penalty: float = 0.0
    length_penalty: float = 0.0
    early_stopping: Any = "never"
    logprobs: int | None = None


def condition(text: str, **said: Any) -> Condition:
    rules = read_rules(text, Limits(most=MOST, ends=(STOP,)))
    return Condition(rules=rules, most=MOST, marks=frozenset([STOP]), **said)


def found(language: Language, beams: int, under: Condition | None, **said: Any) -> Hypothesis:
    search = BeamSearch(
        target=language, options=Searching(beams, **said), filters=(), ends=frozenset([STOP]),
        max_new_tokens=MOST, condition=under,
    )  # fmt: skip
    return [*search.run((0,))][-1].hypotheses[0]


RULE_TEXTS = (
    "not-empty", "not-repetitive:0", "length:3-4", "length:5-", "contains:2,3",
    "not-repetitive:0+length:4-5", "contains:1+contains:3,3",
)  # fmt: skip


@pytest.mark.parametrize("text", RULE_TEXTS)
def test_search_of_all_texts_finds_the_likeliest_of_which_the_condition_holds(text: str) -> None:
    under = condition(text)
    for seed in range(4):
        every = Language(seed).every()
        held = {one: score for one, score in every.items() if under.holds(one)}
        best = max(held, key=lambda one: held[one])
        said = found(Language(seed), 1024, under)
        assert said.tokens == best
        assert said.score == pytest.approx(held[best], abs=1e-5)


@dataclass
class Oracle:
    """Knows of each beginning how likely the condition is to hold, from all texts there are."""

    chances: Mapping[int, float]

    def estimate(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.array([self.chances[int(row[0])] for row in hidden], np.float32)


def oracle(every: Mapping[tuple[int, ...], float], under: Condition) -> Oracle:
    whole: dict[int, float] = {}
    held: dict[int, float] = {}
    for text, score in every.items():
        for length in range(len(text)):
            key = number(text[:length])
            whole[key] = whole.get(key, 0.0) + np.exp(score)
            held[key] = held.get(key, 0.0) + np.exp(score) * under.holds(text)
    with np.errstate(divide="ignore"):
        return Oracle({key: float(np.log(held[key] / whole[key])) for key in whole})


@pytest.mark.parametrize("text", ["length:5-", "length:5-+not-repetitive:0"])
def test_a_classifier_lets_few_beams_find_what_all_texts_hold(text: str) -> None:
    """With exact chances two beams come closer to the best text than rules alone."""
    alone = guided = 0.0
    for seed in range(10):
        every, under = Language(seed).every(), condition(text)
        best = max(score for one, score in every.items() if under.holds(one))
        known = condition(text, classifier=oracle(every, under))
        texts = [found(Language(seed), 2, one) for one in (under, known)]
        assert under.holds(texts[1].tokens)
        alone += best - every[texts[0].tokens] if under.holds(texts[0].tokens) else 10
        guided += best - every[texts[1].tokens]
    assert guided < alone


class Certain:
    """Says of all texts that the condition will hold."""

    def estimate(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.zeros(len(hidden), np.float32)


@pytest.mark.parametrize("early", [True, False, "never"])
def test_a_constant_classifier_is_beam_search(early: object) -> None:
    """Candidates are fed before they compete, and nothing of what is found changes."""
    certain = Condition(rules=(), most=MOST, classifier=Certain())
    for seed in range(20):
        for beams in (2, 3, 5):
            plain = found(Language(seed), beams, None, early_stopping=early, length_penalty=1.0)
            said = found(Language(seed), beams, certain, early_stopping=early, length_penalty=1.0)
            assert said == plain


@pytest.mark.parametrize("name", ["t5-tied", "marian-ssru"])
def test_a_condition_that_always_holds_changes_nothing(pipelines: Pipelines, name: str) -> None:
    for source in sources(8, seed=1):
        plain = pipelines(name).generate(source, options(num_return_sequences=4))
        said = options(num_return_sequences=4, condition=f"length:0-{NEW}+not-repetitive:0.999")
        assert pipelines(name).generate(source, said).hypotheses == plain.hypotheses


def test_no_text_repeats_itself_where_beam_search_does(pipelines: Pipelines) -> None:
    def share(tokens: Sequence[int]) -> float:
        words = [token for token in tokens if token != END]
        return repeats(words) / max(1, runs(len(words)))

    said = options(max_new_tokens=24)
    plain, held = (
        [pipelines("t5-tied").generate(source, one).tokens for source in sources(20, seed=2)]
        for one in (said, said.with_changes(condition="not-repetitive"))
    )
    assert sum(share(tokens) > 0.2 for tokens in plain) > 2
    assert not any(share(tokens) > 0.2 for tokens in held)


def test_no_text_is_empty_where_beam_search_ends_at_once(
    pipelines: Pipelines, tmp_path: Path
) -> None:
    """The words many texts begin with become ends, so that the likeliest text is often none."""
    asked = sources(20, seed=3)
    begun = [pipelines("t5-tied").generate(source, options()).tokens[0] for source in asked]
    ends = (END, *(word for word, _ in Counter(begun).most_common(4)))
    hasty = load(write_bundle(tmp_path / "bundle", "t5-tied", defaults={"end": ends}))
    lengths = {
        condition: [
            sum(token not in ends for token in hasty.generate(source, said).tokens)
            for source in asked
            for said in [options(length_penalty=0.0, condition=condition)]
        ]
        for condition in (None, "not-empty", "length:3-5")
    }
    assert lengths[None].count(0) > 2
    assert 0 not in lengths["not-empty"]
    assert set(lengths["length:3-5"]) <= {3, 4, 5}


def test_words_that_are_forced_occur(pipelines: Pipelines) -> None:
    words = ("ban", "kin ren")
    for name in ("t5-tied", "marian-ssru"):
        for source in sources(8, seed=4):
            plain = pipelines(name).generate(source, options())
            assert not all(word in plain.text for word in words)
            result = pipelines(name).generate(source, options(force_words=words))
            assert all(word in result.text for word in words)
            assert result.hypotheses[0].score > -np.inf


def test_a_text_that_cannot_hold_is_given_with_a_score_that_says_so(pipelines: Pipelines) -> None:
    """Two rules that exclude each other: the best text there is, scored minus infinity."""
    said = options(condition="length:3-4+length:6-7")
    result = pipelines("t5-tied").generate(sources(1)[0], said)
    assert [text.score for text in result.hypotheses] == [-np.inf]
    assert result.text


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"condition": "not-repetitve"}, "did you mean 'not-repetitive'"),
        ({"condition": "not-empty+lenght:2-3"}, "did you mean 'length'"),
        ({"condition": "length:5-2"}, "length takes MIN-MAX"),
        ({"condition": "length:50-60"}, "more tokens than the 12"),
        ({"condition": "length:50-"}, "more tokens than the 12"),
        ({"condition": "length:5"}, "length takes MIN-MAX"),
        ({"condition": "contains:word"}, "token ids"),
        ({"condition": "contains:" + "9" * 5000}, "has token 99999999999999999999, and ids are"),
        ({"condition": "not-empty:3"}, "takes nothing"),
        ({"condition": "not-repetitive:2"}, "a share from 0"),
        ({"condition": ""}, "condition must be"),
        ({"condition": "not-empty", "num_beams": 1}, "num_beams of at least 2"),
        ({"force_words": ("a",), "num_beams": 1}, "num_beams of at least 2"),
        ({"force_words": ("",)}, "force_words must be non-empty"),
        ({"condition": "not-empty", "num_beam_groups": 2}, "exclude each other"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(said: Mapping[str, Any], words: str) -> None:
    with pytest.raises(EdgegenError, match=words) as caught:
        options(**said)
    assert "\n" not in str(caught.value)


def test_a_word_is_looked_for_where_it_begins_anew() -> None:
    rule = Contains(((1, 1, 2),))
    texts = ((), (1,), (1, 1), (1, 1, 1), (1, 1, 2))
    assert [rule.missing(text) for text in texts] == [3, 2, 1, 1, 0]
    assert rule.wanted((1, 1, 1)) == {1, 2} and not rule.wanted((1, 1, 2, 3))


def test_the_command_line_takes_conditions_and_words(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", "t5-tied")
    asked = ["--num-beams", "4", "--max-new-tokens", "9"]
    said = ["--condition", "length:3-4+not-repetitive", "--force-words", "ban"]
    result = CliRunner().invoke(app, ["run", str(bundle), "badu kin", *asked, *said])
    assert result.exit_code == 0, result.output
    assert "ban" in result.output.split() and len(result.output.split()) in (3, 4)
