"""The laws of the repository: who may import whom, what is packaged, how long things may be."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from source_tree import (
    CORE,
    MAPPED,
    ROOT,
    folder_of,
    imported,
    module_of,
    package_of,
    product_files,
)

# A folder (key) imports only from the folders named. "core" is src/edgegen itself.
MAY_IMPORT = {
    "core": {"core"},
    "devices": {"core", "devices"},
    "export": {"core", "devices", "export"},
    "runtime": {"core", "devices", "runtime"},
    "profiles": {"core", "devices", "runtime", "profiles"},
    # The command line leads everywhere, and only cli.py leads to it.
    "commands": {"core", "commands", "devices", "export", "runtime", "profiles"},
}
# The two doors of the package lead everywhere: the public names and the command line.
DOORS = re.compile(r"__init__|__main__|cli")
EXPORT_LIBRARIES = {"torch", "transformers", "optimum"}

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60


def target_folder(name: str) -> str | None:
    """The folder an absolute import name leads to; None when it leaves the package."""
    parts = name.split(".")
    if parts[0] != "edgegen":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in (*MAPPED, "commands") else "core"


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def tracked(*patterns: str) -> list[Path]:
    """Files git knows, or all there are where the checkout has no git history."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *patterns], cwd=ROOT, capture_output=True, check=False
    )
    if listed.returncode == 0:
        names = [name for name in listed.stdout.decode().split("\0") if name]
        return [path for name in names if (path := ROOT / name).is_file()]
    return [path for pattern in patterns for path in ROOT.rglob(pattern) if path.is_file()]


def test_a_folder_imports_only_what_the_law_allows() -> None:
    faults: list[str] = []
    for path in product_files():
        folder = folder_of(path)
        if folder == "core" and DOORS.fullmatch(path.stem):
            continue
        for line, name in imported(path):
            target = target_folder(name)
            if target is not None and target not in MAY_IMPORT[folder]:
                faults.append(f"{where(path, line)} {folder} imports {name}")
    assert not faults, "\n".join(faults)


def test_imports_are_absolute_across_folders() -> None:
    faults: list[str] = []
    for path in product_files():
        depth = len(package_of(path).split(".")) - 1  # levels that stay inside the top folder
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level > max(depth, 1):
                faults.append(f"{where(path, node.lineno)} relative import leaves the folder")
    assert not faults, "\n".join(faults)


def test_the_device_side_names_no_export_library() -> None:
    faults = [
        f"{where(path, line)} imports {name}"
        for path in product_files()
        if folder_of(path) != "export"
        for line, name in imported(path)
        if name.split(".")[0] in EXPORT_LIBRARIES
    ]
    assert not faults, "\n".join(faults)


REFUSE = """
import importlib, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {refused!r}:
            raise ModuleNotFoundError(f"the device side asked for {{name}}", name=name)

sys.meta_path.insert(0, Refuse())
for name in {modules!r}:
    importlib.import_module(name)
loaded = sorted({refused!r} & set(sys.modules))
assert not loaded, loaded
"""


def test_the_device_side_runs_where_no_export_library_is_installed() -> None:
    modules = [
        module_of(path)
        for path in product_files()
        if folder_of(path) != "export" and path.stem != "__main__"
    ]
    code = REFUSE.format(refused=EXPORT_LIBRARIES, modules=modules)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_every_folder_with_code_is_packaged_and_nothing_else() -> None:
    listed: list[str] = setuptools_table()["packages"]
    found = {"edgegen"} | {module_of(path.parent / "__init__.py") for path in product_files()}
    assert set(listed) == found
    assert len(listed) == len(set(listed))


def test_every_data_file_is_packaged() -> None:
    patterns: dict[str, list[str]] = setuptools_table()["package-data"]
    homes = {"edgegen": CORE} | {f"edgegen.{name}": ROOT / name for name in MAPPED}
    packaged = {
        path
        for package, globs in patterns.items()
        for glob in globs
        for path in homes[package].glob(glob)
    }
    folders = ("src/edgegen", *MAPPED)
    data = {path for path in tracked(*folders) if path.suffix != ".py" and not path.is_symlink()}
    links = {CORE / name for name in MAPPED}  # plain files where the checkout has no links
    assert data - links <= packaged, sorted(str(path) for path in data - links - packaged)


@pytest.mark.parametrize("name", MAPPED)
def test_the_link_for_static_tools_leads_to_the_folder(name: str) -> None:
    link = CORE / name
    target = os.readlink(link) if link.is_symlink() else link.read_text(encoding="utf-8")
    assert target == f"../../{name}"
    assert (CORE / target).resolve() == (ROOT / name).resolve()
    assert (ROOT / name).is_dir()


def test_files_and_functions_stay_small() -> None:
    faults: list[str] = []
    for path in [*product_files(), *tracked("tests/*.py")]:
        lines = path.read_text(encoding="utf-8").count("\n")
        if lines > MAX_FILE_LINES:
            faults.append(f"{path.relative_to(ROOT)} has {lines} lines, at most {MAX_FILE_LINES}")
    for path in product_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                faults.append(f"{where(path, node.lineno)} {node.name} has {length} lines")
    assert not faults, "\n".join(faults)


def test_every_file_says_first_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in product_files()
        if path.read_text(encoding="utf-8").strip()
        and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not silent, silent


def test_no_file_names_a_folder_of_one_machine() -> None:
    absolute = re.compile(r"(?<![\w.\-}])/(?:work|tmp|root|home)/")
    files = tracked("*.md", "*.py", "*.toml", "*.txt", "Makefile", ".ci/*")
    faults = [
        f"{where(path, number)} {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if absolute.search(line)
    ]
    assert not faults, "\n".join(faults)


def setuptools_table() -> dict[str, Any]:
    """``[tool.setuptools]`` of pyproject.toml."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        found: dict[str, Any] = tomllib.load(file)["tool"]["setuptools"]
    return found
