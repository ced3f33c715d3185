"""Tiny checkpoints in every format the sources read, written by the formats' own descriptions."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.export.checkpoint import Weight

Numbers = NDArray[Any]
CT2_TYPES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}
SPECIAL = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|pt|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nocaptions|>",
    "<|notimestamps|>",
)
WORDS = ("[UNK]", "hello", "world", "one", "two")


def tokenizer_json(special: tuple[str, ...] = ()) -> str:
    """A word-level tokenizer.json; special tokens follow the words."""
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    return tokenizer.to_str()


# CTranslate2 -------------------------------------------------------------------------------------


def ct2_bytes(
    variables: Mapping[str, Numbers], spec: str = "WhisperSpec", version: int = 6
) -> bytes:
    """A model.bin with one alias, as the real ones have."""
    out = BytesIO()

    def text(value: str) -> None:
        raw = value.encode() + b"\0"
        out.write(struct.pack("<H", len(raw)) + raw)

    out.write(struct.pack("<I", version))
    text(spec)
    out.write(struct.pack("<II", 3, len(variables)))
    for name, array in variables.items():
        text(name)
        out.write(struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape))
        out.write(struct.pack("<BI", CT2_TYPES[array.dtype.name], array.nbytes) + array.tobytes())
    out.write(struct.pack("<I", 1))
    text("decoder/projection/weight")
    text("decoder/embeddings/weight")
    return out.getvalue()


def ct2_whisper(vocabulary: int = 20, width: int = 8, seed: int = 0) -> dict[str, Numbers]:
    """Variables of a Whisper with 2 encoder layers, 1 decoder layer, 2 heads, 4 mels."""
    random = np.random.default_rng(seed)
    table: dict[str, Numbers] = {}

    def put(name: str, *shape: int) -> None:
        table[name] = random.standard_normal(shape).astype(np.float16)

    def linear(name: str, rows: int, columns: int) -> None:
        put(f"{name}/weight", rows, columns)
        put(f"{name}/bias", rows)

    def norm(name: str) -> None:
        put(f"{name}/gamma", width)
        put(f"{name}/beta", width)

    def block(name: str, cross: bool) -> None:
        norm(f"{name}/self_attention/layer_norm")
        linear(f"{name}/self_attention/linear_0", 3 * width, width)
        linear(f"{name}/self_attention/linear_1", width, width)
        if cross:
            norm(f"{name}/attention/layer_norm")
            linear(f"{name}/attention/linear_0", width, width)
            linear(f"{name}/attention/linear_1", 2 * width, width)
            linear(f"{name}/attention/linear_2", width, width)
        norm(f"{name}/ffn/layer_norm")
        linear(f"{name}/ffn/linear_0", 4 * width, width)
        linear(f"{name}/ffn/linear_1", width, 4 * width)

    put("encoder/conv1/weight", width, 4, 3)
    put("encoder/conv1/bias", width)
    put("encoder/conv2/weight", width, width, 3)
    put("encoder/conv2/bias", width)
    for side, layers, positions in (("encoder", 2, 6), ("decoder", 1, 10)):
        put(f"{side}/position_encodings/encodings", positions, width)
        norm(f"{side}/layer_norm")
        table[f"{side}/num_heads"] = np.array(2, np.int16)
        for i in range(layers):
            block(f"{side}/layer_{i}", side == "decoder")
    put("decoder/embeddings/weight", vocabulary, width)
    return table


def ct2_int8(variables: Mapping[str, Numbers]) -> dict[str, Numbers]:
    """The matrices as CTranslate2 quantises them: round(value * scale), 127 / largest a row."""
    table: dict[str, Numbers] = {}
    for name, array in variables.items():
        if array.ndim != 2 or "position" in name:
            table[name] = array
            continue
        values = array.astype(np.float32)
        scale = (127 / np.abs(values).max(axis=1)).astype(np.float32)
        table[name] = np.rint(values * scale[:, None]).astype(np.int8)
        table[f"{name}_scale"] = scale
    return table


def write_ct2(folder: Path, variables: Mapping[str, Numbers]) -> Path:
    """A CTranslate2 folder as faster-whisper's."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.bin").write_bytes(ct2_bytes(variables))
    (folder / "tokenizer.json").write_text(tokenizer_json(SPECIAL))
    hints = {"suppress_ids": [1, 2], "suppress_ids_begin": [3], "alignment_heads": [[0, 1]]}
    (folder / "config.json").write_text(json.dumps(hints))
    return folder


