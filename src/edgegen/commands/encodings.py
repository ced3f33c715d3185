"""What ``edgegen run`` writes for encoders: vectors, classes, tagged spans and masked words."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from edgegen.errors import InputError
from edgegen.runtime.methods import METHODS
from edgegen.runtime.pipeline import Pipeline

from .inputs import Input
from .outputs import CONTROLS

# Numbers of a vector that are shown where the whole is not asked for.
SHOWN = 6
# What ``run`` needs whatever the model does.
PLACES = frozenset(
    ("bundle", "source", "files", "whole", "output_format", "as_json", "device", "threads",
     "precision", "static", "exact", "placement", "fallback", "cache_dir", "no_verify")
)  # fmt: skip


def check_typed(typed: Mapping[str, Any], name: str) -> None:
    """Raises ``InputError`` for an option that only generation has."""
    given = [
        f"--{key.replace('_', '-')}"
        for key, value in typed.items()
        if key not in PLACES and not (value is None or value is False or value in ([], ()))
    ]
    if given:
        raise InputError(f"{given[0]}: {name} is an encoder and generates nothing; leave it out.")
    if typed["output_format"] not in ("text", "json"):
        raise InputError(f"--output-format {typed['output_format']}: an encoder has text or json.")


def write(pipeline: Pipeline, item: Input, as_json: bool) -> None:
    """Read one source and write what the model makes of it."""
    task, text = pipeline.bundle.manifest.task, str(item.source)
    document = DOCUMENTS[METHODS[task]](pipeline, text)
    if as_json:
        said = json.dumps({"source": item.name or None, **document}, ensure_ascii=False) + "\n"
    else:
        said = LINES[METHODS[task]](document).translate(CONTROLS)
    sys.stdout.write(said)
    sys.stdout.flush()


def _embedding(pipeline: Pipeline, text: str) -> dict[str, Any]:
    return {"embedding": [float(number) for number in pipeline.embed(text)[0]]}


def _labels(pipeline: Pipeline, text: str) -> dict[str, Any]:
    return {"labels": [asdict(label) for label in pipeline.classify(text)]}


def _spans(pipeline: Pipeline, text: str) -> dict[str, Any]:
    return {"spans": [asdict(span) for span in pipeline.tag(text)]}


def _masks(pipeline: Pipeline, text: str) -> dict[str, Any]:
    return {"masks": [[asdict(one) for one in mask] for mask in pipeline.fill_mask(text)]}


def _embedding_lines(document: Mapping[str, Any]) -> str:
    vector = document["embedding"]
    first = " ".join(f"{number:.4f}" for number in vector[:SHOWN])
    length = float(np.linalg.norm(vector))
    return f"{len(vector)} numbers of length {length:.4f}: {first} ... (--json has all)\n"


def _label_lines(document: Mapping[str, Any]) -> str:
    return "".join(f"{one['score']:.4f} {one['label']}\n" for one in document["labels"])


def _span_lines(document: Mapping[str, Any]) -> str:
    return "".join(
        f"{one['start']}-{one['end']} {one['label']} {one['score']:.4f} {one['text']}\n"
        for one in document["spans"]
    )


def _mask_lines(document: Mapping[str, Any]) -> str:
    return "".join(
        f"{one['score']:.4f} {one['token']}: {one['text']}\n"
        for mask in document["masks"]
        for one in mask
    )


DOCUMENTS: Mapping[str, Callable[[Pipeline, str], dict[str, Any]]] = {
    "embed": _embedding, "classify": _labels, "tag": _spans, "fill_mask": _masks,
}  # fmt: skip
LINES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "embed": _embedding_lines, "classify": _label_lines, "tag": _span_lines,
    "fill_mask": _mask_lines,
}  # fmt: skip
