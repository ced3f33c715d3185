"""Whatever the bytes of a bundle are, opening it gives a bundle or ``BundleError``."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_bundle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgegen.bundle import Bundle
from edgegen.bundle_rules import MANIFEST_NAME
from edgegen.errors import BundleError

TREE_MUTATIONS = 14_000
BYTE_MUTATIONS = 8_000
FILE_MUTATIONS = 2_000
HYPOTHESIS_EXAMPLES = 600

Json = Any
NASTY: list[Json] = [
    *(
        None,
        True,
        False,
        "",
        "\0",
        "..",
        "/",
        "\\",
        "\ud800",
        "\U0001f600",
        "C:\\x",
        "edgegen.json",
    ),
    *("../../etc/passwd", "/etc/passwd", "a/../b", "x" * 70_000, "\x1b[2J\n", "{}", "1.0", "9.0"),
    *(0, -1, 1, 2**31, 2**40, 2**63, 2**64, -(2**63), 10**400, 0.5, -0.0, 1e308, float("inf")),
    *(float("nan"), [], {}, [[]], {"": {}}, [None], list(range(100)), ["B", -1, "past+n", 2**70]),
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "b"
    tiny_bundle.write(path)
    return path


@pytest.fixture(scope="module")
def said(bundle: Path) -> bytes:
    return (bundle / MANIFEST_NAME).read_bytes()


@pytest.fixture(autouse=True)
def whole(bundle: Path, said: bytes) -> Iterator[None]:
    yield
    (bundle / MANIFEST_NAME).write_bytes(said)


def opened(bundle: Path, data: bytes) -> bool:
    """Whether the bundle opens with ``data`` as its manifest, by the rules if it does."""
    (bundle / MANIFEST_NAME).write_bytes(data)
    return keeps_the_rules(bundle)


def keeps_the_rules(bundle: Path) -> bool:
    try:
        found = Bundle.open(bundle)
    except BundleError as fault:
        assert str(fault).isprintable()
        assert len(str(fault)) < 16_384
        return False
    root = os.path.realpath(bundle)
    for file in found.manifest.files:
        place = os.path.realpath(found.file(file.path))
        assert place.startswith(root + os.sep)
        assert os.path.getsize(place) == file.size
    assert all(component.variants for component in found.manifest.components.values())
    return True


def spots(node: Json) -> list[tuple[Json, Json]]:
    """Every (container, key) in a JSON value."""
    found: list[tuple[Json, Json]] = []
    keys = node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in keys:
        found.append((node, key))
        found += spots(node[key])
    return found


def mutate_tree(value: Json, chance: random.Random) -> None:
    """One change somewhere in ``value``: replaced, deleted, renamed, doubled, nested or swapped."""
    places = spots(value)
    if not places:
        return
    node, key = chance.choice(places)
    kind = chance.randrange(7)
    if kind <= 1:
        node[key] = copy.deepcopy(chance.choice(NASTY))
    elif kind == 2:
        del node[key]
    elif kind == 3 and isinstance(node, dict):
        node[str(chance.choice(NASTY))] = node.pop(key)
    elif kind == 4 and isinstance(node, list):
        node.append(copy.deepcopy(node[key]))
    elif kind == 5:
        node[key] = {"x": node[key]} if chance.random() < 0.5 else [node[key]]
    else:
        other, spot = chance.choice(places)
        node[key] = copy.deepcopy(other[spot])


def mutate_bytes(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    at = chance.randrange(len(changed))
    kind = chance.randrange(5)
    if kind == 0:
        del changed[at:]
    elif kind == 1:
        changed[at] ^= 1 << chance.randrange(8)
    elif kind == 2:
        changed[at:at] = chance.choice([b"[", b"{", b'"', b"9" * 400, b"\xff", b"\\u", b"\0", b","])
    elif kind == 3:
        del changed[at : at + chance.randrange(1, 40)]
    else:
        changed[at:at] = changed[: chance.randrange(len(changed))]
    return bytes(changed)


def test_no_change_to_the_manifests_values_does_harm(bundle: Path, said: bytes) -> None:
    chance = random.Random(1)
    outcomes = [0, 0]
    for _ in range(TREE_MUTATIONS):
        value = json.loads(said)
        for _ in range(chance.choice([1, 1, 1, 2, 5])):
            mutate_tree(value, chance)
        data = json.dumps(value, ensure_ascii=chance.random() < 0.5).encode(errors="surrogatepass")
        outcomes[opened(bundle, data)] += 1
    assert min(outcomes) > TREE_MUTATIONS // 100  # both branches were tried in earnest


def test_no_change_to_the_manifests_bytes_does_harm(bundle: Path, said: bytes) -> None:
    chance = random.Random(2)
    outcomes = [0, 0]
    for _ in range(BYTE_MUTATIONS):
        data = said
        for _ in range(chance.choice([1, 1, 3])):
            data = mutate_bytes(data or b"{}", chance)
        outcomes[opened(bundle, data)] += 1
    assert min(outcomes) > BYTE_MUTATIONS // 100


def test_no_damage_to_a_file_goes_unseen(bundle: Path) -> None:
    chance = random.Random(3)
    for _ in range(FILE_MUTATIONS):
        place = bundle / chance.choice(sorted(tiny_bundle.CONTENT))
        data = place.read_bytes()
        damaged = mutate_bytes(data, chance)
        place.write_bytes(damaged)
        assert keeps_the_rules(bundle) == (damaged == data)
        place.write_bytes(data)
    assert keeps_the_rules(bundle)


def test_no_change_to_the_folders_entries_does_harm(bundle: Path, tmp_path: Path) -> None:
    chance = random.Random(4)
    outcomes = [0, 0]
    for _ in range(400):
        target = tmp_path / "b"
        shutil.copytree(bundle, target)
        for _ in range(chance.randrange(1, 4)):
            mutate_folder(target, chance)
        outcomes[keeps_the_rules(target)] += 1
        shutil.rmtree(target)
    assert min(outcomes) > 4


def mutate_folder(target: Path, chance: random.Random) -> None:
    """Remove an entry or put a file, folder, link or fifo at a place that is there or new."""
    places = sorted(path for path in target.rglob("*") if not path.is_symlink())
    graphs = target / "graphs"
    new = graphs if graphs.is_dir() and not graphs.is_symlink() else target
    place = chance.choice([*places, target / "extra", new / "extra"])
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
    kind = chance.randrange(5)
    if kind == 0:
        place.write_bytes(b"x" * chance.randrange(300))
    elif kind == 1:
        place.mkdir()
    elif kind == 2:
        place.symlink_to(chance.choice(["..", "/dev/zero", "loop", str(place), "edgegen.json"]))
    elif kind == 3 and hasattr(os, "mkfifo"):
        os.mkfifo(place)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(NASTY),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(
    max_examples=HYPOTHESIS_EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_no_value_anywhere_in_the_manifest_does_harm(
    bundle: Path, said: bytes, data: st.DataObject
) -> None:
    value = json.loads(said)
    places = spots(value)
    node, key = places[data.draw(st.integers(0, len(places) - 1))]
    node[key] = data.draw(json_values)
    opened(bundle, json.dumps(value).encode(errors="surrogatepass"))


@settings(max_examples=HYPOTHESIS_EXAMPLES, deadline=None)
@given(data=st.binary(max_size=2000))
def test_no_bytes_at_all_do_harm(bundle: Path, data: bytes) -> None:
    assert not opened(bundle, data)
