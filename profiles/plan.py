"""Which part runs where and whether to draft: solved by trying all, over tables measured here.

Every choice of devices is forecast from the tables, and the least of what was asked for is taken. A
step with k drafted tokens costs L(1 + k) and k proposals, and commits one token more for each that
stands (Leviathan et al., 2023, section 3.3, with measured L and measured shares in place of an
assumed acceptance rate). Times in seconds, memory in bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from edgegen.errors import InputError, UnknownName
from edgegen.registry import unknown
from edgegen.runtime.calibration import Costs
from edgegen.runtime.generation import Step

MB = 2**20
# Forecasts this near to each other, as a share, are taken for the same.
SAME = 0.03


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Features or an encoder on a device, one source of the user's length.

    ``cpu_seconds`` are all threads'.
    """

    seconds: float
    cpu_seconds: float
    memory: int


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """A decoder on a device: L(n), processor seconds a second of it, memory."""

    costs: Costs
    cpu_share: float
    memory: int


@dataclass(frozen=True, kw_only=True)
class Drafting:
    """A way to draft. ``device`` and ``memory`` are a draft model's.

    ``asked`` is the share of steps with a draft; ``reach[j]`` that in which more than j drafted
    tokens stood, so its length is the most that was tried. ``seconds`` propose a token,
    ``start_seconds`` come before the first.
    """

    name: str
    device: str = ""
    seconds: float
    start_seconds: float = 0.0
    cpu_share: float = 1.0
    asked: float
    reach: tuple[float, ...]
    memory: int = 0

    @classmethod
    def of(cls, steps: Sequence[Step], length: int, name: str, device: str = "") -> Drafting:
        """From the steps of a request that drafted ``length`` tokens at a time."""
        took = sum(step.draft_seconds for step in steps[1:])
        tokens = sum(step.drafted for step in steps[1:])
        seconds = took / tokens if tokens else 0.0
        return cls(
            name=name,
            device=device,
            seconds=seconds,
            start_seconds=max(0.0, steps[0].draft_seconds - seconds * steps[0].drafted),
            asked=sum(step.drafted > 0 for step in steps) / len(steps),
            reach=tuple(
                sum(step.accepted > j for step in steps) / len(steps) for j in range(length)
            ),
        )

    def __str__(self) -> str:
        return f"{self.name} on {self.device}" if self.device else self.name


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What was measured. ``encoders`` by part (``features``, ``encode``) and device; ``first`` is
    from the encoder's result on one device to the first token on another, the way included: the
    encoder's device is empty for a model without one."""

    encoders: Mapping[str, Mapping[str, Encoding]]
    decoders: Mapping[str, Decoding]
    first: Mapping[tuple[str, str], float]
    drafts: tuple[Drafting, ...] = ()
    new_tokens: int = 64


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Devices by part, how to draft (None: not at all) and at most how many tokens."""

    devices: Mapping[str, str]
    draft: Drafting | None = None
    tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a choice is expected to take: to the first token, for each further one, for a request of
    the user's lengths, in processor seconds and in memory."""

    ttft: float
    tpot: float
    request: float
    cpu: float
    memory: int


GOALS: Mapping[str, Callable[[Forecast], float]] = {
    "ttft": lambda found: found.ttft,
    "tpot": lambda found: found.tpot,
    # Processor seconds: a proxy, which knows nothing of an accelerator's own power.
    "energy": lambda found: found.cpu,
}


def forecast(tables: Tables, choice: Choice) -> Forecast:
    """What the tables say of a choice."""
    devices, draft = choice.devices, choice.draft
    encoders = [table[devices[part]] for part, table in tables.encoders.items()]
    decoder = tables.decoders[devices["decode"]]
    plain = decoder.costs.of(1)
    first = tables.first[devices.get("encode", ""), devices["decode"]]
    before, drafting, step, tokens = 0.0, 0.0, plain, 1.0
    if draft is not None:
        before = draft.start_seconds
        drafting = draft.asked * choice.tokens * draft.seconds
        step = plain + draft.asked * (decoder.costs.of(1 + choice.tokens) - plain)
        tokens = 1.0 + sum(draft.reach[: choice.tokens])
    steps = (tables.new_tokens - 1) / tokens
    share = 0.0 if draft is None else draft.cpu_share
    ttft = sum(one.seconds for one in encoders) + before + first
    cpu = sum(one.cpu_seconds for one in encoders) + decoder.cpu_share * (first + steps * step)
    return Forecast(
        ttft=ttft,
        tpot=(step + drafting) / tokens,
        request=ttft + steps * (step + drafting),
        cpu=cpu + share * (before + steps * drafting),
        memory=sum(one.memory for one in encoders)
        + decoder.memory
        + (0 if draft is None else draft.memory),
    )


def choices(tables: Tables) -> Iterator[Choice]:
    """All there are."""
    drafts: list[tuple[Drafting | None, int]] = [(None, 0)]
    drafts += [(one, k) for one in tables.drafts for k in range(1, len(one.reach) + 1)]
    parts = [*tables.encoders, "decode"]
    for devices in product(*(tables.encoders[part] for part in parts[:-1]), tables.decoders):
        for draft, tokens in drafts:
            yield Choice(devices=dict(zip(parts, devices, strict=True)), draft=draft, tokens=tokens)


