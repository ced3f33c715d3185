"""Laws of ending: the same end whether tokens come one by one or many a step."""

from __future__ import annotations

import pytest

from edgegen.runtime.stopping import Cut, Stopping, StopStrings, TextSoFar

PIECES = {1: "st", 2: "op", 3: "a", 4: "opera", 5: " ", 6: "sto", 7: "pper", 9: "\n"}


def growing() -> TextSoFar:
    text: list[str] = []

    def push(token: int) -> str:
        text.append(PIECES[token])
        return "".join(text)

    return push


def test_an_end_token_is_kept_and_cuts_what_follows() -> None:
    assert Stopping(ends=[0], max_new_tokens=9).check([3, 0, 3]) == Cut(2, "stop")


def test_the_limit_counts_over_steps() -> None:
    stopping = Stopping(ends=[0], max_new_tokens=4)
    assert stopping.check([1, 2, 3]) == Cut(3)
    assert stopping.check([1, 2, 3]) == Cut(1, "length")


def test_an_end_token_at_the_limit_is_a_stop() -> None:
    assert Stopping(ends=[0], max_new_tokens=2).check([3, 0]) == Cut(2, "stop")


@pytest.mark.parametrize(
    ("tokens", "keep", "place"),
    [([3, 1, 2, 3], 3, 1), ([3, 1, 4, 5], 3, 1), ([6, 7], 2, 0), ([1, 5, 2], 3, None)],
)
@pytest.mark.parametrize("step", [1, 2, 4])
def test_stop_strings_are_found_across_token_borders(
    tokens: list[int], keep: int, place: int | None, step: int
) -> None:
    stopping = Stopping(ends=[0], max_new_tokens=9, stop=["stop"], text=growing())
    kept = 0
    for start in range(0, len(tokens), step):
        cut = stopping.check(tokens[start : start + step])
        kept += cut.keep
        if cut.reason:
            assert (cut.reason, cut.text_length) == ("stop_string", place)
            break
    else:
        assert place is None
    assert kept == keep


def test_the_earliest_stop_string_wins() -> None:
    assert StopStrings(["b", "ab"]).find("xabab") == 1


def test_only_what_is_new_is_searched_but_no_overlap_is_missed() -> None:
    strings = StopStrings(["abc"])
    assert strings.find("xab") is None
    assert strings.find("xabab") is None
    assert strings.find("xababc") == 3


def test_a_text_that_changes_behind_is_searched_anew() -> None:
    strings = StopStrings(["é!"])
    assert strings.find("caf\ufffd!?!?") is None
    assert strings.find("café!?!?") == 3


def test_what_may_become_a_stop_string_is_not_shown() -> None:
    strings = StopStrings(["stop", "\n\n"])
    assert strings.shown("a st") == 2
    assert strings.shown("a sta") == 5
    assert strings.shown("a\n") == 1
    assert StopStrings([]).shown("anything") == 8


def test_stop_strings_need_the_text() -> None:
    with pytest.raises(ValueError, match="text so far"):
        Stopping(ends=[0], max_new_tokens=1, stop=["x"])
