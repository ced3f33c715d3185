"""Subtitle files: times to the millisecond, cues that cannot be mistaken for structure."""

from __future__ import annotations

import pytest

from edgegen.runtime.result import Segment
from edgegen.runtime.subtitles import clock, srt, vtt


def segment(start: float, end: float, text: str) -> Segment:
    return Segment(start=start, end=end, text=text, tokens=())


SEGMENTS = [
    segment(0.0, 1.5, " It was the best"),
    segment(1.5, 3661.04, " of <times> & all\n\nof it"),
]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "00:00:00.000"),
        (59.9996, "00:01:00.000"),
        (3661.04, "01:01:01.040"),
        (-1, "00:00:00.000"),
    ],
)
def test_a_clock_is_rounded_as_a_whole(seconds: float, said: str) -> None:
    assert clock(seconds) == said


def test_srt_numbers_its_cues_and_has_no_empty_line_in_one() -> None:
    assert srt(SEGMENTS) == (
        "1\n00:00:00,000 --> 00:00:01,500\nIt was the best\n\n"
        "2\n00:00:01,500 --> 01:01:01,040\nof <times> & all\nof it\n\n"
    )


def test_vtt_has_its_header_and_escapes_markup() -> None:
    assert vtt(SEGMENTS) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nIt was the best\n\n"
        "00:00:01.500 --> 01:01:01.040\nof &lt;times&gt; &amp; all\nof it\n\n"
    )


def test_a_segment_without_words_is_no_cue() -> None:
    assert srt([segment(0, 1, "  "), *SEGMENTS]) == srt(SEGMENTS)
    assert vtt([]) == "WEBVTT\n\n"
