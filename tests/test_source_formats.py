"""CTranslate2, Marian, GGUF: what a file says arrives under transformers' names, exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from source_files import (
    MARIAN_SETTINGS,
    PLAIN_GGUF,
    SPECIAL,
    WORDS,
    assert_same,
    ct2_bytes,
    ct2_int8,
    ct2_whisper,
    gguf_state,
    marian_bytes,
    marian_tensors,
    write_ct2,
    write_gguf,
    write_marian,
)

from edgegen.errors import CheckpointError
from edgegen.export.checkpoint import Checkpoint
from edgegen.export.sources import load
from edgegen.export.sources.gguf_blocks import FORMATS, blocks_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def assert_blocks_say_what_read_says(checkpoint: Checkpoint) -> int:
    quantised = [weight for weight in checkpoint.weights.values() if weight.blocks]
    for weight in quantised:
        assert weight.blocks is not None
        blocks = weight.blocks()
        rows, columns = weight.shape
        assert blocks.codes.shape == (rows, columns)
        assert blocks.scales.shape == blocks.zeros.shape == (rows, columns // blocks.block)
        assert int(blocks.codes.max()) < 1 << blocks.bits
        assert np.array_equal(blocks.dense(), weight.read())
    return len(quantised)


# CTranslate2 -------------------------------------------------------------------------------------


def assert_whisper_takes(checkpoint: Checkpoint) -> None:
    config = transformers.WhisperConfig(**checkpoint.config)
    model = transformers.WhisperForConditionalGeneration(config)
    state = {name: torch.from_numpy(w.read()) for name, w in checkpoint.weights.items()}
    outcome = model.load_state_dict(state, strict=False)
    assert (outcome.missing_keys, outcome.unexpected_keys) == (["proj_out.weight"], [])


def test_a_whisper_arrives_under_the_names_transformers_takes(tmp_path: Path) -> None:
    variables = ct2_whisper()
    checkpoint = load(str(write_ct2(tmp_path / "w", variables)))
    assert_whisper_takes(checkpoint)
    fused = variables["encoder/layer_1/self_attention/linear_0/weight"].astype(np.float32)
    for i, name in enumerate("qkv"):
        weight = checkpoint.weights[f"model.encoder.layers.1.self_attn.{name}_proj.weight"]
        assert np.array_equal(weight.read(), fused[8 * i : 8 * i + 8])
        assert weight.origin == "float16"
    cross = variables["decoder/layer_0/attention/linear_1/bias"].astype(np.float32)
    value = checkpoint.weights["model.decoder.layers.0.encoder_attn.v_proj.bias"]
    assert np.array_equal(value.read(), cross[8:])
    assert checkpoint.config["encoder_layers"] == 2
    assert checkpoint.config["decoder_layers"] == 1
    assert checkpoint.config["num_mel_bins"] == 4


def test_int8_rows_arrive_as_blocks_that_say_the_same(tmp_path: Path) -> None:
    variables = ct2_whisper()
    checkpoint = load(str(write_ct2(tmp_path / "w", ct2_int8(variables))))
    assert_whisper_takes(checkpoint)
    assert assert_blocks_say_what_read_says(checkpoint) == 2 * 6 + 10 + 1
    embedding = checkpoint.weights["model.decoder.embed_tokens.weight"]
    exact = variables["decoder/embeddings/weight"].astype(np.float32)
    largest = np.abs(exact).max(axis=1, keepdims=True)
    assert np.all(np.abs(embedding.read() - exact) <= largest / 127 * 0.5001)


def test_whisper_settings_come_from_the_tokenizers_own_tokens(tmp_path: Path) -> None:
    folder = write_ct2(tmp_path / "w", ct2_whisper(vocabulary=51_865))
    generation = load(str(folder)).generation
    ids = {token: len(WORDS) + i for i, token in enumerate(SPECIAL)}
    assert generation["is_multilingual"] is True
    assert generation["lang_to_id"] == {name: ids[name] for name in ("<|en|>", "<|pt|>")}
    assert generation["task_to_id"] == {
        "translate": ids["<|translate|>"],
        "transcribe": ids["<|transcribe|>"],
    }
    assert generation["no_timestamps_token_id"] == ids["<|notimestamps|>"]
    assert generation["decoder_start_token_id"] == ids["<|startoftranscript|>"]
    assert generation["eos_token_id"] == ids["<|endoftext|>"]
    assert generation["suppress_tokens"] == [1, 2]
    assert generation["begin_suppress_tokens"] == [3]
    assert generation["alignment_heads"] == [[0, 1]]
    assert generation["max_length"] == 10


def test_an_english_whisper_has_no_languages_whatever_its_tokenizer_holds(tmp_path: Path) -> None:
    generation = load(str(write_ct2(tmp_path / "w", ct2_whisper()))).generation
    assert generation["is_multilingual"] is False
    assert "lang_to_id" not in generation


def test_a_model_cut_into_parts_is_the_whole_model(tmp_path: Path) -> None:
    folder = write_ct2(tmp_path / "w", ct2_whisper())
    whole = load(str(folder))
    data = (folder / "model.bin").read_bytes()
    (folder / "model.bin").unlink()
    (folder / "model.bin.part1").write_bytes(data[:1000])
    (folder / "model.bin.part2").write_bytes(data[1000:])
    parts = load(str(folder))
    assert parts.origin.revision == whole.origin.revision
    for name, weight in whole.weights.items():
        assert np.array_equal(weight.read(), parts.weights[name].read())


def test_another_specification_is_named_and_refused(tmp_path: Path) -> None:
    folder = write_ct2(tmp_path / "w", ct2_whisper())
    (folder / "model.bin").write_bytes(ct2_bytes(ct2_whisper(), spec="TransformerSpec"))
    with pytest.raises(CheckpointError, match=r"'TransformerSpec'.*'WhisperSpec'"):
        load(str(folder))


def test_all_faults_of_the_weights_are_named_at_once(tmp_path: Path) -> None:
    variables = ct2_whisper()
    del variables["encoder/conv1/bias"]
    variables["encoder/conv2/bias"] = variables["encoder/conv2/bias"][:4]
    with pytest.raises(CheckpointError) as caught:
        load(str(write_ct2(tmp_path / "w", variables)))
    assert "model.encoder.conv1.bias is missing" in str(caught.value)
    assert "model.encoder.conv2.bias is [4], expected [8]" in str(caught.value)


# Marian ------------------------------------------------------------------------------------------


def test_marian_matrices_arrive_out_by_in_whether_quantised_or_not(
    tmp_path: Path, spm: bytes
) -> None:
    floats = load(str(write_marian(tmp_path / "f", spm, int8=False)))
    codes = load(str(write_marian(tmp_path / "q", spm, int8=True)))
    assert set(floats.weights) == set(codes.weights)
    assert assert_blocks_say_what_read_says(floats) == 0
    assert assert_blocks_say_what_read_says(codes) == 1 + 2 * 6 + 2 + 6
    for name, array in marian_tensors(48).items():
        vector = array.shape[0] == 1
        exact = array.reshape(-1) if vector else array if name == "Wemb" else array.T
        assert np.array_equal(floats.weights[name].read(), exact)
        step = 0.0 if vector else float(np.abs(array).max()) / 127
        assert np.all(np.abs(codes.weights[name].read() - exact) <= step * 0.5001)
    assert codes.weights["encoder_l1_ffn_W1"].shape == (16, 8)
    assert codes.weights["encoder_l1_ffn_W1"].origin == "intgemm8"


def test_a_marian_configuration_is_its_own_yaml_and_shapes(tmp_path: Path, spm: bytes) -> None:
    checkpoint = load(str(write_marian(tmp_path / "m", spm)))
    expected = {
        "model_type": "marian-ssru",
        "d_model": 8,
        "encoder_layers": 2,
        "decoder_layers": 1,
        "num_heads": 2,
        "ffn_dim": 16,
        "decoder_ffn_dim": 16,
        "vocab_size": 48,
        "eos_token_id": 0,
    }
    assert {key: checkpoint.config[key] for key in expected} == expected
    assert "QuantMultA" in checkpoint.origin.notes[0]
    assert not any("QuantMultA" in name for name in checkpoint.weights)


def test_a_converted_vocabulary_encodes_as_sentencepiece_and_adds_nothing(
    tmp_path: Path, spm: bytes
) -> None:
    import sentencepiece
    import tokenizers

    checkpoint = load(str(write_marian(tmp_path / "m", spm)))
    fast = tokenizers.Tokenizer.from_str(checkpoint.tokenizers["source"].data.decode())
    slow = sentencepiece.SentencePieceProcessor(model_proto=spm)
    for text in ["the cat sat .", "hello  two", "", "one", "the\tcat\u00a0sat"]:
        ids = slow.encode(text)
        assert fast.encode(text).ids == ids, text
        assert fast.decode(ids) == slow.decode(ids)
    for text in [" xyz ", "\ufb01 \u00bd"]:  # unknown letters, and letters that normalise
        assert fast.encode(text).ids == slow.encode(text), text


def test_another_marian_network_is_refused_with_every_reason(tmp_path: Path, spm: bytes) -> None:
    folder = write_marian(tmp_path / "m", spm)
    other = {**MARIAN_SETTINGS, "dec-cell": "gru", "transformer-preprocess": "n"}
    (folder / "model.enpt.bin").write_bytes(marian_bytes(marian_tensors(48), other))
    with pytest.raises(CheckpointError, match=r"dec-cell is 'gru'.*transformer-preprocess is 'n'"):
        load(str(folder))


# GGUF --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma2", "gemma3"])
def test_a_gguf_says_what_transformers_reads_from_it(architecture: str, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", architecture)
    checkpoint = load(str(path))
    config, state = gguf_state(path)
    assert_same(checkpoint.weights, state)
    assert assert_blocks_say_what_read_says(checkpoint) == 1 + 2 * 7
    theirs = config.to_dict()
    ours = transformers.AutoConfig.for_model(**checkpoint.config).to_dict()
    # transformers leaves qwen's key_length unread and takes its class's own head width
    assert ours.get("head_dim") == 16
    named = ["_name_or_path", "_model_name_or_path", "architectures"]
    named += ["head_dim"] if architecture.startswith("qwen") else []
    assert {k: v for k, v in ours.items() if k not in named} == {
        k: v for k, v in theirs.items() if k not in named
    }


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_number_formats_are_held_as_blocks_only_where_exact(kind: str, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", "llama", kind)
    checkpoint = load(str(path))
    assert_same(checkpoint.weights, gguf_state(path)[1])
    held = assert_blocks_say_what_read_says(checkpoint)
    assert held == (15 if kind in FORMATS else 0)
    plain = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    origin = checkpoint.weights["model.layers.0.mlp.up_proj.weight"].origin
    assert origin == plain.get(kind, kind)


@pytest.mark.parametrize("kind", list(PLAIN_GGUF))
def test_plain_numbers_that_the_gguf_package_leaves_out_are_read(kind: str, tmp_path: Path) -> None:
    checkpoint = load(str(write_gguf(tmp_path / "m.gguf", "qwen2", kind)))
    first = np.random.default_rng(0).standard_normal((300, 64)).astype(np.float32)
    table = checkpoint.weights["model.embed_tokens.weight"]
    assert np.array_equal(table.read(), np.rint(4 * first))
    assert table.origin == ("float64" if kind == "F64" else kind)


@pytest.mark.parametrize("kind", list(FORMATS))
def test_block_formats_unpack_any_bytes_as_the_reference_does(kind: str) -> None:
    import gguf

    number = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[number]
    random = np.random.default_rng(1)
    data = random.integers(0, 256, (6, 3, size), np.uint8)
    scale = slice(-2, None) if kind == "Q6_K" else slice(0, 2)
    halves = random.standard_normal((6, 3, 1)).astype(np.float16)
    data[..., scale] = halves.view(np.uint8)
    order = np.array([5, 0, 3, 1, 2, 4])
    flat = data.reshape(6, 3 * size)
    dense = gguf.quants.dequantize(flat, number)
    assert dense.shape == (6, 3 * block)
    assert np.array_equal(blocks_of(flat, kind, None).dense(), dense)
    assert np.array_equal(blocks_of(flat, kind, order).dense(), dense[order])


def test_a_gguf_carries_its_tokenizer_template_licence_and_both_ends(tmp_path: Path) -> None:
    import tokenizers

    path = write_gguf(tmp_path / "m.gguf", "llama")
    checkpoint = load(str(path.parent))  # the folder does as well as the file
    theirs = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    fast = tokenizers.Tokenizer.from_str(checkpoint.tokenizers["source"].data.decode())
    assert fast.encode("hello world").ids == theirs("hello world").input_ids
    assert checkpoint.chat_template == "{{ messages }}"
    assert checkpoint.origin.licence == "apache-2.0"
    assert checkpoint.generation["eos_token_id"] == [1, 2]
    assert checkpoint.tokenizer_config["bos_token"] == "<s>"


def test_a_number_by_layer_is_one_number_where_all_are_equal(tmp_path: Path) -> None:
    plain = load(str(write_gguf(tmp_path / "m.gguf", "llama"))).config
    listed = load(str(write_gguf(tmp_path / "l.gguf", "llama", key_heads=[2, 2]))).config
    assert listed == plain
    one = load(str(write_gguf(tmp_path / "o.gguf", "llama", key_heads=[2] * 5))).config
    assert one["num_key_value_heads"] == 2
    with pytest.raises(
        CheckpointError, match=r"llama.attention.head_count_kv differs .*\(2, 1\.\.\."
    ):
        load(str(write_gguf(tmp_path / "u.gguf", "llama", key_heads=[2, 1])))


@pytest.mark.parametrize(
    ("windows", "kinds"),
    [
        (None, ["sliding_attention", "sliding_attention"]),  # transformers' own: five of six
        (2, ["sliding_attention", "full_attention"]),
        ([False, True], ["full_attention", "sliding_attention"]),
    ],
)
def test_a_gguf_says_which_layers_see_a_window(
    windows: int | list[bool] | None, kinds: list[str], tmp_path: Path
) -> None:
    checkpoint = load(str(write_gguf(tmp_path / "m.gguf", "gemma3", windows=windows)))
    assert checkpoint.config["layer_types"] == kinds
    with pytest.raises(CheckpointError, match=r"sliding_window_pattern is \(True,"):
        load(str(write_gguf(tmp_path / "l.gguf", "gemma3", windows=[True] * 3)))


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_heads_that_turn_in_part_are_refused(architecture: str, tmp_path: Path) -> None:
    load(str(write_gguf(tmp_path / "whole.gguf", architecture, turned=16)))
    with pytest.raises(CheckpointError, match=r"rope.dimension_count is 8, .* whole width of 16"):
        load(str(write_gguf(tmp_path / "part.gguf", architecture, turned=8)))


def test_an_architecture_not_in_the_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'falcon'.*llama"):
        load(str(write_gguf(tmp_path / "m.gguf", "falcon")))
