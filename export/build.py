"""The export itself: checkpoint, graphs, parity, bundle."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from math import prod
from typing import Any

import msgspec

from edgegen.bundle_writer import BundleWriter
from edgegen.errors import ExportError
from edgegen.manifest import (
    SCHEMA_VERSION,
    Chat,
    Component,
    Manifest,
    Parity,
    Provenance,
    Tokenizer,
    Variant,
)
from edgegen.progress import Progress, unheard

from .checkpoint import Checkpoint, watched
from .encoder_parity import EncoderGate
from .families.base import Family, Task
from .families.decoding import with_rules
from .fitting import bound, fitting
from .options import ExportOptions
from .parity import Gate, one_each
from .sources import load
from .static_parity import check_static

VERSIONED = (
    "edgegen", "numpy", "onnx", "onnxruntime", "openvino", "nncf", "torch", "transformers",
    "optimum", "tokenizers",
)  # fmt: skip


def export(options: ExportOptions, progress: Progress | None = None) -> Manifest:
    """Write the bundle the options ask for; returns its manifest.

    ``progress`` is told each stage in words. Raises ``CheckpointError``, ``ExportError``,
    ``ParityError``; the folder is then as it was.
    """
    say = progress or unheard
    # The writer first: a folder that cannot be written is said before anything is downloaded.
    with BundleWriter(options.output) as writer:
        say(f"reading {options.model}")
        found = load(options.model, revision=options.revision, cache_dir=options.cache_dir)
        checkpoint, read = watched(found)
        name, family = bound(checkpoint)
        check_task(options, family)
        check_shortlist(options, family)
        read.clear()  # a family looks which tables are one
        written: list[dict[str, Variant]] = []
        for kind in options.formats:
            say(f"writing {kind} {options.weight_format} graphs")
            formatter: Any = import_module(f"edgegen.export.formats.{kind}")
            folder = writer.folder / "graphs" / f"{kind}-{options.weight_format}"
            with fitting(checkpoint):
                written.append(formatter.write(family, folder, options))
        parameters = parameters_of(checkpoint, read)
        tokenizers = add_tokenizers(checkpoint, writer)
        parity = gate(family, options, written, writer, say)
        say("sealing the bundle")
        manifest = manifest_of(name, family, options, written, tokenizers, parity)
        return writer.finish(msgspec.structs.replace(manifest, parameters=parameters))


def add_tokenizers(checkpoint: Checkpoint, writer: BundleWriter) -> dict[str, Tokenizer]:
    """Copy the tokenizers into the bundle; their records by role."""
    records: dict[str, Tokenizer] = {}
    for role, files in checkpoint.tokenizers.items():
        if files.kind == "bytes":
            records[role] = Tokenizer(kind="bytes", offset=files.offset)
        else:
            path, pieces = f"tokenizers/{role}.json", None
            writer.add_file(path, files.data)
            if files.vocabulary:
                pieces = f"tokenizers/{role}.vocabulary.json"
                writer.add_file(pieces, files.vocabulary)
            records[role] = Tokenizer(kind="tokenizers", path=path, vocabulary=pieces)
    return records


def check_task(options: ExportOptions, family: Family) -> None:
    """Choose the task: ``--task`` as optimum spells tasks must be one the checkpoint can do."""
    if options.task is None:
        return
    from optimum.exporters.tasks import TasksManager

    asked = options.task.removesuffix("-with-past")
    asked = TasksManager.map_from_synonym(asked)
    can: dict[str, Task] = {str(task): task for task in family.tasks}
    if asked not in can:
        raise ExportError(
            f"task {options.task!r}: this {family.checkpoint.model_type} model does "
            f"{' and '.join(can)}; leave --task out."
        )
    family.task = can[asked]


def check_shortlist(options: ExportOptions, family: Family) -> None:
    """Let a family choose among the words of its checkpoint's lexicon, where that is asked for."""
    if not options.shortlist:
        return
    if family.checkpoint.lexicon is None:
        raise ExportError(
            f"shortlist: this {family.checkpoint.model_type} model comes with none (Firefox's are "
            "lex.*.bin beside the model); leave --shortlist out."
        )
    family.lexicon = family.checkpoint.lexicon()


