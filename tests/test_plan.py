"""Plans: the least of all choices by measured tables, explained, kept in a file and used."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegen.errors import InputError, UnknownName
from edgegen.profiles.plan import (
    GOALS,
    MB,
    SAME,
    Choice,
    Decoding,
    Drafting,
    Encoding,
    Forecast,
    Tables,
    forecast,
    reasons,
    solve,
)
from edgegen.runtime.calibration import Costs

DEVICES = ("a", "b", "c")


def encoding(seconds: float, memory: int = MB) -> Encoding:
    return Encoding(seconds=seconds, cpu_seconds=seconds, memory=memory)


def decoding(one: float, eight: float, memory: int = MB, cpu_share: float = 1.0) -> Decoding:
    return Decoding(costs=Costs((1, 9), (one, eight)), cpu_share=cpu_share, memory=memory)


def drafting(seconds: float, *reach: float, **said: Any) -> Drafting:
    usual: dict[str, Any] = {"name": "lookup", "asked": 1.0, **said}
    return Drafting(**usual, seconds=seconds, reach=reach)


def tables(**said: Any) -> Tables:
    """``a`` encodes and ``b`` decodes faster; the way from one to the other costs a little."""
    ways = {("a", "a"): 3.0, ("a", "b"): 2.5, ("b", "a"): 3.5, ("b", "b"): 2.0}
    usual: dict[str, Any] = {
        "encoders": {"encode": {"a": encoding(4.0, 10 * MB), "b": encoding(6.0, 2 * MB)}},
        "decoders": {"a": decoding(2.0, 10.0), "b": decoding(1.0, 9.0, 5 * MB)},
        "first": ways,
        "new_tokens": 11,
    }
    return Tables(**{**usual, **said})


def test_each_part_goes_where_it_is_fastest() -> None:
    assert solve(tables(), "ttft").devices == {"encode": "a", "decode": "b"}
    assert solve(tables(), "tpot").devices["decode"] == "b"


def test_a_way_that_costs_more_than_it_saves_is_not_taken() -> None:
    far = {**tables().first, ("a", "b"): 9.0}
    chosen = solve(tables(first=far), "ttft")
    assert chosen.devices == {"encode": "a", "decode": "a"}


def test_memory_bounds_the_choice_and_a_bound_too_small_is_told() -> None:
    chosen = solve(tables(), "ttft", 8 * MB)
    assert chosen.devices == {"encode": "b", "decode": "b"}
    assert forecast(tables(), chosen).memory == 7 * MB
    with pytest.raises(InputError, match=r"fits in 2 MB: the smallest takes 3 MB .encode=b"):
        solve(tables(), "ttft", 2 * MB)


def test_energy_is_processor_seconds() -> None:
    busy = {"a": decoding(2.0, 10.0, cpu_share=1.0), "b": decoding(1.0, 9.0, cpu_share=4.0)}
    assert solve(tables(decoders=busy), "tpot").devices["decode"] == "b"
    assert solve(tables(decoders=busy), "energy").devices["decode"] == "a"


def test_a_draft_that_pays_is_taken_and_one_that_does_not_is_not() -> None:
    flat = {"a": decoding(1.0, 1.0)}
    steep = {"a": decoding(1.0, 9.0)}
    draft = drafting(0.1, 0.8, 0.6)
    chosen = solve(tables(decoders=flat, drafts=(draft,)))
    assert (chosen.draft, chosen.tokens) == (draft, 2)
    assert forecast(tables(decoders=flat), chosen).tpot == pytest.approx(1.2 / 2.4)
    plain = solve(tables(decoders=steep, drafts=(draft,)))
    assert plain.draft is None
    said = reasons(tables(decoders=steep, drafts=(draft,)), plain, "tpot")
    assert any(line.startswith("draft lookup loses here") for line in said)
    assert "do not speculate: no draft betters tpot here." in said


def test_a_draft_model_on_a_slow_device_loses_where_on_another_it_wins() -> None:
    here = drafting(0.1, 0.9, name="model", device="a")
    there = drafting(3.0, 0.9, name="model", device="npu")
    found = tables(decoders={"a": decoding(1.0, 1.0)}, drafts=(there, here))
    chosen = solve(found)
    assert chosen.draft is here
    said = reasons(found, chosen, "tpot")
    assert any(line.startswith("draft model on npu loses here") for line in said)
    assert any("draft model on a wins here" in line and "chosen" in line for line in said)


def test_steps_without_a_draft_cost_what_plain_ones_do() -> None:
    draft = drafting(5.0, 0.0, asked=0.0)
    free = Choice(devices={"encode": "a", "decode": "b"}, draft=draft, tokens=1)
    plain = Choice(devices=free.devices)
    assert forecast(tables(), free) == forecast(tables(), plain)


def test_an_unknown_goal_is_told() -> None:
    with pytest.raises(UnknownName, match="did you mean 'ttft'"):
        solve(tables(), "tfft")


@st.composite
def any_tables(draw: st.DrawFn) -> Tables:
    number = st.floats(0.01, 10.0)
    some = st.lists(st.sampled_from(DEVICES), min_size=1, unique=True)
    encoders, decoders = draw(some), draw(some)
    size = st.integers(0, 20).map(lambda n: n * MB)
    return Tables(
        encoders={"encode": {name: encoding(draw(number), draw(size)) for name in encoders}},
        decoders={
            name: decoding(one := draw(number), one + draw(number), draw(size), draw(number))
            for name in decoders
        },
        first={pair: draw(number) for pair in product(encoders, decoders)},
        drafts=tuple(
            drafting(draw(number), *sorted(draw(st.lists(st.floats(0, 1), max_size=3)))[::-1])
            for _ in range(draw(st.integers(0, 2)))
        ),
        new_tokens=draw(st.integers(1, 50)),
    )


@given(any_tables(), st.sampled_from(list(GOALS)), st.none() | st.integers(0, 30))
def test_no_choice_betters_the_one_found(found: Tables, goal: str, limit: int | None) -> None:
    bound = None if limit is None else limit * MB
    measure, fits = GOALS[goal], list[Forecast]()
    drafts = [(None, 0), *((d, k + 1) for d in found.drafts for k in range(len(d.reach)))]
    for encode in found.encoders["encode"]:
        for decode in found.decoders:
            for draft, tokens in drafts:
                devices = {"encode": encode, "decode": decode}
                one = forecast(found, Choice(devices=devices, draft=draft, tokens=tokens))
                if bound is None or one.memory <= bound:
                    fits.append(one)
    if not fits:
        with pytest.raises(InputError, match="no placement fits"):
            solve(found, goal, bound)
        return
    chosen = forecast(found, solve(found, goal, bound))
    most = (1 + SAME) * min(map(measure, fits))
    assert chosen in fits
    assert measure(chosen) <= most
    assert chosen.request == min(one.request for one in fits if measure(one) <= most)


def test_among_equals_the_shortest_request_is_taken() -> None:
    draft = drafting(0.01, 0.9, 0.9, start_seconds=0.01)
    chosen = solve(tables(decoders={"a": decoding(1.0, 1.2)}, drafts=(draft,)), "ttft")
    assert chosen.draft is draft
