"""Gaps in a text: the published prompt, answers spliced in, several gaps, drafts and refusals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_code import MARKED, code_tokenizer, tiny_codegen_model
from tiny_families import VOCABULARY, WORDS, write_bundle
from typer.testing import CliRunner

import edgegen
from edgegen.cli import app
from edgegen.errors import EdgegenWarning, InputError
from edgegen.runtime.options import GenerationOptions
from edgegen.runtime.pipeline import Pipeline
from edgegen.runtime.task import Gaps

END, SEPARATOR, END_OF_MARK, MASK_1, MASK_2 = range(VOCABULARY, VOCABULARY + 5)
NEW = 12
PLAIN = GenerationOptions(draft="none", max_new_tokens=NEW)


def text(count: int, seed: int) -> str:
    chosen = np.random.default_rng(seed).integers(0, len(WORDS), count)
    return "".join(f" {WORDS[i]}" for i in chosen)


def tokens_of(written: str) -> list[int]:
    return [3 + WORDS.index(word) for word in written.split()]


def written(pipeline: Pipeline, tokens: Sequence[int]) -> str:
    return pipeline.task.target.decode(list(tokens))  # type: ignore[attr-defined, no-any-return]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("infill") / "tiny-codegen2"
    return write_bundle(folder, "codegen", vocab_size=MARKED, words=code_tokenizer())


@pytest.fixture(scope="module")
def pipeline(bundle: Path) -> Pipeline:
    return edgegen.load(bundle)


@cache
def model() -> Any:
    return tiny_codegen_model(vocab_size=MARKED)


def answer(prompt: Sequence[int]) -> list[int]:
    """The model's own tokens after a prompt, its end included."""
    found: list[int] = []
    while len(found) < NEW and found[-1:] not in ([END], [END_OF_MARK]):
        with torch.no_grad():
            logits = model()(torch.tensor([[*prompt, *found]])).logits
        found.append(int(logits[0, -1].argmax()))
    return found


def ended(found: list[int]) -> list[int]:
    return [*(found[:-1] if found[-1] in (END, END_OF_MARK) else found), END_OF_MARK]


def forced(span: str) -> GenerationOptions:
    wanted = [*tokens_of(span), END_OF_MARK]
    return PLAIN.with_changes(max_new_tokens=40, forced=tuple(enumerate(wanted)))


# ------------------------------------------------------------------------------- the prompt


def test_the_manifest_knows_the_marks(pipeline: Pipeline) -> None:
    record = pipeline.bundle.manifest.infill
    assert record is not None
    assert record.marks == {f"<mask_{i + 1}>": MASK_1 + i for i in range(3)}
    assert record.separator == (END, SEPARATOR) and record.end == END_OF_MARK


@pytest.mark.parametrize("seed", range(20))
def test_a_gap_is_asked_for_as_the_model_was_taught(pipeline: Pipeline, seed: int) -> None:
    prefix, suffix = text(3 + seed % 7, seed), text(2 + seed % 5, seed + 100)
    prompt = [*tokens_of(prefix), MASK_1, *tokens_of(suffix), END, SEPARATOR, MASK_1]
    result = pipeline.infill(prefix, suffix, PLAIN)
    assert list(result.tokens) == answer(prompt)
    assert result.spans == (written(pipeline, result.tokens),)
    assert result.text == prefix + result.spans[0] + suffix


@pytest.mark.parametrize("seed", range(5))
def test_the_second_gap_is_asked_for_behind_the_first_answer(pipeline: Pipeline, seed: int) -> None:
    parts = [text(4, seed), text(3, seed + 50), text(2, seed + 90)]
    result = pipeline.infill(f"{parts[0]}<mask_1>{parts[1]}<mask_2>{parts[2]}", options=PLAIN)
    body = [*tokens_of(parts[0]), MASK_1, *tokens_of(parts[1]), MASK_2, *tokens_of(parts[2])]
    one = [*body, END, SEPARATOR, MASK_1]
    first = answer(one)
    two = [*one, *ended(first), MASK_2]
    assert list(result.tokens) == [*first, *answer(two)]
    assert len(result.spans) == 2
    assert result.text == "".join((parts[0], result.spans[0], parts[1], result.spans[1], parts[2]))
    # Only what is new is fed for it: an unfed last token, the end of the answer, the mark.
    assert result.timings.passes[1].steps[0].rows <= 3


# ------------------------------------------------------------------------------- the splice


def test_the_span_that_was_cut_out_makes_the_text_whole_again(pipeline: Pipeline) -> None:
    whole = text(30, 7)
    words = whole.split(" ")[1:]
    for start, end in ((0, 4), (5, 9), (12, 30), (29, 30)):
        before, span, after = (
            "".join(f" {word}" for word in part)
            for part in (words[:start], words[start:end], words[end:])
        )
        result = pipeline.infill(before, after, forced(span))
        assert result.text == whole and result.spans == (span,)
        assert result.finish_reason == "stop"


def test_pieces_join_to_the_whole_text(pipeline: Pipeline) -> None:
    stream = pipeline.stream(Gaps(text(5, 1), text(4, 2)), PLAIN)
    assert "".join(stream) == stream.result.text


def test_several_texts_are_filled_in_order(pipeline: Pipeline) -> None:
    gaps = [Gaps(text(5, seed), text(4, seed + 9)) for seed in range(3)]
    found = [result.text for result in pipeline.generate(gaps, PLAIN)]
    assert found == [pipeline.infill(one.prefix, one.suffix, PLAIN).text for one in gaps]


