"""Profiles nobody measured, whose every number a test knows."""

from __future__ import annotations

from edgegen.profiles import Profile
from edgegen.profiles.record import (
    Case,
    Load,
    Machine,
    Memory,
    PassRecord,
    Place,
    Request,
    Run,
    StepRecord,
    Subject,
)

MACHINE = Machine(
    system="none", processor="made up", cores=1, memory=0, python="3", versions={"edgegen": "0"}
)
NO_MEMORY = Memory(resident=0)
# JSON, nested more deeply than a reader follows.
DEEP = b"[" * 100_000 + b"]" * 100_000


def step(*tokens: int, seconds: float = 0.010, drafted: int = 0) -> StepRecord:
    accepted = len(tokens) - 1
    return StepRecord(tokens, drafted, accepted, 1 + drafted, 0.001, 0.8 * seconds, seconds)


def one_pass(*steps: StepRecord) -> PassRecord:
    return PassRecord(
        source_tokens=7,
        tokenize_seconds=0.001,
        features_seconds=0.002,
        encode_seconds=0.004,
        steps=steps,
    )


def request(
    *steps: StepRecord,
    drafter: str = "none",
    repetition: int = 0,
    wall: float = 1.0,
    audio: float = 0.0,
) -> Request:
    return Request(
        drafter=drafter,
        item=0,
        repetition=repetition,
        warm_up=repetition < 0,
        passes=(one_pass(*steps),),
        wall_seconds=wall,
        read_seconds=0.0,
        audio_seconds=audio,
        finish_reason="length",
        lossless="sample-identical",
    )


def made_up(*requests: Request, machine: Machine = MACHINE) -> Profile:
    """A profile of one case."""
    memory_after = Memory(resident=3_000_000, peak=4_000_000, anonymous=1_000_000, mapped=2_000_000)
    run = Run(
        subject=Subject(
            path="bundle", name="bundle", family="t5", task="text2text-generation", parameters=1,
            size=5_000_000, decode_sha256="0" * 64, source="s", revision="r", format="onnx",
            weight_format="int8", lowering="fused", cache="in_place", rows="bit",
        ),
        place=Place(device="ort-cpu", threads=1, exact=True, details={"hardware": "none"}),
        load=Load(
            load_seconds=0.5, compile_seconds={"encode": 0.1, "decode": 0.2},
            compile_cached_seconds={}, started_seconds=0.1, first_token_seconds=0.7,
            before=NO_MEMORY, after=memory_after,
        ),
        cases=(
            Case(name="p7 n3", prompt_tokens=7, new_tokens=3, requests=requests,
                 memory=memory_after, peak=6_000_000),
        ),
    )  # fmt: skip
    return Profile(created="2026-01-01T00:00:00+00:00", machine=machine, runs=(run,))


TWO = (
    request(step(1), step(2)),
    request(step(1), step(2), repetition=1, wall=2.0),
    request(step(1, 2, drafted=3), drafter="lookup"),
)