def solve(tables: Tables, goal: str = "tpot", memory_limit: int | None = None) -> Choice:
    """The choice with the least of ``goal`` in at most ``memory_limit`` bytes. Choices closer to it
    than medians can tell (``SAME``) count as equal, and of those the shortest request is taken,
    then the least memory, then no draft, then the first in the tables.

    Raises ``UnknownName`` for a goal there is not, ``InputError`` when nothing fits.
    """
    measure = goal_named(goal)
    found = [(forecast(tables, choice), choice) for choice in choices(tables)]
    fits = [one for one in found if memory_limit is None or one[0].memory <= memory_limit]
    if not fits:
        least, choice = min(found, key=lambda one: one[0].memory)
        raise InputError(
            f"no placement fits in {(memory_limit or 0) / MB:.0f} MB: the smallest takes "
            f"{least.memory / MB:.0f} MB ({spelled(choice.devices)}); allow more, or export "
            "narrower weights."
        )
    most = (1.0 + SAME) * min(measure(one) for one, _ in fits)
    near = [one for one in fits if measure(one[0]) <= most]
    return min(near, key=lambda one: (one[0].request, one[0].memory, one[1].tokens))[1]


def goal_named(goal: str) -> Callable[[Forecast], float]:
    """Raises ``UnknownName``."""
    if goal not in GOALS:
        raise UnknownName(unknown("goal", goal, list(GOALS)))
    return GOALS[goal]


def spelled(devices: Mapping[str, str]) -> str:
    """``encode=ov-cpu,decode=ort-cpu``, as ``--device`` takes it."""
    return ",".join(f"{part}={name}" for part, name in devices.items())


# ------------------------------------------------------------------ in words


def reasons(
    tables: Tables, choice: Choice, goal: str, memory_limit: int | None = None
) -> tuple[str, ...]:
    """Why, a line a part: what it was chosen over, and what drafting would have brought."""
    found = [
        told(part, device, {name: one.seconds for name, one in tables.encoders[part].items()})
        for part, device in choice.devices.items()
        if part != "decode"
    ]
    tokens = {name: one.costs.of(1) for name, one in tables.decoders.items()}
    found.append(told("decode", choice.devices["decode"], tokens, " a token"))
    encode, decode = choice.devices.get("encode", ""), choice.devices["decode"]
    if encode and encode != decode:
        way = tables.first[encode, decode] - tables.first.get((decode, decode), 0.0)
        found.append(f"from {encode} to {decode}: {1e3 * max(way, 0.0):.2f} ms more once a source.")
    found += drafting(tables, choice, goal)
    if memory_limit is not None:
        held = forecast(tables, choice).memory / MB
        found.append(f"memory {held:.0f} MB of the {memory_limit / MB:.0f} MB allowed.")
    if goal == "energy":
        found.append("energy is taken to be processor seconds, of all threads: a proxy.")
    return tuple(found)


def told(part: str, device: str, seconds: Mapping[str, float], unit: str = "") -> str:
    mine = f"{part} on {device}: {1e3 * seconds[device]:.2f} ms{unit}"
    others = [f"{1e3 * took:.2f} on {name}" for name, took in seconds.items() if name != device]
    return f"{mine}, {', '.join(others)}." if others else f"{mine}; nothing else takes it."


def drafting(tables: Tables, choice: Choice, goal: str) -> list[str]:
    """What each way to draft brings at its best, on the chosen decoder."""
    plain = forecast(tables, Choice(devices=choice.devices)).tpot
    if not tables.drafts:
        return [f"do not speculate: no way to draft was measured ({1e3 * plain:.2f} ms a token)."]
    lines: list[str] = []
    for draft in tables.drafts:
        tries = [
            (forecast(tables, Choice(devices=choice.devices, draft=draft, tokens=k)).tpot, k)
            for k in range(1, len(draft.reach) + 1)
        ]
        best, k = min(tries)
        verb = "wins" if best < plain else "loses"
        chosen = ", chosen" if draft is choice.draft else ""
        lines.append(
            f"draft {draft} {verb} here: {1e3 * best:.2f} ms a token by {k} at a time, plain "
            f"{1e3 * plain:.2f}{chosen}."
        )
    if choice.draft is None:
        lines.append(f"do not speculate: no draft betters {goal} here.")
    return lines


def rows(tables: Tables) -> list[dict[str, str | float]]:
    """The tables, a number a row: ``part``, ``device``, what and how much."""
    found: list[dict[str, str | float]] = []
    for part, table in tables.encoders.items():
        for name, one in table.items():
            found.append(
                {
                    "part": part,
                    "device": name,
                    "ms": 1e3 * one.seconds,
                    "cpu_seconds": one.cpu_seconds,
                    "memory_mb": one.memory / MB,
                }
            )
    for name, decoder in tables.decoders.items():
        for count, took in zip(decoder.costs.rows, decoder.costs.seconds, strict=True):
            found.append({"part": "decode", "device": name, "rows": count, "ms": 1e3 * took})
        found.append({"part": "decode", "device": name, "memory_mb": decoder.memory / MB})
    for (encode, decode), took in tables.first.items():
        found.append({"part": "first", "from": encode, "device": decode, "ms": 1e3 * took})
    for draft in tables.drafts:
        found.append(
            {
                "part": "draft",
                "drafter": draft.name,
                "device": draft.device,
                "ms": 1e3 * draft.seconds,
                "asked": draft.asked,
                "accepted": sum(draft.reach),
            }
        )
    return found
