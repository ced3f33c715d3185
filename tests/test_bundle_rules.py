"""A hostile path and a manifest that breaks a rule are refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_bundle
from broken_bundle import WEIGHTS, Break, refusal, rewrite

from edgegen.bundle_rules import path_fault

HOSTILE_PATHS = {
    "/etc/passwd": "not relative",
    "//server/share": "not relative",
    "C:/x": "not relative",
    "c:x": "not relative",
    "../x": "leaves",
    "a/../../x": "leaves",
    "a\\b": "backslash",
    "a\0b": "NUL",
    "": "at least 1|>= 1",
    ".": "not a name",
    "a//b": "not a name",
    "a/": "not a name",
    "a/./b": "not a name",
    "ab:stream": "not a name",
    "con": "not a name",
    "a/NUL.txt": "not a name",
    "a. ": "not a name",
    "a.": "not a name",
    "caf\u00e9": "not a name",
    "a\nb": "not a name",
    "\u202ea": "not a name",
    "x" * 300: "not a name",
    "x/" * 400 + "x": "512",
    "Edgegen.JSON": "manifest itself",
}


@pytest.mark.parametrize("path", HOSTILE_PATHS, ids=ascii)
def test_a_path_that_could_leave_the_folder_is_refused(bundle: Path, path: str) -> None:
    rewrite(bundle, lambda m: m["files"][0].update(path=path))
    line = refusal(bundle, verify=False)
    assert any(said in line for said in HOSTILE_PATHS[path].split("|")), line


def test_paths_that_only_some_systems_tell_apart_are_refused(bundle: Path) -> None:
    rewrite(bundle, lambda m: m["files"].append({**m["files"][0]}))
    assert "listed twice" in refusal(bundle)

    def shout(said: dict[str, Any]) -> None:
        said["files"][-1]["path"] = said["files"][0]["path"].upper()

    rewrite(bundle, shout)
    assert "the same to some systems" in refusal(bundle)


def _set(*keys: Any, to: Any) -> Break:
    def change(said: Any) -> None:
        for key in keys[:-1]:
            said = said[key]
        said[keys[-1]] = to

    return change


VARIANT = ("components", "decode", "variants", 0)
PORT = (*VARIANT, "graph", "inputs", 0)
BREAKS: dict[str, tuple[Break, str]] = {
    "negative size": (_set("files", 0, "size", to=-1), ">= 0"),
    "size over 1 TiB": (_set("files", 0, "size", to=2**40 + 1), "<= 1099511627776"),
    "size of many digits": (_set("files", 0, "size", to=10**4000), "<= 1099511627776"),
    "size as a fraction": (_set("files", 0, "size", to=1.5), "Expected `int`"),
    "sizes summing over 1 TiB": (
        lambda m: [file.update(size=2**40) for file in m["files"]].clear(),
        "more than 1099511627776",
    ),
    "capitals in a hash": (_set("files", 0, "sha256", to="A" * 64), "matching regex"),
    "a hash with a line break": (_set("files", 0, "sha256", to="a" * 64 + "\n"), "sha256"),
    "no components": (_set("components", to={}), "length >= 1"),
    "a component without variants": (_set("components", "decode", "variants", to=[]), ">= 1"),
    "a graph that is not listed": (_set(*VARIANT, "file", to="graphs/x.onnx"), "not in files"),
    "weights that are not listed": (_set(*VARIANT, "weights", to=["w.bin"]), "not in files"),
    "weights elsewhere": (
        _set(*VARIANT, "weights", to=["tokenizers/source.json"]),
        "outside the folder",
    ),
    "a tokenizer that is not listed": (
        _set("tokenizers", "source", "path", to="t.json"),
        "not in files",
    ),
    "a tokenizer without a path": (_set("tokenizers", "source", "path", to=None), "has no path"),
    "an unknown type": (_set(*PORT, "dtype", to="object"), "unknown type"),
    "an absurd shape": (_set(*PORT, "shape", to=[2**30, 2**30]), "absurd shape"),
    "a zero that hides a shape": (_set(*PORT, "shape", to=[0, 2**62]), "absurd shape"),
    "a negative shape": (_set(*PORT, "shape", to=[-1]), "absurd shape"),
    "too many dimensions": (_set(*PORT, "shape", to=["B"] * 17), "17 dimensions"),
    "a dimension that is no name": (_set(*PORT, "shape", to=["B n"]), "no name or sum"),
    "a port without a name": (_set(*PORT, "name", to=""), "0 characters"),
    "a port named twice": (
        lambda m: m["components"]["decode"]["variants"][0]["graph"]["inputs"].append(
            m["components"]["decode"]["variants"][0]["graph"]["inputs"][0]
        ),
        "a port twice",
    ),
    "a cache of nothing": (_set(*VARIANT, "cache", to={"kind": "append"}), "without layers"),
    "edges that do not rise": (
        _set(*VARIANT, "cache", to={"kind": "stateful", "edges": [63, 31]}),
        "edges do not rise",
    ),
    "an edge before the first row": (
        _set(*VARIANT, "cache", to={"kind": "stateful", "edges": [0]}),
        ">= 1",
    ),
    "a cache over 1 TiB": (
        _set(
            *VARIANT,
            "cache",
            to={"kind": "in_place", "layers": 2**20, "heads": 2**20, "head_dim": 64},
        ),
        "more than 1099511627776",
    ),
    "a cache of enormous rows": (
        _set(*VARIANT, "cache", to={"kind": "stateful", "layers": 1, "head_dim": 2**20 * 5}),
        "<= 1048576",
    ),
    "a cache of very many layers": (
        _set(*VARIANT, "cache", to={"kind": "stateful", "layers": 2**19, "head_dim": 64}),
        "more than 4194304 numbers a position",
    ),
    "an absurd capacity": (_set(*VARIANT, "buckets", to={"capacity": 2**60}), "<= 16777216"),
    "an empty bucket": (_set(*VARIANT, "buckets", to={"capacity": 0}), ">= 1"),
    "absurd positions": (_set("generation", "max_positions", to=2**40), "<= 16777216"),
    "an id outside the vocabulary": (_set("generation", "end", to=[32]), "generation.end holds 32"),
    "a negative id": (_set("generation", "end", to=[-1]), ">= 0"),
    "a draft of nothing": (_set("drafts", 0, "component", to="heads"), "no component"),
    "an unknown field": (_set("generation", "temperature", to=1), "unknown field"),
    "an unknown field with an escape": (_set("\x1b[31m\nx", to=1), "unknown field"),
    "a task that is not": (_set("task", to="chess"), "Invalid enum value"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_manifest_that_breaks_a_rule_is_refused(bundle: Path, name: str) -> None:
    change, said = BREAKS[name]
    rewrite(bundle, change)
    assert said in refusal(bundle)


def test_all_faults_are_named_at_once(bundle: Path) -> None:
    rewrite(bundle, _set("tokenizers", "source", "path", to="t.json"))
    (bundle / WEIGHTS).write_bytes(b"short")
    (bundle / "graphs/onnx-int8/encode.onnx").unlink()
    line = refusal(bundle)
    for said in (
        "t.json, which is not in files",
        "5 bytes, expected 256",
        "encode.onnx is missing",
    ):
        assert said in line


def test_very_many_faults_are_counted(bundle: Path) -> None:
    extra = [{"path": f"f{i}", "sha256": "0" * 64, "size": 1} for i in range(10_001)]
    rewrite(bundle, lambda m: m["files"].extend(extra))
    assert "10005 files are listed" in refusal(bundle)
    assert "more." in refusal(bundle)


@pytest.mark.parametrize("path", [*tiny_bundle.CONTENT, "a", "A/b-c_d+e=f@1,2~3.x", "..a/b", ".a"])
def test_plain_names_are_paths(path: str) -> None:
    assert path_fault(path) is None
