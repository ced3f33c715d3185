"""ONNX Runtime GenAI's Generator on token ids, greedy.

Lengths are fixed by ``min_length`` = ``max_length``.
"""

from __future__ import annotations

import json

import onnxruntime_genai  # type: ignore[import-not-found,unused-ignore] # pyright: ignore

from ..protocol import Outcome, Request, Run, Settings

PACKAGES = ("onnxruntime-genai", "onnxruntime")


def load(settings: Settings, threads: int) -> Run:
    config = onnxruntime_genai.Config(settings["model"])
    session = {"intra_op_num_threads": threads, "inter_op_num_threads": 1}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}}))
    model = onnxruntime_genai.Model(config)

    def run(request: Request) -> Outcome:
        return Outcome(tokens=[greedy(model, source, request) for source in request.sources])

    return run


def greedy(model: object, source: tuple[int, ...], request: Request) -> list[int]:
    length = len(source) + request.new_tokens
    parameters = onnxruntime_genai.GeneratorParams(model)
    parameters.set_search_options(
        do_sample=False, num_beams=1, min_length=length, max_length=length
    )
    generator = onnxruntime_genai.Generator(model, parameters)
    generator.append_tokens(list(source))
    while not generator.is_done():
        generator.generate_next_token()
    return [int(token) for token in generator.get_sequence(0)][len(source) :]
