"""The HTML page: whole, escaped, readable on a phone, and quiet in a browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from chromium import Chromium, installed
from made_up_profiles import made_up, request, step

from edgegen.errors import InputError
from edgegen.profiles import Profile
from edgegen.profiles.html import page
from edgegen.profiles.html.page import SECTIONS
from edgegen.profiles.html.scales import Scale, fitted, round_step
from edgegen.profiles.html.strip import tokens_of
from edgegen.profiles.html.waterfall import bars

HOSTILE = '"><script>alert(1)</script><img src="http://x.invalid/a.png" onerror=alert(2)>&amp;\'-x'
ONE = made_up(request(step(1), step(2)))


def full() -> Profile:
    """Two bundles of hostile names on two devices, two lengths and a drafter."""
    (run,) = made_up(
        request(step(1), step(2), step(3), wall=0.3),
        request(step(1), step(2, 3, drafted=4), drafter="lookup", wall=0.2),
    ).runs
    slow = msgspec.structs.replace(
        run.cases[0], name="p30", prompt_tokens=30,
        requests=(request(*(step(at, seconds=0.02) for at in range(9))),),
    )  # fmt: skip
    longer = tuple(
        msgspec.structs.replace(part, source_tokens=30) for part in slow.requests[0].passes
    )
    slow = msgspec.structs.replace(
        slow, requests=(msgspec.structs.replace(slow.requests[0], passes=longer),)
    )
    run = msgspec.structs.replace(run, cases=(*run.cases, slow))
    runs = [
        msgspec.structs.replace(
            run,
            subject=msgspec.structs.replace(
                run.subject, name=f"{name}-{bits}", weight_format=bits, source=HOSTILE,
                size=size, agreement=0.5,
            ),
            place=msgspec.structs.replace(run.place, device=device),
        )
        for name, bits, size, device in (
            (HOSTILE, "int8", 5_000_000, "ort-cpu"), ("plain", HOSTILE, 7_000_000, HOSTILE),
        )
    ]  # fmt: skip
    machine = msgspec.structs.replace(ONE.machine, processor=HOSTILE)
    return msgspec.structs.replace(ONE, machine=machine, runs=tuple(runs))


def test_every_section_draws_where_there_is_data_and_names_the_option_where_not() -> None:
    assert all(make(full()).body for make in SECTIONS)
    absent = [make(ONE) for make in SECTIONS if not make(ONE).body]
    assert {"-p 32", "-n 16", "--draft", "-d ort"} <= {
        option for one in absent for option in ("-p 32", "-n 16", "--draft", "-d ort")
        if option in one.says
    }  # fmt: skip


class Tags(HTMLParser):
    """Names of all tags, and addresses in their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_names_from_files_are_text_and_never_markup() -> None:
    tags = Tags()
    tags.feed(page(full()))
    assert not tags.names & {"script", "img", "iframe", "object"}
    assert not {name for name in tags.attributes if name.startswith("on") or name == "src"}


def test_the_page_names_no_address() -> None:
    assert not re.search(r"(?:src|url|href)\s*[=(]\s*[\"']?(?!data:)[a-z]+:", page(ONE))


def test_a_profile_without_a_measured_request_is_refused() -> None:
    with pytest.raises(InputError, match="measured request"):
        page(made_up(request(step(1), repetition=-1)))
    with pytest.raises(InputError, match="measured request"):
        page(msgspec.structs.replace(ONE, runs=()))


def test_the_waterfall_has_every_second_of_the_request_once() -> None:
    one = request(step(1), step(2, 3, drafted=2), step(4), wall=0.5)
    found = bars(one)
    assert sum(bar.length for bar in found) == pytest.approx(500)
    for before, after in pairwise(found):
        assert after.start == pytest.approx(before.start + before.length)


def test_the_strip_has_every_token_once() -> None:
    found = tokens_of(request(step(1), step(2, 3, 4, drafted=2), step(5)))
    assert [token.kind for token in found] == ["decode", "draft", "accepted", "accepted", "decode"]
    assert [token.gap for token in found] == pytest.approx([0, 10, 0, 0, 10])


def test_a_scale_runs_from_end_to_end_with_round_numbers_between() -> None:
    scale = Scale(0, 10, 100, 0)
    assert (scale(0), scale(10)) == (100, 0)
    assert scale.ticks(5) == pytest.approx([0, 2, 4, 6, 8, 10])
    assert [round_step(rough) for rough in (0.3, 1.1, 2.2, 7)] == [0.5, 2, 2.5, 10]
    assert fitted([], 0, 1).high > 0 and fitted([0.0], 0, 1).high > 0


@pytest.mark.skipif(installed() is None, reason="no Chromium is installed here")
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_it_without_error_request_or_sideways_scroll(
    tmp_path: Path, dark: bool
) -> None:
    program = installed()
    assert program is not None
    for name, profile in (("full", full()), ("one", ONE)):
        (tmp_path / f"{name}.html").write_text(page(profile), encoding="utf-8")
    with Chromium(program) as browser:
        for name in ("full", "one"):
            for width in (390, 1280):
                seen = browser.open(tmp_path / f"{name}.html", width, dark=dark)
                assert (seen.errors, seen.requests) == ([], [])
                assert seen.page_width == width
                assert seen.picture.startswith(b"\x89PNG")


@pytest.mark.skipif(installed() is None, reason="no Chromium is installed here")
def test_the_browser_would_have_told(tmp_path: Path) -> None:
    program = installed()
    assert program is not None
    bad = '<div style="width:900px">x</div><script>console.error("no")</script>'
    (tmp_path / "bad.html").write_text(f"{bad}<img src='http://127.0.0.1:9/a.png'>")
    with Chromium(program) as browser:
        seen = browser.open(tmp_path / "bad.html", 390)
    assert seen.errors and seen.requests == ["http://127.0.0.1:9/a.png"]
    assert seen.page_width >= 900
