"""A bundle of a few hundred bytes that keeps every rule, for tests to write and to break."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgegen.bundle_writer import BundleWriter
from edgegen.graph import Graph, Port
from edgegen.manifest import (
    SCHEMA_VERSION,
    Cache,
    Component,
    DraftComponent,
    GenerationDefaults,
    Manifest,
    Parity,
    Precision,
    PromptParity,
    Provenance,
    Tokenizer,
    Variant,
)

CONTENT = {
    "graphs/onnx-int8/encode.onnx": b"encode graph",
    "graphs/onnx-int8/decode.onnx": b"decode graph",
    "graphs/onnx-int8/weights.bin": bytes(range(256)),
    "tokenizers/source.json": b"{}",
}


def graph(name: str) -> Graph:
    return Graph(
        name=name,
        inputs=(Port(name="tokens", dtype="int64", shape=("B", "n")),),
        outputs=(Port(name="logits", dtype="float32", shape=("B", "past+n", 32)),),
    )


def variant(name: str, cache: Cache | None = None) -> Variant:
    return Variant(
        format="onnx",
        precision=Precision(weight_format="int8", group_size=32, rows="rounding"),
        graph=graph(name),
        file=f"graphs/onnx-int8/{name}.onnx",
        weights=("graphs/onnx-int8/weights.bin",),
        cache=cache or Cache(kind="none"),
        buckets={"n": 8},
    )


def manifest() -> Manifest:
    """All of it but ``files``."""
    cache = Cache(kind="append", layers=2, heads=2, head_dim=4)
    return Manifest(
        schema_version=SCHEMA_VERSION,
        family="t5",
        model_type="t5",
        task="text2text-generation",
        name="tiny",
        parameters=1234,
        vocabulary=32,
        generation=GenerationDefaults(start=(0,), end=(1,), forced=((0, 5),)),
        tokenizers={"source": Tokenizer(kind="tokenizers", path="tokenizers/source.json")},
        components={
            "encode": Component(variants=(variant("encode"),)),
            "decode": Component(variants=(variant("decode", cache),)),
        },
        files=(),
        provenance=Provenance(
            source="local",
            kind="folder",
            revision="0" * 40,
            licence="Apache-2.0",
            created="2026-01-01T00:00:00Z",
            command="edgegen export local",
            versions={"edgegen": "0.1.0"},
        ),
        drafts=(
            DraftComponent(
                method="medusa",
                target_sha256="0" * 64,
                lossless="greedy-identical",
                component="decode",
            ),
        ),
        parity=(
            Parity(
                format="onnx",
                weight_format="int8",
                agreement=1.0,
                prompts=(PromptParity(prompt="a", tokens=3, agreement=1.0, error=0.001),),
            ),
        ),
    )


def write(path: Path, name: str = "tiny", content: dict[str, bytes] | None = None) -> Manifest:
    """Write the tiny bundle to ``path``; ``content`` adds files or replaces what is in them."""
    with BundleWriter(path) as writer:
        for relative, data in {**CONTENT, **(content or {})}.items():
            writer.add_file(relative, data)
        return writer.finish(msgspec.structs.replace(manifest(), name=name))