# Marian ------------------------------------------------------------------------------------------

MARIAN_SETTINGS: dict[str, Any] = {
    "type": "transformer",
    "dim-emb": 8,
    "enc-depth": 2,
    "dec-depth": 1,
    "transformer-heads": 2,
    "transformer-dim-ffn": 16,
    "transformer-decoder-autoreg": "rnn",
    "dec-cell": "ssru",
    "dec-cell-base-depth": 2,
    "transformer-preprocess": "",
    "transformer-postprocess": "dan",
    "transformer-postprocess-top": "",
    "transformer-ffn-activation": "relu",
    "transformer-ffn-depth": 2,
    "transformer-train-position-embeddings": False,
    "transformer-no-projection": False,
    "tied-embeddings-all": True,
    "output-omit-bias": False,
}


def marian_tensors(vocabulary: int, seed: int = 0) -> dict[str, Numbers]:
    """float32 tensors by Marian's names, matrices ``[in, out]``, vectors ``[1, n]``."""
    random = np.random.default_rng(seed)
    width, inner = 8, 16
    table: dict[str, Numbers] = {}

    def put(name: str, *shape: int) -> None:
        table[name] = random.standard_normal(shape).astype(np.float32)

    def norm(name: str) -> None:
        put(f"{name}_scale", 1, width)
        put(f"{name}_bias", 1, width)

    def attention(name: str) -> None:
        for letter in "qkvo":
            put(f"{name}_W{letter}", width, width)
            put(f"{name}_b{letter}", 1, width)
        norm(f"{name}_Wo_ln")

    def ffn(name: str) -> None:
        put(f"{name}_W1", width, inner)
        put(f"{name}_b1", 1, inner)
        put(f"{name}_W2", inner, width)
        put(f"{name}_b2", 1, width)
        norm(f"{name}_ffn_ln")

    put("Wemb", vocabulary, width)
    put("decoder_ff_logit_out_b", 1, vocabulary)
    for i in (1, 2):
        attention(f"encoder_l{i}_self")
        ffn(f"encoder_l{i}_ffn")
    for name in ("W", "Wf"):
        put(f"decoder_l1_rnn_{name}", width, width)
    put("decoder_l1_rnn_bf", 1, width)
    norm("decoder_l1_rnn_ffn_ln")
    attention("decoder_l1_context")
    ffn("decoder_l1_ffn")
    return table


def marian_bytes(
    tensors: Mapping[str, Numbers],
    settings: Mapping[str, Any] | None = None,
    *,
    int8: bool = True,
    version: int = 1,
) -> bytes:
    """A Marian binary; with ``int8`` the matrices are intgemm's, multiplier 127 / largest."""
    items: list[tuple[str, int, tuple[int, ...], bytes]] = []
    for name, array in tensors.items():
        if not int8 or array.shape[0] == 1:
            items.append((name, 0x404, array.shape, array.tobytes()))
            continue
        multiplier = np.float32(127 / np.abs(array).max())
        stored = array if name == "Wemb" else array.T
        codes = np.rint(stored * multiplier).astype(np.int8).tobytes()
        items.append((name, 0x4101, array.shape, codes + multiplier.tobytes() + bytes(252)))
        items.append((f"{name}_QuantMultA", 0x404, (1, 1), np.float32(2).tobytes()))
    text = "".join(
        f"{key}: {json.dumps(value)}\n" for key, value in (settings or MARIAN_SETTINGS).items()
    )
    raw = text.encode() + b"\0"
    items.append(("special:model.yml", 0x101, (len(raw),), raw))
    out = BytesIO()
    out.write(struct.pack("<QQ", version, len(items)))
    for name, kind, shape, data in items:
        out.write(struct.pack("<4Q", len(name) + 1, kind, len(shape), len(data)))
    for name, *_ in items:
        out.write(name.encode() + b"\0")
    for _, _, shape, _ in items:
        out.write(struct.pack(f"<{len(shape)}i", *shape))
    padding = -(out.tell() + 8) % 256
    out.write(struct.pack("<Q", padding) + bytes(padding))
    for *_, data in items:
        out.write(data)
    return out.getvalue()


