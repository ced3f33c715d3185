"""What is in a bundle, as data for programs and as tables for people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import msgspec

from edgegen.bundle import Bundle
from edgegen.manifest import Encoding, Manifest, Parity, Precision, Variant, held_as
from edgegen.untrusted import shown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

LONGEST_WORD = 14


def describe(bundle: Bundle) -> dict[str, Any]:
    """Everything ``show`` prints, as JSON values; sizes in bytes.

    The manifest's own records are given as they are written; docs/bundle.md explains their fields.
    """
    manifest = bundle.manifest
    return {
        "path": str(bundle.path),
        "schema_version": manifest.schema_version,
        "name": manifest.name,
        "family": manifest.family,
        "model_type": manifest.model_type,
        "task": manifest.task,
        "parameters": manifest.parameters,
        "vocabulary": manifest.vocabulary,
        "size_on_disk_bytes": bundle.size,
        "licence": manifest.provenance.licence,
        "generation": msgspec.to_builtins(manifest.generation),
        "tokenizers": msgspec.to_builtins(manifest.tokenizers),
        "speech": msgspec.to_builtins(manifest.speech),
        "translation": msgspec.to_builtins(manifest.translation),
        "infill": msgspec.to_builtins(manifest.infill),
        "conditions": msgspec.to_builtins(manifest.conditions),
        "encoding": msgspec.to_builtins(manifest.encoding),
        "image": msgspec.to_builtins(manifest.image),
        "has_chat_template": manifest.chat is not None,
        "components": {
            name: [_variant(manifest, variant) for variant in component.variants]
            for name, component in manifest.components.items()
        },
        "drafts": msgspec.to_builtins(manifest.drafts),
        "parity": msgspec.to_builtins(manifest.parity),
        "provenance": msgspec.to_builtins(manifest.provenance),
    }


def _variant(manifest: Manifest, variant: Variant) -> dict[str, Any]:
    sizes = {file.path: file.size for file in manifest.files}
    return {
        "format": variant.format,
        "lowering": variant.lowering,
        "file": variant.file,
        "file_bytes": sizes[variant.file],
        "weights": list(variant.weights),
        # Often shared with other variants, so these do not add up to the size on disk.
        "weights_bytes": sum(sizes[path] for path in set(variant.weights)),
        "precision": msgspec.to_builtins(variant.precision),
        "cache": msgspec.to_builtins(variant.cache),
        "buckets": dict(variant.buckets),
        "settings": dict(variant.settings),
        "inputs": [str(port) for port in variant.graph.inputs],
        "outputs": [str(port) for port in variant.graph.outputs],
    }


def show(bundle: Bundle, console: Console) -> None:
    """Print ``bundle`` on ``console``: the model, its variants, parity, special ids, provenance.

    Text from the manifest is escaped: it may hold what a terminal or rich's markup would obey.
    """
    manifest = bundle.manifest
    tables = [
        _facts(shown(manifest.name), _model_facts(bundle)),
        _variant_table(manifest),
        _parity_table(manifest.parity),
        *([_draft_table(manifest)] if manifest.drafts else []),
        _facts("Special ids", _id_facts(manifest)),
        _facts("Provenance", _provenance_facts(manifest)),
    ]
    for table in tables:
        _print(table, console)


def _model_facts(bundle: Bundle) -> Iterator[tuple[str, str]]:
    manifest = bundle.manifest
    kind = manifest.model_type
    yield "family", manifest.family if kind == manifest.family else f"{manifest.family} ({kind})"
    yield "task", manifest.task
    yield "size on disk", size_text(bundle.size)
    yield "parameters", count_text(manifest.parameters)
    yield "vocabulary", f"{manifest.vocabulary:,}"
    yield "tokenizers", ", ".join(f"{n}: {t.kind}" for n, t in manifest.tokenizers.items())
    if manifest.encoding is not None:
        yield "encoding", _encoding_text(manifest.encoding)
    if manifest.speech is not None:
        seconds = manifest.speech.window_samples / manifest.speech.sample_rate
        languages = len(manifest.speech.languages) or 1
        yield "speech", f"windows of {seconds:g} s, {languages} language{'s'[: languages > 1]}"
    if (image := manifest.image) is not None:
        yield "pictures", f"{image.height} x {image.width} pixels"
    yield "licence", manifest.provenance.licence


def _encoding_text(encoding: Encoding) -> str:
    parts = [f"{encoding.width} wide"]
    if encoding.pooling != "none":
        parts.append(f"{encoding.pooling} of tokens" + ", length 1" * encoding.unit)
    if encoding.labels:
        parts.append(f"{len(encoding.labels)} classes")
    return ", ".join(parts)


def _variant_table(manifest: Manifest) -> Table:
    table = _table("Graphs", "component", "variant", "rows", "cache", "shapes", "files")
    for name, component in manifest.components.items():
        for variant in component.variants:
            said = _variant(manifest, variant)
            _row(
                table,
                name,
                f"{variant.format} {variant.lowering} {_precision_text(variant.precision)}",
                "exact" if variant.precision.rows == "bit" else "to rounding",
                variant.cache.kind + " int8" * (variant.cache.held == "int8"),
                " ".join(f"{dim}={size}" for dim, size in variant.buckets.items()) or "dynamic",
                _files_text(variant, said["file_bytes"], said["weights_bytes"]),
            )
    return table


def _precision_text(precision: Precision) -> str:
    """``int8/128, memory int8``: weights in blocks of 128."""
    weights = precision.weight_format
    blocks = f"/{precision.group_size}" if precision.group_size else ""
    return weights + blocks + held_as(precision).removeprefix(weights)


def _files_text(variant: Variant, graph: int, weights: int) -> str:
    names = ", ".join(sorted({PurePosixPath(path).name for path in variant.weights}))
    return size_text(graph) + (f", {size_text(weights)} {names}" if names else "")


def _parity_table(parity: tuple[Parity, ...]) -> Table:
    table = _table(
        "Parity with the checkpoint", "variant", "agreement", "logit error", "rows error", "prompts"
    )
    for found in parity:
        variant = f"{found.format} {held_as(found)}"
        if found.skipped:
            _row(table, variant, "not measured", "-", "-", "-")
            continue
        numbers = (f"{found.agreement:.2%}", f"{found.max_error:.2e}", f"{found.rows_error:.2e}")
        _row(table, variant, *numbers, str(len(found.prompts)))
    if not parity:
        _row(table, "-", "not measured", "-", "-", "-")
    return table


def _draft_table(manifest: Manifest) -> Table:
    table = _table("Drafts", "method", "promise", "component", "target")
    for draft in manifest.drafts:
        target = draft.target_sha256[:12]
        _row(table, draft.method, draft.lossless, draft.component, target)
    return table


def _id_facts(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Ids that are set; long lists by their length."""
    generation = manifest.generation
    yield "start", _ids(generation.start)
    yield "end", _ids(generation.end)
    yield "pad", str(generation.pad)
    for name in ("source_prefix", "source_suffix", "suppress", "suppress_at_start"):
        if ids := getattr(generation, name):
            yield name.replace("_", " "), _ids(ids)
    if generation.forced:
        yield "forced", ", ".join(f"{token} at {index}" for index, token in generation.forced)
    yield "max source", str(generation.max_source or "no limit")
    yield "max positions", str(generation.max_positions or "no limit")


