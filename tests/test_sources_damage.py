"""Damaged and hostile files: every source answers with one CheckpointError line, or reads them."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from source_files import (
    ct2_bytes,
    ct2_int8,
    ct2_whisper,
    marian_bytes,
    marian_tensors,
    tokenizer_json,
    write_ct2,
    write_gguf,
    write_marian,
)
from tiny_pieces import spm_bytes

from edgegen.errors import CheckpointError
from edgegen.export.sources import load
from edgegen.export.sources.gguf_file import read_gguf
from edgegen.export.sources.sentencepiece_file import parsed_vocabulary

torch = pytest.importorskip("torch")
FLIPS = 400

Folder = tuple[Path, Path]  # what to load, the file to damage


@pytest.fixture
def ct2(tmp_path: Path) -> Folder:
    folder = write_ct2(tmp_path / "ct2", ct2_int8(ct2_whisper()))
    return folder, folder / "model.bin"


@pytest.fixture
def marian(tmp_path: Path) -> Folder:
    folder = write_marian(tmp_path / "marian", spm_bytes())
    return folder, folder / "model.enpt.bin"


@pytest.fixture
def gguf(tmp_path: Path) -> Folder:
    path = write_gguf(tmp_path / "model.gguf", "gemma3")
    return path, path


@pytest.fixture
def safetensors(tmp_path: Path) -> Folder:
    from safetensors.numpy import save_file

    folder = tmp_path / "local"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "t5"}')
    (folder / "tokenizer.json").write_text(tokenizer_json())
    save_file(
        {"a": np.ones((3, 4), np.float32), "b": np.ones(5, np.float16)},
        folder / "model.safetensors",
    )
    return folder, folder / "model.safetensors"


@pytest.fixture
def damaged(request: pytest.FixtureRequest) -> Folder:
    found: Folder = request.getfixturevalue(request.param)
    return found


FORMATS = pytest.mark.parametrize(
    "damaged", ["ct2", "marian", "gguf", "safetensors"], indirect=True
)


def answer(model: Path) -> str | None:
    """None if it loads and reads, else the one line said. Anything else is a failure."""
    try:
        checkpoint = load(str(model))
    except CheckpointError as error:
        said = str(error)
        assert said and "\n" not in said and len(said) < 1200
        return said
    with np.errstate(all="ignore"):  # flipped scales may be infinite; they are still numbers
        for weight in checkpoint.weights.values():
            assert weight.read().shape == weight.shape
    return None


@FORMATS
def test_a_file_cut_anywhere_is_said_to_be_damaged(damaged: Folder) -> None:
    model, path = damaged
    whole = path.read_bytes()
    assert answer(model) is None
    starts = range(0, min(len(whole), 600), 7)
    later: Iterable[int] = (
        np.linspace(600, len(whole) - 1, 60).astype(int) if len(whole) > 600 else []
    )
    for length in [*starts, *later, len(whole) - 1]:
        path.write_bytes(whole[:length])
        said = answer(model)
        assert said is not None, f"cut to {length} of {len(whole)} bytes and read"
        assert path.name in said or path.parent.name in said


@FORMATS
def test_flipped_bytes_end_in_a_line_or_in_a_model(damaged: Folder) -> None:
    model, path = damaged
    whole = path.read_bytes()
    random = np.random.default_rng(7)
    refused = 0
    for i in range(FLIPS):
        # Half of them among the first bytes, where the counts and lengths are.
        end = min(len(whole), 256) if i % 2 else min(len(whole), 20_000)
        broken = bytearray(whole)
        for at in random.integers(0, end, 1 + i % 3):
            broken[at] = random.integers(0, 256)
        path.write_bytes(broken)
        refused += answer(model) is not None
    assert refused > FLIPS // 10


@FORMATS
@pytest.mark.parametrize("junk", [b"", b"\0" * 64, b"\xff" * 4096, b"not a model at all\n" * 9])
def test_junk_is_refused(damaged: Folder, junk: bytes) -> None:
    model, path = damaged
    path.write_bytes(junk)
    assert answer(model) is not None


@FORMATS
def test_a_missing_file_is_named(damaged: Folder) -> None:
    model, path = damaged
    path.unlink()
    assert answer(model) is not None


HUGE = (2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)


@pytest.mark.parametrize("count", HUGE)
def test_hostile_counts_allocate_nothing(count: int, marian: Folder, gguf: Folder) -> None:
    model, path = marian
    whole = path.read_bytes()
    for at in (8, 16, 32, 40):  # tensors; the first header's name, axes and data
        path.write_bytes(whole[:at] + struct.pack("<Q", count) + whole[at + 8 :])
        assert answer(model) is not None
    model, path = gguf
    whole = path.read_bytes()
    for at in (8, 16, 24):  # tensors, metadata entries, the first key's length
        path.write_bytes(whole[:at] + struct.pack("<Q", count) + whole[at + 8 :])
        assert answer(model) is not None


def test_other_versions_are_named(ct2: Folder, marian: Folder) -> None:
    ct2[1].write_bytes(ct2_bytes(ct2_whisper(), version=5))
    assert "version 5, expected 6" in str(answer(ct2[0]))
    marian[1].write_bytes(marian_bytes(marian_tensors(48), version=2))
    assert "version 2, expected 1" in str(answer(marian[0]))


def test_gguf_lists_in_lists_are_refused_without_recursion(tmp_path: Path) -> None:
    key = struct.pack("<Q", 1) + b"k"
    nested = struct.pack("<IIQ", 9, 9, 1) * 5000
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + nested
    with pytest.raises(CheckpointError, match="list of value type 9"):
        read_gguf(tmp_path / "x.gguf", memoryview(data))


@pytest.mark.parametrize("kind", ["Q8_1", "Q8_K"])
def test_number_formats_without_arithmetic_are_named(gguf: Folder, kind: str) -> None:
    import gguf as library

    path = gguf[1]
    whole, name = path.read_bytes(), b"token_embd.weight"
    at = whole.index(name) + len(name) + 4 + 2 * 8  # behind the number of axes and both sizes
    number = struct.pack("<I", int(library.GGMLQuantizationType[kind]))
    # Q8_K's rows are whole blocks of 256 then, and there are as many numbers as before.
    sizes = struct.pack("<QQ", 64 * 4, 300 // 4) if kind == "Q8_K" else whole[at - 16 : at]
    path.write_bytes(whole[: at - 16] + sizes + number + whole[at + 4 :])
    assert f"'token_embd.weight' is in {kind}, which" in str(answer(path))


def test_gguf_scaled_positions_are_refused_not_ignored(tmp_path: Path) -> None:
    import gguf as library

    path = tmp_path / "scaled.gguf"
    writer = library.GGUFWriter(path, "llama")
    writer.add_rope_scaling_type(library.RopeScalingType.LINEAR)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert "positions are scaled ('linear')" in str(answer(path))


# The files beside the weights --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000, b"{}"])
def test_broken_json_is_one_line(safetensors: Folder, name: str, content: bytes) -> None:
    folder, _ = safetensors
    (folder / name).write_bytes(content)
    said = answer(folder)
    assert said is None if (name, content) == ("config.json", b"{}") else name in str(said)


@pytest.mark.parametrize(
    "hints",
    [
        {"suppress_ids": "all"},
        {"suppress_ids": [1, 10**9]},
        {"suppress_ids_begin": [-1]},
        {"alignment_heads": [[0]]},
        {"alignment_heads": [[9, 9]]},
        {"alignment_heads": 3},
    ],
)
def test_ctranslate2_hints_that_do_not_fit_are_refused(ct2: Folder, hints: object) -> None:
    (ct2[0] / "config.json").write_text(json.dumps(hints))
    assert "config.json's" in str(answer(ct2[0]))


def test_a_tokenizer_of_another_model_is_refused(ct2: Folder) -> None:
    (ct2[0] / "tokenizer.json").write_text(tokenizer_json())
    assert "'<|startoftranscript|>'" in str(answer(ct2[0]))


def test_a_damaged_vocabulary_ends_in_a_line_or_in_a_tokenizer(marian: Folder) -> None:
    folder, _ = marian
    path = folder / "vocab.enpt.spm"
    whole = path.read_bytes()
    random = np.random.default_rng(3)
    refused = 0
    for _ in range(300):
        broken = bytearray(whole)
        for at in random.integers(0, 1500, 4):
            broken[at] = random.integers(0, 256)
        path.write_bytes(broken)
        refused += answer(folder) is not None
    assert refused > 0


def test_a_vocabulary_that_marks_spaces_behind_words_is_refused(marian: Folder) -> None:
    path = marian[0] / "vocab.enpt.spm"
    proto = parsed_vocabulary(path)
    proto.trainer_spec.treat_whitespace_as_suffix = True
    path.write_bytes(proto.SerializeToString())
    assert "its spaces do not stand as" in str(answer(marian[0]))


def test_a_vocabulary_larger_than_the_model_is_refused(marian: Folder) -> None:
    marian[1].write_bytes(marian_bytes(marian_tensors(20)))
    assert "pieces, the model 20" in str(answer(marian[0]))


def test_a_marian_model_without_its_vocabulary_is_refused(marian: Folder) -> None:
    folder, path = marian
    (folder / "vocab.enpt.spm").unlink()
    assert "vocabulary" in str(answer(path))
    (folder / "vocab.enpt.spm").write_bytes(b"junk")
    assert "SentencePiece" in str(answer(folder))


def test_shards_outside_the_folder_and_missing_ones_are_refused(safetensors: Folder) -> None:
    folder, path = safetensors
    path.rename(folder.parent / "outside.safetensors")
    index = folder / "model.safetensors.index.json"
    for shard, said in (("../outside.safetensors", "outside the folder"), ("x", "missing: x")):
        index.write_text(json.dumps({"weight_map": {"a": shard}}))
        assert said in str(answer(folder))
    for content in ({}, {"weight_map": 3}, {"weight_map": {"a": 3}}):
        index.write_text(json.dumps(content))
        assert "weight_map" in str(answer(folder))


class Bomb:
    """Unpickles by calling a function of the file's choosing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("kind", ["archive", "legacy", "bare"])
def test_a_pickle_runs_no_code(safetensors: Folder, kind: str) -> None:
    folder, path = safetensors
    path.unlink()
    bomb: object = {"a": Bomb(folder / "touched")}
    target = folder / "pytorch_model.bin"
    if kind == "bare":
        target.write_bytes(pickle.dumps(bomb))
    else:
        torch.save(bomb, target, _use_new_zipfile_serialization=kind == "archive")
    assert "pytorch_model.bin" in str(answer(folder))
    assert not (folder / "touched").exists()
