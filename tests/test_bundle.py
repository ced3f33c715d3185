"""A bundle reads as it was written; what is none, or newer, or altered is refused in one line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest
import tiny_bundle
from broken_bundle import WEIGHTS, refusal, rewrite

from edgegen.bundle import Bundle
from edgegen.bundle_rules import MANIFEST_NAME, MAX_MANIFEST_BYTES, read_manifest
from edgegen.errors import BundleError, UnknownName
from edgegen.manifest import json_schema

# Reading


def test_what_was_written_is_what_is_read(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    assert {file.path for file in opened.manifest.files} == set(tiny_bundle.CONTENT)
    for path, data in tiny_bundle.CONTENT.items():
        assert opened.file(path).read_bytes() == data
    assert opened.path == bundle
    assert opened.size == sum(p.stat().st_size for p in bundle.rglob("*") if p.is_file())
    assert opened.component("decode").variants[0].cache.kind == "append"


def test_only_listed_files_and_present_components_are_given_out(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    for path in (MANIFEST_NAME, "../b/edgegen.json", "graphs", "", "/etc/passwd"):
        with pytest.raises(BundleError, match="is not one of its files"):
            opened.file(path)
    with pytest.raises(UnknownName, match="decode, encode"):
        opened.component("decoder")


@pytest.mark.parametrize("depth", [10, 100_000])
def test_depth_bombs_are_refused(bundle: Path, depth: int) -> None:
    bomb = "[" * depth + "]" * depth
    (bundle / MANIFEST_NAME).write_text('{"x":' + bomb + ',"schema_version":"2.0"}')
    assert "unknown field" in refusal(bundle) or depth > 10
    (bundle / MANIFEST_NAME).write_text(bomb)
    refusal(bundle)


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"\xff\xfe", b'{"schema_version":"\\ud800"}', b'{"schema_version":"\xff"}'],
)
def test_what_is_not_json_is_refused(bundle: Path, data: bytes) -> None:
    (bundle / MANIFEST_NAME).write_bytes(data)
    assert "cannot be read" in refusal(bundle)


def test_a_manifest_over_the_cap_is_not_read(bundle: Path) -> None:
    with (bundle / MANIFEST_NAME).open("ab") as file:
        file.truncate(MAX_MANIFEST_BYTES + 1)
    assert "at most 16777216" in refusal(bundle)


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("3.0", "pip install -U edgegen"),
        ("1.0", "export the model anew"),
        ("1", "must look like"),
        ("1.0\n", "must look like"),
        ("1." + "9" * 9000, "must look like"),
        ("\u0661.0", "must look like"),
    ],
)
def test_unknown_majors_are_refused_with_a_way_out(bundle: Path, version: str, said: str) -> None:
    rewrite(bundle, lambda m: m.update(schema_version=version, future={"a": 1}))
    assert said in refusal(bundle)


def test_a_newer_minor_is_read_when_it_says_nothing_new(bundle: Path) -> None:
    rewrite(bundle, lambda m: m.update(schema_version="2.7"))
    assert Bundle.open(bundle).manifest.schema_version == "2.7"
    rewrite(bundle, lambda m: m.update(future=1))
    assert "version 2.7, newer than 2.0: pip install -U edgegen" in refusal(bundle)


def test_one_changed_bit_is_refused_by_verify_alone(bundle: Path) -> None:
    data = bytearray((bundle / WEIGHTS).read_bytes())
    data[100] ^= 1
    (bundle / WEIGHTS).write_bytes(data)
    assert f"{WEIGHTS} has sha256" in refusal(bundle)
    assert Bundle.open(bundle, verify=False).manifest.name == "tiny"


def test_large_files_are_hashed_too(tmp_path: Path) -> None:
    tiny_bundle.write(tmp_path / "b", content={WEIGHTS: bytes(3 * 2**20)})
    Bundle.open(tmp_path / "b")
    with (tmp_path / "b" / WEIGHTS).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    assert "damaged or altered" in refusal(tmp_path / "b")


@pytest.mark.parametrize("path", ["nothing", "b/edgegen.json", "b/graphs", "a\0b", "/"])
def test_what_is_no_bundle_folder_is_refused(bundle: Path, path: str) -> None:
    refusal(bundle.parent / path)


# The written spec


def test_the_published_schema_is_the_one_the_types_make(repository: Path) -> None:
    published = json.loads((repository / "docs/bundle.schema.json").read_bytes())
    assert published == json.loads(json.dumps(json_schema()))


def test_every_field_is_in_the_written_spec(repository: Path) -> None:
    spec = (repository / "docs/bundle.md").read_text(encoding="utf-8")
    fields = {
        field for kind in json_schema()["$defs"].values() for field in kind.get("properties", {})
    }
    assert len(fields) > 50
    assert [field for field in sorted(fields) if f"`{field}`" not in spec] == []


def test_the_manifest_reads_back_what_it_wrote() -> None:
    said = msgspec.structs.replace(tiny_bundle.manifest(), name='"\\\u00e9\U0001f600')
    assert read_manifest(said.to_json()) == said