def _ids(ids: tuple[int, ...]) -> str:
    listed = ", ".join(map(str, ids[:8])) or "none"
    return listed if len(ids) <= 8 else f"{listed}, ... {len(ids)} in all"


def _provenance_facts(manifest: Manifest) -> Iterator[tuple[str, str]]:
    origin = manifest.provenance
    yield "source", f"{origin.source} ({origin.kind})"
    yield "revision", origin.revision
    yield "created", origin.created
    yield "command", origin.command
    yield "versions", ", ".join(f"{name} {version}" for name, version in origin.versions.items())
    for note in origin.notes:
        yield "note", note


def _facts(title: str, facts: Iterator[tuple[str, str]]) -> Table:
    table = _table(title, "", "")
    table.show_header = False
    for name, value in facts:
        _row(table, name, value or "-")
    return table


def _table(title: str, *headings: str) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True
    )
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _row(table: Table, *cells: str) -> None:
    from rich.text import Text

    table.add_row(*(Text(shown(cell, limit=2000)) for cell in cells))


def _print(table: Table, console: Console) -> None:
    """Words stay whole where the terminal has room for them, but for very long ones."""
    from rich.measure import Measurement

    for column in table.columns:
        words = f"{column.header} {' '.join(map(str, column.cells))}".split()
        column.min_width = min(max(map(len, words), default=0), LONGEST_WORD)
    if Measurement.get(console, console.options, table).minimum > console.width:
        for column in table.columns:
            column.min_width = None
    console.print(table)


def size_text(size: int) -> str:
    """Bytes for people, in powers of 1000: ``37.4 MB``."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.1f} {unit}" if unit != "B" else f"{size} B"
        value /= 1000
    return f"{value:.1f} TB"


def count_text(count: int) -> str:
    """A count for people: ``37.8 M``."""
    value = float(count)
    for unit in ("", " k", " M", " G"):
        if value < 1000:
            return f"{value:.1f}{unit}" if unit else str(count)
        value /= 1000
    return f"{value:.1f} T"
