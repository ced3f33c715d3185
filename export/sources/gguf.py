"""A GGUF file: configuration and tokenizer from its metadata, weights block by block.

Parameters have the names and values of transformers' own GGUF loading; quantised matrices are
read when asked for and keep their blocks where integer kernels can hold them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.errors import CheckpointError

from ..checkpoint import Array, Blocks, Checkpoint, Origin, TokenizerFiles, Weight
from .base import check_shapes, fingerprint, map_file, no_revision, one_line, path_of
from .gguf_blocks import FORMATS, blocks_of
from .gguf_config import MODEL_TYPES, config_of
from .gguf_file import Tensor, read_gguf
from .gguf_layout import HEAD, LAYOUTS, Layout, parameters_of

Rows = NDArray[np.intp] | None


class GgufSource:
    """llama.cpp's model files."""

    name = "gguf"
    takes = "a .gguf file, or a folder holding one"
    example = "./SmolLM2-135M.Q4_1.gguf"
    gives: tuple[str, ...] | None = tuple(MODEL_TYPES.get(name, name) for name in LAYOUTS)

    def matches(self, model: str) -> bool:
        path = path_of(model)
        if path.is_dir():
            return not (path / "config.json").is_file() and any(path.glob("*.gguf"))
        return path.suffix == ".gguf"

    def load(self, model: str, revision: str | None, cache_dir: Path | None) -> Checkpoint:
        no_revision(model, revision)
        path = gguf_file(path_of(model))
        file = read_gguf(path, map_file(path))
        architecture = str(file.metadata.get("general.architecture"))
        layout = _layout(path, architecture)
        tied = all(tensor.name not in HEAD for tensor in file.tensors)
        config = config_of(path, architecture, file.metadata, tied)
        weights = _weights_of(path, file.tensors, layout, config)
        tokenizer, tokenizer_config = _tokenizer(path)
        return Checkpoint(
            config=config,
            weights=weights,
            tokenizers={"source": tokenizer},
            origin=Origin(
                source=model,
                kind=self.name,
                revision=fingerprint([path]),
                licence=str(file.metadata.get("general.license") or "unknown"),
            ),
            generation=_generation(config, file.metadata),
            chat_template=_text(file.metadata.get("tokenizer.chat_template")),
            tokenizer_config=tokenizer_config,
        )


def gguf_file(path: Path) -> Path:
    """The file, or the only .gguf of a folder. Raises ``CheckpointError``."""
    if not path.is_dir():
        return path
    files = sorted(path.glob("*.gguf"))
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise CheckpointError(f"{path}: expected one .gguf, found {names}; name the file")
    return files[0]


def _layout(path: Path, architecture: str) -> Layout:
    if architecture not in LAYOUTS:
        raise CheckpointError(
            f"{path}: GGUF architecture {architecture!r}, this source reads"
            f" {', '.join(LAYOUTS)}; name the transformers checkpoint instead"
        )
    return LAYOUTS[architecture]


def _tokenizer(path: Path) -> tuple[TokenizerFiles, dict[str, Any]]:
    from transformers import PreTrainedTokenizerFast

    try:
        loader: Any = PreTrainedTokenizerFast  # AutoTokenizer would read the whole file once more
        tokenizer: Any = loader.from_pretrained(str(path.parent), gguf_file=path.name)
        data: str = tokenizer.backend_tokenizer.to_str()
    except Exception as error:  # damaged metadata fails anywhere inside transformers
        raise CheckpointError(
            f"{path}: transformers makes no tokenizer of its metadata ({one_line(error)});"
            " fetch it again or name the transformers checkpoint"
        ) from None
    keys = ("bos_token", "eos_token", "unk_token", "pad_token", "add_bos_token", "add_eos_token")
    kept = {key: tokenizer.init_kwargs[key] for key in keys if key in tokenizer.init_kwargs}
    plain = {key: value if isinstance(value, bool) else str(value) for key, value in kept.items()}
    return TokenizerFiles(kind="tokenizers", data=data.encode("utf-8")), plain


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _generation(config: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Special ids; a chat model ends at its end of turn as well as at the end of text."""
    ends = [config.get("eos_token_id"), metadata.get("tokenizer.ggml.eot_token_id")]
    known = list(dict.fromkeys(end for end in ends if isinstance(end, int)))
    generation: dict[str, Any] = {
        key: config[key] for key in ("bos_token_id", "pad_token_id") if config.get(key) is not None
    }
    if known:
        generation["eos_token_id"] = known if len(known) > 1 else known[0]
    return generation


def _weights_of(
    path: Path, tensors: list[Tensor], layout: Layout, config: Mapping[str, Any]
) -> dict[str, Weight]:
    table = parameters_of(layout, config)
    weights: dict[str, Weight] = {}
    for tensor in tensors:
        # check_shapes refuses what the table does not know
        name = table[tensor.name][0] if tensor.name in table else tensor.name
        weights[name] = _weight(tensor, layout, config)
    check_shapes(path, weights, dict(table.values()))
    return weights


def _weight(tensor: Tensor, layout: Layout, config: Mapping[str, Any]) -> Weight:
    rows = _row_order(tensor, config) if layout.interleaved else None
    offset = layout.norm_offset if tensor.name.endswith("norm.weight") else 0.0
    read = partial(_read, tensor, rows, offset)
    if tensor.kind in FORMATS and len(tensor.shape) == 2:
        blocks = partial(_blocks, tensor, rows)
        return Weight(tensor.shape, read, blocks=blocks, origin=tensor.kind)
    return Weight(tensor.shape, read, origin=tensor.origin)


def _read(tensor: Tensor, rows: Rows, offset: float) -> Array:
    values = tensor.values()
    if rows is not None:
        values = values[rows]
    return values - np.float32(offset) if offset else values


def _blocks(tensor: Tensor, rows: Rows) -> Blocks:
    return blocks_of(tensor.packed(), tensor.kind, rows)


def _row_order(tensor: Tensor, config: Mapping[str, Any]) -> Rows:
    """Where each row of transformers' q or k projection is in the file.

    llama.cpp rotates neighbouring pairs, transformers the two halves of a head: the converter
    lays the halves' rows alternately."""
    part = tensor.name.split(".")[-2:-1]
    key = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}.get("".join(part))
    if key is None:
        return None
    heads, count = int(config[key]), tensor.shape[0]
    if count % (2 * heads):
        return None  # check_shapes says what is wrong with it
    stored = np.arange(count, dtype=np.intp).reshape(heads, count // heads // 2, 2)
    return stored.swapaxes(1, 2).reshape(-1)
