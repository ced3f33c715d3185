"""The works: what is done, by whom, and what is compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from . import inputs
from .contestants import (
    CTRANSLATE2,
    TRANSFORMERS,
    TRANSLATOR,
    causal_peers,
    edgegen,
    eight_bits,
    everywhere,
    fast,
    having,
    seq2seq_peers,
    speakers,
    speculated,
    speech_peers,
)
from .models import ENCODER, INTEGERS, REFINED, WEIGHTS, WORDS
from .protocol import Request
from .works import Contestant, Work

# Tokens of the source, tokens made.
LENGTHS = ((32, 32), (256, 128), (512, 384))
BEAMS = 4
TOGETHER = 8  # texts of a batch
REAL = 20  # misspelt sentences
LATENCY = 20  # sentences translated one after another


def fixed(
    sources: tuple[tuple[int, ...], ...], count: int, beams: int = 1
) -> Mapping[str, Request]:
    """A single token, then ``count`` of them: the difference is what later tokens cost."""
    one = Request(sources=sources, new_tokens=1, beams=beams)
    return {"first": one, "whole": replace(one, new_tokens=count)}


def t5(source: int, count: int) -> Work:
    return Work(
        name=f"t5-{source}-{count}",
        title=f"T5-small's shape, random weights: source {source}, output {count} tokens",
        group="t5",
        contestants=(*seq2seq_peers("t5"), *everywhere("t5"), *eight_bits("t5")),
        requests=lambda: fixed(inputs.random_ids(source), count),
        metrics=("per_token", "first_token", "whole"),
        against=CTRANSLATE2,
        reference=TRANSFORMERS,
    )


def whole(model: str) -> Contestant:
    """All in integers."""
    return having(edgegen(model, "ort-cpu", "int8"), INTEGERS)


def refined(model: str, group: int = 32) -> Contestant:
    """In 8 bits, but for what the output table says first."""
    return having(edgegen(model, "ort-cpu", "int8", group), REFINED)


def beams() -> Work:
    kinds = [kind for kind in everywhere("t5") if kind.model.split("-")[1] in ("int8", "int4")]
    rows = whole("t5")
    return Work(
        name="t5-beam",
        title=f"T5-small's shape, random weights: {BEAMS} beams, source 256, output 64 tokens",
        group="t5-beam",
        contestants=(*seq2seq_peers("t5"), edgegen("t5", "ort-cpu", "fp32"), *kinds, rows),
        requests=lambda: fixed(inputs.random_ids(256), 64, BEAMS),
        metrics=("per_token", "first_token", "whole"),
        against=CTRANSLATE2,
        reference=TRANSFORMERS,
    )


def batches() -> Work:
    """How much of a text's time alone it takes among others."""
    kinds = [kind for kind in everywhere("t5") if kind.model.split("-")[1] in ("int8", "int4")]
    one = Request(sources=inputs.random_ids(256), new_tokens=64)
    several = replace(one, sources=inputs.random_ids(256, texts=TOGETHER), batch=True)
    return Work(
        name="t5-batch",
        title=f"T5-small's shape, random weights: {TOGETHER} texts at once, source 256, output 64",
        group="t5-batch",
        contestants=(
            *seq2seq_peers("t5"),
            edgegen("t5", "ort-cpu", "fp32"),
            *kinds,
            *eight_bits("t5"),
        ),
        requests=lambda: {"alone": one, "batch": several},
        metrics=("together", "of_alone", "total"),
        against=CTRANSLATE2,
        reference=TRANSFORMERS,
    )


def proofreader() -> Work:
    plain = edgegen("proofread", "ort-cpu", "int8")
    wide = fast(edgegen("proofread", "ov-cpu", "int8"))
    drafters = ("auto", "aggressive+lookup")
    rows = whole("proofread")
    drafted = [speculated(one, drafter) for one in (plain, rows, wide) for drafter in drafters]
    return Work(
        name="real-t5",
        title=f"A T5 that corrects English, 8 M parameters: {REAL} sentences to their own end",
        group="real-t5",
        contestants=(
            *seq2seq_peers("proofread"),
            *everywhere("proofread"),
            rows,
            *drafted,
            refined("proofread"),
            refined("proofread", 128),
            speculated(refined("proofread"), "auto"),
        ),
        requests=lambda: {
            "texts": Request(sources=inputs.misspelt(REAL), new_tokens=128, ends=True)
        },
        metrics=("each_token", "total"),
        against=CTRANSLATE2,
        reference=TRANSFORMERS,
    )