def gate(
    family: Family,
    options: ExportOptions,
    written: list[dict[str, Variant]],
    writer: BundleWriter,
    say: Progress,
) -> tuple[Parity, ...]:
    """Check every format; a decode graph whose rows were seen bit-equal is marked so."""
    if not options.parity:
        return tuple(
            Parity(
                format=kind,
                weight_format=options.weight_format,
                memory=options.memory,
                cache=options.kv_cache if kind == "onnx" else "fp32",
                head=options.head if kind == "onnx" else "full",
                skipped=True,
            )
            for kind in options.formats
        )
    say("computing the reference in torch")
    if family.encoding() is not None:
        alone = EncoderGate(family, options)
        return tuple(alone.check(writer.folder, variants["encode"]) for variants in written)
    against = Gate(family, options)
    results: list[Parity] = []
    for variants in written:
        say(f"checking {variants['decode'].format} against it")
        parts = {name: one for name, one in variants.items() if "+" not in name}
        fixed = {name: one for name, one in variants.items() if one.static}
        checks: list[Parity] = []
        for names in decoders(variants):
            parity = against.check(writer.folder, {**parts, "decode": variants[names[0]]})
            checks.append(parity)
            for name in names if parity.rows_error == 0 else ():
                precision = msgspec.structs.replace(variants[name].precision, rows="bit")
                variants[name] = msgspec.structs.replace(variants[name], precision=precision)
        if fixed:
            say(f"checking {len(fixed)} graphs of fixed sizes")
            checks.append(check_static(against, writer.folder, fixed))
        results += one_each(checks)
    return tuple(results)


def decoders(variants: Mapping[str, Variant]) -> list[list[str]]:
    """Names of the decode graphs of any size, those with the same cache together: a tap reads the
    logits and changes nothing before them."""
    alike: dict[str, list[str]] = {}
    for name, variant in variants.items():
        if name.partition("+")[0] == "decode" and not variant.static:
            alike.setdefault(variant.cache.kind, []).append(name)
    return list(alike.values())


def manifest_of(
    name: str,
    family: Family,
    options: ExportOptions,
    written: list[dict[str, Variant]],
    tokenizers: Mapping[str, Tokenizer],
    parity: tuple[Parity, ...],
) -> Manifest:
    checkpoint = family.checkpoint
    return Manifest(
        schema_version=SCHEMA_VERSION,
        family=name,
        model_type=checkpoint.model_type,
        task=family.task,
        name=options.output.name,
        parameters=parameters_of(checkpoint),
        vocabulary=family.shape.vocabulary,
        generation=with_rules(family.generation(), checkpoint),
        tokenizers=dict(tokenizers),
        components={name: component_of(name, written) for name in family.graph_names()},
        files=(),
        provenance=provenance_of(checkpoint, options),
        speech=family.speech(),
        image=family.image(),
        translation=family.translation(),
        infill=family.infill(),
        encoding=family.encoding(),
        chat=chat_of(checkpoint),
        parity=parity,
    )


def component_of(name: str, written: list[dict[str, Variant]]) -> Component:
    """All variants of a component: ``decode`` and ``decode+topk`` are one's."""
    return Component(
        variants=tuple(
            variant
            for variants in written
            for key, variant in variants.items()
            if key.partition("+")[0] == name
        )
    )


def parameters_of(checkpoint: Checkpoint, names: Collection[str] | None = None) -> int:
    """Numbers in those weights of the checkpoint, by default in all; tied tables once."""
    sizes = {name: prod(weight.shape) for name, weight in checkpoint.weights.items()}
    return sum(sizes[name] for name in (sizes if names is None else names))


def chat_of(checkpoint: Checkpoint) -> Chat | None:
    if checkpoint.chat_template is None:
        return None

    def text(key: str) -> str:
        found: Any = checkpoint.tokenizer_config.get(key) or ""
        return str(found.get("content", "")) if isinstance(found, Mapping) else str(found)

    return Chat(
        template=checkpoint.chat_template, bos_token=text("bos_token"), eos_token=text("eos_token")
    )


def provenance_of(checkpoint: Checkpoint, options: ExportOptions) -> Provenance:
    origin = checkpoint.origin
    versions: dict[str, str] = {}
    for package in VERSIONED:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return Provenance(
        source=origin.source,
        kind=origin.kind,
        revision=origin.revision,
        licence=origin.licence,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=options.command,
        versions=versions,
        notes=origin.notes,
    )
