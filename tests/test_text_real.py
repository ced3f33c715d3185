"""Real models say what the engine or library says that their weights came with.

The proofs are those of bench/text_proofs.py, which prints them in full.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgegen
from edgegen.runtime.options import GenerationOptions

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "bench"))
proofs: Any = import_module("text_proofs")
pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def texts() -> dict[str, list[str]]:
    """Two hundred sentences; the Portuguese ones are the engine's own translations of them."""
    english = proofs.sentences()
    engine = proofs.NativeEngine("en-pt")
    return {
        "en-pt": proofs.single(english),
        "pt-en": proofs.single([engine.translate(text) for text in english]),
    }


@pytest.mark.parametrize("direction", ["en-pt", "pt-en"])
def test_float32_translations_are_the_native_engine_s(
    direction: str, folder: Path, texts: dict[str, list[str]]
) -> None:
    """Both choose among the words of a sentence's shortlist."""
    proof = proofs.firefox(direction, "fp32", texts[direction], folder)
    assert proof.count >= 195
    assert proof.share >= 0.99, str(proof)
    assert all(abs(one.margin) <= 1e-3 * one.scale for one in proof.differences), str(proof)


@pytest.mark.parametrize("direction", ["en-pt", pytest.param("pt-en", marks=pytest.mark.slow)])
def test_without_its_shortlist_only_words_it_lacks_differ(
    direction: str, folder: Path, texts: dict[str, list[str]]
) -> None:
    proof = proofs.firefox(direction, "fp32", texts[direction], folder, restricted=False)
    assert proof.share >= 0.95, str(proof)
    assert all("not in the engine's shortlist" in one.reason for one in proof.differences)


@pytest.mark.parametrize("direction", ["en-pt", pytest.param("pt-en", marks=pytest.mark.slow)])
def test_eight_bit_translations_differ_only_where_two_words_nearly_tie(
    direction: str, folder: Path, texts: dict[str, list[str]]
) -> None:
    """The checkpoint's own eight bits are taken over; activations rounded to eight are ours, and
    move logits by 0.02 of their scale (the gate's figure)."""
    proof = proofs.firefox(direction, "int8", texts[direction], folder)
    assert proof.share >= 0.94, str(proof)
    assert all(abs(one.margin) <= 0.02 * one.scale for one in proof.differences), str(proof)


def test_a_table_of_32_000_words_read_in_4_bits_first_puts_the_same_word_on_top(
    folder: Path, texts: dict[str, list[str]]
) -> None:
    """Step by step along the whole table's own texts; where another comes first, two nearly tie."""
    said = ("pypi:firefox-en-pt", "int8", folder)
    steps = others = 0
    with (
        edgegen.load(proofs.bundle_of(*said), "ort-cpu") as whole,
        edgegen.load(proofs.bundle_of(*said, head="refined"), "ort-cpu") as refined,
    ):
        for text in texts["en-pt"][:80]:
            tokens = whole.generate(text, GenerationOptions(draft="none")).tokens
            full, found = (proofs.logits_along(one, text, tokens) for one in (whole, refined))
            first = full.argmax(-1)
            assert first.tolist() == list(tokens)
            steps += len(tokens)
            for row in np.flatnonzero(found.argmax(-1) != first):
                others += 1
                second = np.sort(full[row])[-2]
                assert full[row].max() - second <= 0.02 * np.abs(full[row]).max()
    assert steps > 800 and others <= 0.005 * steps


def test_a_small_chat_model_says_what_transformers_says(folder: Path) -> None:
    proof = proofs.against_transformers("pypi:smollm2-135m", proofs.PROMPTS[:5], folder, count=32)
    assert proof.share == 1, str(proof)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["pypi:smollm2-135m", "pypi:gemma3-270m"])
def test_continuations_are_transformers_token_for_token(model: str, folder: Path) -> None:
    """Twenty prompts, and one longer than Gemma's window."""
    texts = [*proofs.PROMPTS, proofs.long_prompt()]
    proof = proofs.against_transformers(model, texts, folder)
    assert proof.share == 1, str(proof)


def test_corrections_are_transformers_token_for_token(folder: Path) -> None:
    home = Path(os.environ.get("EDGEGEN_MODELS", ROOT.parent / "shared" / "models"))
    model = home / "proofread-t5"
    if not model.is_dir():
        pytest.skip(f"{model} is not here; EDGEGEN_MODELS names the folder that holds proofread-t5")
    texts = proofs.with_slips(proofs.sentences()[10:30])
    proof = proofs.against_transformers(str(model), texts, folder)
    assert proof.share == 1, str(proof)