def write_marian(folder: Path, spm: bytes, *, int8: bool = True) -> Path:
    """A folder as Firefox downloads it: model, shortlist, vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.enpt.bin").write_bytes(marian_bytes(marian_tensors(48), int8=int8))
    (folder / "lex.50.50.enpt.bin").write_bytes(b"shortlist")
    (folder / "vocab.enpt.spm").write_bytes(spm)
    return folder


# GGUF --------------------------------------------------------------------------------------------


# What numpy writes as it is.
PLAIN_GGUF = {"F64": "f8", "I8": "i1", "I16": "i2", "I32": "i4", "I64": "i8"}


def write_gguf(
    path: Path,
    architecture: str,
    kind: str = "Q8_0",
    *,
    key_heads: int | list[int] = 2,
    turned: int | None = None,
    windows: int | list[bool] | None = None,
) -> Path:
    """Two layers of width 64 with matrices as ``kind``, a byte-level vocabulary of 300. Of each
    head ``turned`` numbers turn with the position; left out, the file does not say."""
    import gguf

    random = np.random.default_rng(0)
    writer: Any = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(64)
    writer.add_embedding_length(64)
    writer.add_block_count(2)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(key_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(5000.0)
    writer.add_key_length(16)
    writer.add_license("apache-2.0")
    writer.add_chat_template("{{ messages }}")
    if turned is not None:
        writer.add_rope_dimension_count(turned)
    if architecture.startswith("gemma"):
        writer.add_sliding_window(8)
    if windows is not None:
        writer.add_sliding_window_pattern(windows)
    _gguf_vocabulary(writer)
    for name, shape in _gguf_shapes(architecture).items():
        values = random.standard_normal(shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(name, values)
            continue
        if kind in PLAIN_GGUF:
            writer.add_tensor(name, np.rint(4 * values).astype(PLAIN_GGUF[kind]))
            continue
        number = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(name, gguf.quants.quantize(values, number), raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _gguf_vocabulary(writer: Any) -> None:
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    merges = [f"{a} {b}" for a, b in zip("helowrd", "elowrld", strict=True)]
    tokens = ["<s>", "</s>", *letters, *(merge.replace(" ", "") for merge in merges)]
    tokens += [f"<spare{i}>" for i in range(300 - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_eot_token_id(2)
    writer.add_add_bos_token(False)


def _gguf_shapes(architecture: str) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (300, 64),
        "output_norm.weight": (64,),
    }
    sandwich = architecture.startswith("gemma")
    for i in range(2):
        block: dict[str, tuple[int, ...]] = {
            "attn_q": (64, 64),
            "attn_k": (32, 64),
            "attn_v": (32, 64),
            "attn_output": (64, 64),
            "ffn_gate": (96, 64),
            "ffn_up": (96, 64),
            "ffn_down": (64, 96),
            "attn_norm": (64,),
            "ffn_norm": (64,),
        }
        if sandwich:
            block |= {"post_attention_norm": (64,), "post_ffw_norm": (64,)}
        if architecture in ("qwen3", "gemma3"):
            block |= {"attn_q_norm": (16,), "attn_k_norm": (16,)}
        shapes |= {f"blk.{i}.{name}.weight": shape for name, shape in block.items()}
        if architecture == "qwen2":
            biases = {"attn_q": (64,), "attn_k": (32,), "attn_v": (32,)}
            shapes |= {f"blk.{i}.{name}.bias": shape for name, shape in biases.items()}
    return shapes


# Reading ----------------------------------------------------------------------------------------


def assert_same(weights: Mapping[str, Weight], state: Mapping[str, Any]) -> None:
    """The weights are the tensors of a state dict, name for name and bit for bit."""
    assert set(weights) == set(state)
    for name, tensor in state.items():
        read = weights[name].read()
        assert read.dtype == np.float32
        assert read.shape == weights[name].shape == tuple(tensor.shape)
        assert np.array_equal(read, tensor.numpy()), name


def gguf_state(path: Path) -> tuple[Any, Mapping[str, Any]]:
    """Configuration and tensors as transformers reads them."""
    import torch
    import transformers
    from transformers import modeling_gguf_pytorch_utils

    made: Any = transformers.AutoModelForCausalLM
    config = transformers.AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    with torch.device("meta"):
        model = made.from_config(config)
    loader: Any = modeling_gguf_pytorch_utils.load_gguf_checkpoint
    found = loader(str(path), return_tensors=True, model_to_load=model)
    return config, found["tensors"]