def searched() -> Work:
    """Beams where they agree or do not: random weights tie so nearly that rounding decides."""
    ours = [edgegen("proofread", "ort-cpu", *kind) for kind in WEIGHTS if kind[0] != "bf16"]
    rows = whole("proofread")
    return replace(
        proofreader(),
        name="real-t5-beam",
        title=f"A T5 that corrects English: {BEAMS} beams, {REAL} sentences to their own end",
        group="t5-beam",
        contestants=(
            *seq2seq_peers("proofread"),
            *ours,
            rows,
            edgegen("proofread", "ov-cpu", "int8"),
        ),
        requests=lambda: {
            "texts": Request(sources=inputs.misspelt(REAL), new_tokens=128, ends=True, beams=BEAMS)
        },
    )


def speech(name: str, recording: str, seconds: int) -> Work:
    return Work(
        name=f"whisper-{name}",
        title=f"Whisper base: {seconds} s of speech",
        group="whisper",
        contestants=(*speech_peers(), *speakers()),
        requests=lambda: {"clip": Request(audio=(inputs.recording(recording),))},
        metrics=("total", "encode", "decode"),
        reference=TRANSFORMERS,
    )


def transcripts() -> Work:
    """Not for its times: a single round, one number of threads."""
    return Work(
        name="whisper-words",
        title="Whisper base: words unlike the float32 transcript's, over more than ten minutes",
        group="whisper-words",
        contestants=(*speech_peers(), *speakers()),
        requests=lambda: {"speech": Request(audio=inputs.spoken())},
        metrics=("total",),
        reference=TRANSFORMERS,
        rounds=1,
        threads=(2,),
        warm=False,
    )


def translation(name: str, title: str, request: Request) -> Work:
    eight, wider = (edgegen("firefox", "ort-cpu", "int8", group) for group in (32, 128))
    more = (
        (INTEGERS,),
        (INTEGERS, WORDS),
        (WORDS,),
        (ENCODER, WORDS),
        (REFINED,),
        (ENCODER, REFINED),
    )
    ours = [edgegen("firefox", "ort-cpu", weights) for weights in ("fp32", "int8", "int4")]
    ours += [having(eight, *kinds) for kinds in more]
    ours += [having(edgegen("firefox", "ort-cpu", "int4"), WORDS), having(wider, ENCODER, REFINED)]
    wide = edgegen("firefox", "ov-cpu", "int8")
    others = [fast(wide), wide, having(wide, WORDS)]
    return Work(
        name=f"firefox-{name}",
        title=f"Firefox English to Portuguese: {title}",
        group="firefox",
        contestants=(TRANSLATOR, *ours, *others),
        requests=lambda: {"texts": request},
        metrics=("each_source", "total"),
        reference=TRANSLATOR.name,
    )


def causal() -> Work:
    ours = [edgegen("smollm2", "ort-cpu", weights) for weights in ("fp32", "int8", "int4")]
    ours += [edgegen("smollm2", "ort-cpu", "int4", 128), edgegen("smollm2", "ov-cpu", "int8")]
    ours += [refined("smollm2")]
    ours += [fast(edgegen("smollm2", "ov-cpu", "int8")), fast(edgegen("smollm2", "ov-cpu", "int4"))]
    return Work(
        name="smollm2",
        title="SmolLM2-135M: prompt of 256 tokens, 64 more",
        group="smollm2",
        contestants=(*causal_peers(), *ours),
        requests=lambda: fixed((inputs.prompt(256),), 64),
        metrics=("per_token", "first_token", "whole"),
        reference=TRANSFORMERS,
    )


def start(work: Work, requests: Mapping[str, Request] | None = None) -> Work:
    """The same contestants from a cold process to their first token or first text."""
    return replace(
        work,
        name=f"start-{work.group}",
        title=f"Process start to first result, and memory: {work.title.partition(':')[0]}",
        group="start",
        requests=(lambda: requests) if requests else lambda: first_of(work.requests()),
        metrics=("start", "resident", "peak"),
        against="",
        fresh=True,
        threads=(1,),
    )


def first_of(requests: Mapping[str, Request]) -> Mapping[str, Request]:
    """The request that ends soonest."""
    name = next(iter(requests))
    return {name: requests[name]}


def works() -> tuple[Work, ...]:
    """In the order of the report."""
    lengths = [t5(source, count) for source, count in LENGTHS]
    clips = [speech("10s", "beckett", 10), speech("44s", "two_cities", 44)]
    texts = inputs.sentences()
    sentence = translation(
        "latency", f"{LATENCY} sentences one after another", Request(texts=texts[-LATENCY:])
    )
    batch = translation("batch", f"{len(texts)} sentences", Request(texts=texts, batch=True))
    alone = {"texts": Request(texts=texts[-1:])}
    found = [
        *lengths,
        beams(),
        batches(),
        proofreader(),
        searched(),
        *clips,
        sentence,
        batch,
        causal(),
    ]
    starts = [start(lengths[1]), start(clips[0]), start(sentence, alone), start(causal())]
    return (*found, *starts, transcripts())
