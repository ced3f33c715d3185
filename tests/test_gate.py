"""The gate refuses graphs that are wrong where the tokens they choose do not show it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_modernbert
from checkpoint_folders import exported, write_folder
from tiny_families import CASES

import edgegen.export.quantisers.base as quantisers
from edgegen.errors import CheckpointError, ExportError, ParityError
from edgegen.export.checkpoint import Blocks
from edgegen.export.ops import attention, onnx_ops

LLAMA = CASES["llama-grouped"].make()
WORDS = tiny_modernbert.word_pieces()


def test_rows_that_come_out_otherwise_in_calls_of_several_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions of calls over several rows, off by one from the third row on: no step of plain
    decoding sees them."""
    kept = onnx_ops.OnnxOps.input

    def late(ops: onnx_ops.OnnxOps, name: str) -> Any:
        found = kept(ops, name)
        if name != "positions" or ops.graph.name != "decode":
            return found

        def made() -> Any:
            rows = ops.size(kept(ops, "tokens"), 1)
            many = ops.cast(ops.node("Greater", [rows, ops.constant(1, "int64")]), "int64")
            past = kept(ops, "past_length")
            behind = ops.cast(ops.node("Greater", [past, ops.constant(2, "int64")]), "int64")
            shift = ops.node("Mul", [many, behind])
            wide = ops.node("Unsqueeze", [shift, ops.constant([1], "int64")])
            return ops.node("Add", [found, wide])

        return ops.once("late", made)

    monkeypatch.setattr(onnx_ops.OnnxOps, "input", late)
    with pytest.raises(ParityError, match=r"fp32: rows of one call differ .* allowed 1e-04"):
        exported(write_folder(tmp_path / "llama", LLAMA))


def test_an_encoder_that_sees_its_padding_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seen(ops: Any) -> Any:
        mask = ops.scale(ops.input("source_mask"), 0.0)
        return ops.once("source_mask", lambda: ops.reshape(mask, (0, 1, 1, -1)))

    monkeypatch.setattr(attention.AttentionOps, "source_mask", seen)
    folder = write_folder(
        tmp_path / "encoder", tiny_modernbert.encoder("feature-extraction"), words=WORDS
    )
    with pytest.raises(ParityError, match="rows of one call differ"):
        exported(folder)


def test_a_classifier_of_one_logit_is_held_to_the_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The arg-max of one column says nothing."""
    one = tiny_modernbert.encoder("text-classification", id2label={0: "L"}, label2id={"L": 0})
    right = exported(write_folder(tmp_path / "right", one, words=WORDS), weight_format="int8")
    assert 0.9 < right.parity[0].agreement < 1.0
    kept = quantisers.round_to_nearest

    def garbled(matrix: Any, *given: Any) -> Blocks:
        found = kept(matrix, *given)
        return replace(found, codes=found.codes[::-1].copy(), scales=-3 * found.scales)

    monkeypatch.setattr(quantisers, "round_to_nearest", garbled)
    with pytest.raises(ParityError, match=r"answers as the checkpoint does at [0-9.]+%"):
        exported(write_folder(tmp_path / "wrong", one, words=WORDS), weight_format="int8")


def test_sixteen_bits_are_held_to_a_difference_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cap that is left out keeps every choice."""
    kept = onnx_ops.OnnxOps.head

    def uncapped(ops: Any, x: Any, table: str, bias: str | None = None, softcap: float = 0) -> None:
        kept(ops, x, table, bias)

    checkpoint = CASES["gemma3"].make(final_logit_softcapping=2.0)
    right = exported(write_folder(tmp_path / "right", checkpoint), weight_format="fp16")
    assert right.parity[0].max_error < 0.01
    monkeypatch.setattr(onnx_ops.OnnxOps, "head", uncapped)
    with pytest.raises(ParityError, match=r"fp16: outputs differ .* allowed 1e-01; use fp32"):
        exported(write_folder(tmp_path / "wrong", checkpoint), weight_format="fp16")


@pytest.mark.parametrize(
    "said",
    [
        {"padding": {"strategy": {"Fixed": 256}, "direction": "Right", "pad_id": 0}
         | {"pad_to_multiple_of": None, "pad_type_id": 0, "pad_token": "[PAD]"}},
        {"truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst"}
         | {"stride": 0}},
    ],
)  # fmt: skip
def test_prompts_are_cut_into_tokens_as_the_runtime_does(
    tmp_path: Path, said: dict[str, Any]
) -> None:
    """Whatever a tokenizer.json says of padding and of lengths."""
    words = replace(WORDS, data=json.dumps({**json.loads(WORDS.data), **said}).encode())
    checkpoint = tiny_modernbert.encoder("token-classification")
    found = exported(write_folder(tmp_path / "encoder", checkpoint, words=words))
    assert [prompt.tokens for prompt in found.parity[0].prompts] == [9, 4]


def test_prompts_that_the_checkpoint_cannot_read_are_named(tmp_path: Path) -> None:
    bart = write_folder(tmp_path / "bart", CASES["bart"].make())
    with pytest.raises(ExportError, match=r"has 902 tokens and the encoder takes \d+; shorten it"):
        exported(bart, prompts=("ban dun fist " * 300,))
    small = write_folder(tmp_path / "small", CASES["llama-grouped"].make(vocab_size=100))
    with pytest.raises(ExportError, match=r"gives id \d+ and the model's table has 100 rows"):
        exported(small)


def test_a_checkpoint_whose_outputs_are_no_numbers_is_named(tmp_path: Path) -> None:
    norm = LLAMA.weights["model.norm.weight"].read().copy()
    norm[0] = float("nan")
    import torch

    folder = write_folder(
        tmp_path / "nan", LLAMA, weights={"model.norm.weight": torch.from_numpy(norm)}
    )
    with pytest.raises(CheckpointError, match="its weights are damaged or overflow"):
        exported(folder)
