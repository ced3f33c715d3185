"""Tables of names: every entry can be had, and every file of a table's folder is in use."""

from __future__ import annotations

import ast
from importlib import import_module

import pytest
from source_tree import imported, module_of, product_files

from edgegen.errors import UnknownName
from edgegen.registry import Registry


def tables() -> list[tuple[str, str]]:
    """Module and name of every ``NAME = Registry(...)`` at the top of a product file."""
    found: list[tuple[str, str]] = []
    for path in product_files():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
            value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
            if isinstance(value, ast.Call) and "Registry" in ast.unparse(value.func):
                found += [(module_of(path), ast.unparse(target)) for target in targets]
    return found


TABLES = tables()


def table(module: str, name: str) -> Registry[object]:
    value = getattr(import_module(module), name)
    assert isinstance(value, Registry)
    return value


@pytest.mark.parametrize(("module", "name"), TABLES)
def test_every_entry_of_a_table_can_be_had(module: str, name: str) -> None:
    found = table(module, name)
    assert list(found), f"{module}:{name} is empty"
    for entry in found:
        assert found[entry] is not None


@pytest.mark.parametrize(("module", "name"), TABLES)
def test_a_name_a_table_does_not_have_is_answered_with_those_it_has(module: str, name: str) -> None:
    found = table(module, name)
    with pytest.raises(UnknownName) as caught:
        found["no such name"]
    assert all(entry in str(caught.value) for entry in found)
    assert "\n" not in str(caught.value)


def test_every_file_beside_a_table_entry_is_registered_or_used_by_another() -> None:
    registered = {
        place.partition(":")[0]
        for module, name in TABLES
        for place in table(module, name).entries.values()
    }
    names = {name for path in product_files() for _, name in imported(path)}
    names.add("edgegen.devices.fake")  # stands in for a device in tests
    used = names | {name.rpartition(".")[0] for name in names}
    folders = {module.rpartition(".")[0] for module in registered}
    idle = [
        module
        for path in product_files()
        if path.stem != "__init__"
        and (module := module_of(path)).rpartition(".")[0] in folders
        and module not in registered | used
    ]
    assert not idle, idle


def test_a_table_imports_nothing_until_asked() -> None:
    lazy: Registry[object] = Registry("thing", {"absent": "no.such.module:Thing"})
    assert list(lazy) == ["absent"]
    assert "absent" in lazy
    with pytest.raises(ModuleNotFoundError):
        lazy["absent"]


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    devices: Registry[object] = Registry("device", {"ort-cpu": "a:B", "ov-npu": "a:C"})
    with pytest.raises(UnknownName, match=r"unknown device 'ort-cpuu'; did you mean 'ort-cpu'\?"):
        devices["ort-cpuu"]
