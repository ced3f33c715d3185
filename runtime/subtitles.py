"""Segments of speech as subtitle files: SubRip (srt) and WebVTT (vtt)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .result import Segment


def srt(segments: Sequence[Segment]) -> str:
    """SubRip: numbered cues, milliseconds after a comma."""
    return "".join(
        f"{number}\n{clock(one.start, ',')} --> {clock(one.end, ',')}\n{_cue(one.text)}\n\n"
        for number, one in enumerate(_spoken(segments), start=1)
    )


def vtt(segments: Sequence[Segment]) -> str:
    """WebVTT (W3C): a header, cues, and the three characters that markup is made of escaped."""
    cues = (
        f"{clock(one.start)} --> {clock(one.end)}\n{_escaped(_cue(one.text))}\n\n"
        for one in _spoken(segments)
    )
    return "WEBVTT\n\n" + "".join(cues)


def clock(seconds: float, point: str = ".") -> str:
    """Seconds as ``HH:MM:SS.mmm``, rounded to a millisecond."""
    whole = max(0, round(seconds * 1000))
    minutes, milliseconds = divmod(whole, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"


def _spoken(segments: Sequence[Segment]) -> list[Segment]:
    return [one for one in segments if one.text.strip()]


def _cue(text: str) -> str:
    """A cue ends at an empty line, so there is none in it."""
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
