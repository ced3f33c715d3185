"""The gate's answer for graphs of fixed sizes: every one of them, filled up to its size.

The checkpoint's tokens are fed in calls as large as a graph takes, up to what its cache holds. How
far graphs of different sizes are apart is what a draft's rows may differ by from plain decoding's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgegen.devices import DeviceOptions, device_named
from edgegen.errors import ExportError
from edgegen.manifest import Parity, PromptParity, Variant

from .parity import DEVICES, Example, Gate, judge, relative
from .reference import Logits
from .stepper import Stepper, memory_of

Rows = tuple[Example, Logits]


def check_static(gate: Gate, folder: Path, variants: Mapping[str, Variant]) -> Parity:
    """Run every static graph; raises ``ParityError`` with the worst prompt, and ``ExportError``
    when no prompt is short enough for a size."""
    decoders = [one for one in variants.values() if one.graph.name == "decode"]
    found: dict[int, list[Logits]] = {at: [] for at in range(len(gate.examples))}
    for decode in decoders:
        parts = {**memory_parts(decode, variants), "decode": decode}
        answers = list(run_all(gate, folder, parts))
        if not answers:
            sizes = " ".join(f"{dim}={size}" for dim, size in decode.buckets.items())
            raise ExportError(
                f"static sizes {sizes}: no parity prompt is short enough to check them; "
                "add one with --parity-prompts."
            )
        for at, logits in answers:
            found[at].append(logits)
    prompts = [
        prompt_of(example, found[at]) for at, example in enumerate(gate.examples) if found[at]
    ]
    steps = sum(prompt.tokens for prompt in prompts)
    parity = Parity(
        format=decoders[0].format,
        weight_format=decoders[0].precision.weight_format,
        reference=gate.name,
        max_error=max(prompt.error for prompt in prompts),
        rows_error=max(spread(logits) for logits in found.values() if logits),
        agreement=sum(prompt.agreement * prompt.tokens for prompt in prompts) / steps,
        prompts=tuple(prompts),
    )
    judge(parity, gate.options)
    return parity


def memory_parts(decode: Variant, variants: Mapping[str, Variant]) -> dict[str, Variant]:
    """The graphs that leave a memory of the size ``decode`` takes."""
    size = decode.buckets.get("S")
    return {
        one.graph.name: one
        for one in variants.values()
        if one.graph.name != "decode" and one.buckets.get("S", size) == size
    }


def run_all(gate: Gate, folder: Path, parts: Mapping[str, Variant]) -> Iterator[tuple[int, Logits]]:
    """Logits of the rows that fit, by the example's number."""
    device = device_named(DEVICES[parts["decode"].format])
    sessions: dict[str, Any] = {
        name: device.compile(folder / one.file, one.fixed(), DeviceOptions())
        for name, one in parts.items()
    }
    size = parts["decode"].buckets.get("S", 0)
    try:
        for at, example in enumerate(gate.examples):
            length = len(example.source["input_ids"]) if "input_ids" in example.source else 0
            if size and length > size:
                continue
            padding = size - length if size else 0
            memory = memory_of(sessions, example.source, padding) if "encode" in sessions else {}
            stepper = Stepper(sessions["decode"], parts["decode"], memory)
            yield at, fed(stepper, example, parts["decode"].buckets)
    finally:
        for session in sessions.values():
            session.close()


def fed(stepper: Stepper, example: Example, sizes: Mapping[str, int]) -> Logits:
    """Logits ``[rows, V]`` of the text's first rows: those a cache of that size lets be made."""
    tokens = [*example.prompt, *example.answer[:-1]]
    tokens = tokens[: sizes["past"] + 1] if "past" in sizes else tokens
    calls = [tokens[at : at + sizes["n"]] for at in range(0, len(tokens), sizes["n"])]
    return np.concatenate([stepper.decode(call) for call in calls])


def prompt_of(example: Example, found: list[Logits]) -> PromptParity:
    """All sizes' answers to a prompt as one: the least agreement and the largest error."""
    first, shares = len(example.prompt) - 1, [1.0]
    for logits in found:
        chosen = logits[first:].argmax(-1)
        if len(chosen):
            shares.append(float((chosen == np.array(example.answer[: len(chosen)])).mean()))
    return PromptParity(
        prompt=example.text,
        tokens=len(example.answer),
        agreement=min(shares),
        error=max(relative(logits, example.logits[: len(logits)]) for logits in found),
    )


def spread(found: list[Logits]) -> float:
    """How far the graphs are apart in the rows they all made, over the largest magnitude."""
    rows = min(map(len, found))
    every = np.stack([logits[:rows] for logits in found])
    return float(np.ptp(every, axis=0).max() / np.abs(every).max())
