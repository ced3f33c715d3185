"""Laws of splitting: nothing is lost, gaps stay gaps, and what is one sentence stays one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegen.errors import InputError
from edgegen.runtime.sentences import Count, join, split

# Made of what the rules look at, so that they meet in every order.
SCRAPS = st.sampled_from(
    [
        *"aAéß你。！？.!?…,;:，、 \n\t\r\u00a0\u2028\"'”»«()[]「」-*#>0",
        *("Mr.", "U.S.", "3.", "1) ", "etc. The ", "¿Qué", "e.g. ", "- ", "..."),
        *("\r\n", "👩‍👧", "e\u0301", "https://x.y/?q=1 "),
    ]
)
TEXTS = st.lists(SCRAPS, max_size=40).map("".join) | st.text()


def texts(text: str) -> list[str]:
    return [one.text for one in split(text)]


def words(text: str) -> int:
    return len(text.split())


def utf8_bytes(text: str) -> int:
    return len(text.encode("utf-8"))


COUNTS = [len, words, utf8_bytes]


@given(TEXTS)
def test_gaps_and_sentences_joined_are_the_input(text: str) -> None:
    sentences = split(text)
    assert join(sentences, [one.text for one in sentences]) == text


@given(TEXTS)
def test_a_sentence_has_words_at_both_ends_and_a_gap_has_none(text: str) -> None:
    sentences = split(text)
    for one in sentences:
        assert one.text == one.text.strip()
        assert one.text or len(sentences) == 1
        assert not any(character.isalpha() for character in one.after)


@given(TEXTS, st.integers(1, 12), st.sampled_from(COUNTS))
def test_pieces_within_a_limit_lose_nothing(text: str, limit: int, count: Count) -> None:
    pieces = split(text, max_tokens=limit, count=count)
    assert join(pieces, [one.text for one in pieces]) == text
    for one in pieces:
        assert count(one.text) <= limit or len(one.text) == 1


@pytest.mark.parametrize(
    "sentences",
    [
        ["Mr. Smith met Dr. No.", "The film ended."],
        ["The U.S. Army is large.", "He lives in the U.S.", "The weather is good."],
        ["Bring pens, paper, etc.", "The shop sells them."],
        ["Use a tool, e.g. Git, i.e. the best.", "Done."],
        ["J. R. R. Tolkien wrote it.", "Vitamin D.", "It helps."],
        ["It costs $3.14 today.", "Version 2.0.1 is out.", "See Fig. 3.", "In 2020.", "The end."],
        ['"Stop!" he said.', '"Why?" she asked.', 'He wrote "no."', "(They left.)", "So."],
        ["He waited... and waited.", "Then he left…", "Nobody saw… anyone."],
        ["Really?!", "Yes!!!", "No."],
        ["Mail a.b@c.com now.", "Visit https://x.org/a.b?c=1!d today.", "Bye."],
        ["¿Qué tal?", "¡Bien!", "¿y tú?", "El Sr. García vive aquí."],
        ["«Vale.»", "Dijo « Oui. »", "Puis Mme. Dupont partit."],
        ["Das kostet z.B. 5 Euro.", "Herr Dr. Weiß kam.", "Ärger gab es nicht."],
        ["नमस्ते।", "कैसे हैं?"],
        ["هل أنت بخير؟", "نعم."],
        ["At 5 p.m. Tom called.", "It was 6 p.m.", "We ate."],
    ],
    ids=lambda sentences: sentences[0],
)
def test_sentences_are_found_where_they_end_and_nowhere_else(sentences: list[str]) -> None:
    assert texts(" ".join(sentences)) == sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["你好。", "世界很大！", "真的吗？！", "「是的。」他说。"],
        ["そうです。", "「はい。」と言った。", "終わり"],
    ],
)
def test_full_width_stops_need_no_space(sentences: list[str]) -> None:
    assert texts("".join(sentences)) == sentences


def test_layout_survives_translation() -> None:
    text = (
        "# Title\n\n  Two sentences. Here!\r\n\r\n1. First\n2) Second\n\t- deep item. More\n"
        "> quoted\n---\n\n    Indented.  Wide gap.\n"
    )
    sentences = split(text)
    assert [one.text for one in sentences] == [
        *("Title", "Two sentences.", "Here!", "First", "Second", "deep item.", "More"),
        *("quoted", "Indented.", "Wide gap."),
    ]
    assert join(sentences, ["X"] * len(sentences)) == (
        "# X\n\n  X X\r\n\r\n1. X\n2) X\n\t- X X\n> X\n---\n\n    X  X\n"
    )


@pytest.mark.parametrize("text", ["", " \n\t\n", "---\n", "😀"])
def test_a_text_without_words_has_none_to_translate(text: str) -> None:
    assert "".join(texts(text)) == ""
    assert join(split(text), [""] * len(split(text))) == text


def test_a_lone_number_is_text() -> None:
    assert texts("3.\n4. \n") == ["3.", "4."]


def test_a_long_sentence_is_cut_at_clauses_before_spaces_before_characters() -> None:
    text = "When the day ended, we all went home; then the others came by sea and stayed there"
    pieces = [one.text for one in split(text, max_tokens=10, count=words)]
    assert pieces == [
        "When the day ended, we all went home;",
        "then the others came by sea and stayed there",
    ]
    assert [one.text for one in split("one two three", max_tokens=2, count=words)] == [
        "one two",
        "three",
    ]
    assert [one.text for one in split("今天很好，我们去公园玩", max_tokens=7, count=len)] == [
        "今天很好，",
        "我们去公园玩",
    ]
    assert [one.text for one in split("abe\u0301d", max_tokens=3, count=len)] == ["ab", "e\u0301d"]


def test_a_huge_text_without_stops_is_cut_without_counting_it_whole_each_time() -> None:
    counted = 0

    def count(text: str) -> int:
        nonlocal counted
        counted += len(text)
        return words(text)

    text = "word " * 20_000
    pieces = split(text, max_tokens=50, count=count)
    assert len(pieces) == 400
    assert counted < 100 * len(text)


def test_stops_and_quotes_without_end_take_no_time_to_read() -> None:
    for text in ("." * 50_000 + "a", '."' * 25_000 + "a", "A. " * 20_000, "« » " * 20_000 + "a"):
        sentences = split(text)
        assert join(sentences, [one.text for one in sentences]) == text


def test_a_limit_needs_a_count_and_a_join_every_translation() -> None:
    with pytest.raises(InputError, match="max_tokens 5"):
        split("a", max_tokens=5)
    with pytest.raises(InputError, match="max_tokens -1"):
        split("a", max_tokens=-1, count=len)
    with pytest.raises(InputError, match="1 translations for 2"):
        join(split("Yes. No."), ["Oui."])
