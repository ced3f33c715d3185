"""The public names: complete, importable, and free of charge until used."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import edgegen

SOURCE = Path(__file__).resolve().parent.parent / "src" / "edgegen" / "__init__.py"
# What `import edgegen` must leave alone: each costs more than the whole budget of 60 ms.
HEAVY = {"numpy", "msgspec", "onnxruntime", "openvino", "tokenizers", "torch", "transformers"}


def names_for_type_checkers() -> dict[str, str]:
    """Name and module of each import under ``if TYPE_CHECKING``."""
    return {
        alias.asname or alias.name: str(node.module)
        for block in ast.parse(SOURCE.read_text(encoding="utf-8")).body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_the_listed_names_are_the_names_there_are() -> None:
    homes: dict[str, str] = vars(edgegen)["_HOMES"]
    assert sorted(edgegen.__all__) == sorted(homes)
    assert names_for_type_checkers() == homes


@pytest.mark.parametrize("name", edgegen.__all__)
def test_each_public_name_can_be_had(name: str) -> None:
    value = getattr(edgegen, name)
    assert value.__name__ == name
    assert value.__doc__


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = edgegen.lode


def test_importing_the_package_loads_no_library() -> None:
    code = "import sys, edgegen; print(*{name.split('.')[0] for name in sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert not HEAVY & set(result.stdout.split())


def test_a_bundle_is_looked_at_before_any_library_is_loaded(
    tiny_t5_bundle: Path, tmp_path: Path
) -> None:
    """Its weights are hashed while they are."""
    copy = tmp_path / "copy"
    shutil.copytree(tiny_t5_bundle, copy)
    graph = next((copy / "graphs").rglob("decode.onnx"))
    graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    code = (
        "import sys, edgegen\n"
        "try:\n"
        f"    edgegen.load({str(copy)!r})\n"
        "except edgegen.BundleError as error:\n"
        "    assert 'decode.onnx has sha256' in str(error)\n"
        "    print(*{name.split('.')[0] for name in sys.modules})\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "edgegen" in result.stdout.split()
    assert not {"numpy", "onnxruntime", "tokenizers"} & set(result.stdout.split())
