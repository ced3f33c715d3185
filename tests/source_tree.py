"""The package's source tree as the structure tests read it: files, module names, imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "src" / "edgegen"
COMMANDS = CORE / "commands"
MAPPED = ("devices", "export", "profiles", "runtime")


def product_files() -> list[Path]:
    """Every Python file of the package, each once, at its real place."""
    core = sorted(CORE.glob("*.py")) + sorted(COMMANDS.glob("*.py"))
    return core + [path for name in MAPPED for path in sorted((ROOT / name).rglob("*.py"))]


def folder_of(path: Path) -> str:
    """The folder a product file belongs to; "core" is src/edgegen itself."""
    if path.parent == COMMANDS:
        return "commands"
    return "core" if path.parent == CORE else path.relative_to(ROOT).parts[0]


def module_of(path: Path) -> str:
    """The import name of a product file."""
    inside = path.relative_to(CORE if path.is_relative_to(CORE) else ROOT).with_suffix("")
    parts = [part for part in inside.parts if part != "__init__"]
    return ".".join(["edgegen", *parts])


def package_of(path: Path) -> str:
    """What relative imports in a product file start from."""
    return module_of(path) if path.stem == "__init__" else module_of(path).rpartition(".")[0]


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of each import anywhere in a file, relative ones resolved."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"
        elif isinstance(node, ast.ImportFrom):
            package = package_of(path).split(".")
            above = package[: len(package) - node.level + 1]
            for alias in node.names:
                yield node.lineno, ".".join([*above, *filter(None, [node.module]), alias.name])