@pytest.mark.parametrize("draft", ["lookup", "suffix", "aggressive", "recycling"])
def test_drafts_leave_the_filling_alone(pipeline: Pipeline, draft: str) -> None:
    drafted = PLAIN.with_changes(draft=draft, num_assistant_tokens=4)
    for seed in range(5):
        marked = f"{text(6, seed)}<mask_1>{text(4, seed + 30)}<mask_2>{text(5, seed + 60)}"
        assert pipeline.infill(marked, None, drafted).tokens == (
            pipeline.infill(marked, None, PLAIN).tokens
        )


@pytest.mark.parametrize("draft", ["lookup", "suffix", "aggressive"])
def test_the_suffix_is_offered_to_drafters(pipeline: Pipeline, draft: str) -> None:
    """A gap that repeats the suffix: what drafters copy from it stands."""
    suffix = text(16, 3)
    options = forced(suffix).with_changes(draft=draft, num_assistant_tokens=4)
    result = pipeline.infill(text(4, 4), suffix, options)
    assert result.timings.passes[0].source_tokens == 16
    assert result.timings.draft_tokens_accepted >= 8


def test_beams_fill_several_gaps(pipeline: Pipeline) -> None:
    options = PLAIN.with_changes(num_beams=3)
    result = pipeline.infill(f"{text(4, 1)}<mask_1>{text(3, 2)}<mask_2>", None, options)
    assert len(result.spans) == 2


# ----------------------------------------------------------------------------- what is long


def test_what_is_too_long_loses_its_outer_ends(pipeline: Pipeline) -> None:
    prefix, suffix = text(500, 1), text(400, 2)
    with pytest.warns(EdgegenWarning, match="before and"):
        result = pipeline.infill(prefix, suffix, PLAIN)
    assert result.text == prefix + result.spans[0] + suffix
    near = pipeline.infill("".join(f" {w}" for w in prefix.split()[-100:]), text(20, 2), PLAIN)
    assert near.warnings == ()


def test_what_is_too_long_is_refused_where_nothing_may_be_left_out(pipeline: Pipeline) -> None:
    options = PLAIN.with_changes(truncate=False)
    with pytest.raises(InputError, match="the model takes 640"):
        pipeline.infill(text(500, 1), text(400, 2), options)
    with pytest.raises(InputError, match="between gaps"):
        pipeline.infill(f" ba<mask_1>{text(700, 1)}<mask_2> ba", None, PLAIN)


# -------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("prefix", "suffix", "said"),
    [
        (" ba", None, "no gap"),
        (" ba<mask_1>", " da", "one gap between"),
        (" ba<mask_2> da<mask_1>", None, "in the order"),
        (" ba<mask_2> da", None, "in the order"),
        (" ba<mask_1> da<mask_1>", None, "each once"),
    ],
)
def test_marks_that_make_no_sense_are_refused(
    pipeline: Pipeline, prefix: str, suffix: str | None, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        pipeline.infill(prefix, suffix, PLAIN)


@pytest.mark.parametrize("name", ["codegen", "t5-tied"])
def test_a_bundle_without_marks_says_so(tmp_path: Path, name: str) -> None:
    with edgegen.load(write_bundle(tmp_path / "b", name)) as other:
        assert other.bundle.manifest.infill is None
        with pytest.raises(InputError, match="cannot fill gaps"):
            other.infill("ba", "da")


# ------------------------------------------------------------------------ the command line


@pytest.fixture
def invoke(bundle: Path) -> Callable[..., Any]:
    def call(*words: str, stdin: str | None = None) -> Any:
        plain = ("--draft", "none", "--max-new-tokens", str(NEW))
        return CliRunner().invoke(app, ["run", str(bundle), *words, *plain], input=stdin)

    return call


def test_the_command_line_fills_the_gap_before_a_suffix(
    invoke: Callable[..., Any], pipeline: Pipeline, tmp_path: Path
) -> None:
    prefix, suffix = text(6, 1), text(4, 2)
    expected = pipeline.infill(prefix, suffix, PLAIN).text
    top, bottom = tmp_path / "top", tmp_path / "bottom"
    top.write_text(prefix)
    bottom.write_text(suffix)
    assert invoke(prefix, "--suffix", suffix).stdout == expected + "\n"
    assert invoke("--file", str(top), "--suffix-file", str(bottom)).stdout == expected + "\n"
    assert invoke("--suffix", suffix, stdin=prefix).stdout == expected + "\n"
    marked = f"{prefix}<mask_1>{suffix}"
    assert invoke(marked, "--infill").stdout == expected + "\n"


def test_words_of_the_command_line_that_exclude_each_other_are_refused(
    invoke: Callable[..., Any], tmp_path: Path
) -> None:
    both = tmp_path / "both"
    both.write_text("da")
    for words in (
        ("--suffix", "da", "--infill"),
        ("--suffix", "da", "--suffix-file", str(both)),
        ("--suffix", "da", "--chat"),
    ):
        with pytest.raises(InputError):
            raise invoke("ba", *words).exception


def test_a_bundle_without_marks_says_so_on_the_command_line_too(tmp_path: Path) -> None:
    other = write_bundle(tmp_path / "b", "codegen")
    with pytest.raises(InputError, match="cannot fill gaps"):
        raise CliRunner().invoke(app, ["run", str(other), "ba", "--suffix", "da"]).exception  # type: ignore[misc]
