"""A Marian model of Firefox Translations: transformer encoder, SSRU decoder, shared vocabulary.

The parameter names are Marian's own (``encoder_l1_self_Wq``): transformers has no such network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, cast

from edgegen.errors import CheckpointError

from ..checkpoint import Checkpoint, Origin, TokenizerFiles, Weight
from .base import check_shapes, fingerprint, map_file, no_revision, one_line, path_of
from .marian_file import INTGEMM8, Item, multiplier_of, read_items, weight_of
from .marian_lexicon import lexicon_file, read_lexicon
from .sentencepiece_file import tokenizer_of_spm
from .tokenizer_folder import tokenizer_file

CONFIGURATION = "special:model.yml"
MULTIPLIERS = "_QuantMultA"
OUTPUT_BIAS = "decoder_ff_logit_out_b"
END_OF_SENTENCE = 0  # Marian's convention (marian-dev, src/data/types.h): eos 0, unk 1
UNKNOWN = 1
# What the network in the family `marian-ssru` is; another value is another network.
NETWORK: Mapping[str, tuple[Any, ...]] = {
    "type": ("transformer",),
    "transformer-decoder-autoreg": ("rnn",),
    "dec-cell": ("ssru",),
    "dec-cell-base-depth": (2,),
    "transformer-preprocess": ("",),
    "transformer-postprocess": ("dan", "an"),  # d is dropout: nothing at inference
    "transformer-postprocess-top": ("",),
    "transformer-ffn-activation": ("relu",),
    "transformer-ffn-depth": (2,),
    "transformer-train-position-embeddings": (False,),
    "transformer-no-projection": (False,),
    "tied-embeddings-all": (True,),
    "output-omit-bias": (False,),
}
SIZES = ("dim-emb", "enc-depth", "dec-depth", "transformer-heads", "transformer-dim-ffn")


class MarianSource:
    """The files Firefox downloads for one direction of translation."""

    name = "marian"
    takes = "a Firefox Translations folder: Marian model*.bin, vocabulary .spm"
    example = "./firefox-en-pt"
    gives: tuple[str, ...] | None = ("marian-ssru",)

    def matches(self, model: str) -> bool:
        path = path_of(model)
        if path.is_file():
            return path.suffix == ".bin"
        # With a config.json it is a transformers folder, whose .bin is no Marian file.
        alone = not (path / "config.json").is_file()
        return alone and bool(list(path.glob("*.spm"))) and len(models_of(path)) > 0

    def load(self, model: str, revision: str | None, cache_dir: Path | None) -> Checkpoint:
        no_revision(model, revision)
        path = model_file(path_of(model))
        items = read_items(path, map_file(path))
        config = config_of(path, items)
        weights, notes = _weights_of(path, items, config)
        tokenizer = _tokenizer(path.parent, config["vocab_size"])
        words = lexicon_file(path.parent)
        return Checkpoint(
            config=config,
            weights=weights,
            tokenizers={"source": tokenizer},
            origin=Origin(source=model, kind=self.name, revision=fingerprint([path]), notes=notes),
            generation={
                "eos_token_id": END_OF_SENTENCE,
                "pad_token_id": END_OF_SENTENCE,
                "decoder_start_token_id": END_OF_SENTENCE,
            },
            lexicon=None if words is None else partial(read_lexicon, words, config["vocab_size"]),
        )


def models_of(folder: Path) -> list[Path]:
    """The .bin files that are models; the lexical shortlist (``lex.*``) is not."""
    return sorted(path for path in folder.glob("*.bin") if not path.name.startswith("lex."))


def model_file(path: Path) -> Path:
    """The one model of a folder, or the file itself."""
    if path.is_file():
        return path
    models = models_of(path)
    if len(models) != 1:
        names = ", ".join(model.name for model in models) or "none"
        raise CheckpointError(f"{path}: expected one Marian .bin, found {names}; name the file")
    return models[0]


def config_of(path: Path, items: Mapping[str, Item]) -> dict[str, Any]:
    """Sizes from the YAML that Marian keeps in the file, the vocabulary from the embedding's shape.

    Raises ``CheckpointError`` when it is another network than `marian-ssru`."""
    settings = _settings(path, items)
    faults = [
        f"{key} is {settings.get(key)!r}, expected {' or '.join(map(repr, accepted))}"
        for key, accepted in NETWORK.items()
        if settings.get(key) not in accepted
    ]
    faults += [
        f"{key} is {settings.get(key)!r}, expected a positive number"
        for key in SIZES
        if type(settings.get(key)) is not int or not 0 < settings[key] < 1 << 20
    ]
    if not faults and settings["dim-emb"] % (2 * settings["transformer-heads"]):
        faults.append(f"{settings['transformer-heads']} heads do not divide the width evenly")
    embedding = items.get("Wemb")
    if embedding is None or len(embedding.shape) != 2:
        faults.append("no Wemb matrix: separate vocabularies are not supported")
    if faults or embedding is None:
        raise CheckpointError(
            f"{path}: not a Firefox Translations network: {'; '.join(faults)}."
            " Name an SSRU student model"
        )
    width = settings["transformer-dim-ffn"]
    return {
        "model_type": "marian-ssru",
        "is_encoder_decoder": True,
        "tie_word_embeddings": True,
        "d_model": settings["dim-emb"],
        "encoder_layers": settings["enc-depth"],
        "decoder_layers": settings["dec-depth"],
        "num_heads": settings["transformer-heads"],
        "ffn_dim": width,
        "decoder_ffn_dim": settings.get("transformer-decoder-dim-ffn") or width,
        "activation_function": "relu",
        "layer_norm_eps": 1e-6,
        "vocab_size": embedding.shape[0],
        "eos_token_id": END_OF_SENTENCE,
        "unk_token_id": UNKNOWN,
        # Marian pads with eos and masks it; the decoder starts from a zero vector, not a token.
        "pad_token_id": END_OF_SENTENCE,
        "decoder_start_token_id": END_OF_SENTENCE,
        "decoder_starts_from_zero": True,
    }


def _settings(path: Path, items: Mapping[str, Item]) -> dict[str, Any]:
    import yaml

    item = items.get(CONFIGURATION)
    if item is None:
        raise CheckpointError(
            f"{path}: no {CONFIGURATION!r} inside, so its network is unknown;"
            " convert it with marian-conv, which keeps it"
        )
    raw = bytes(item.data).rstrip(b"\0").decode("utf-8", "replace")
    try:
        settings: object = yaml.safe_load(raw)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: {CONFIGURATION!r} is not YAML ({one_line(error)}); fetch the file again"
        ) from None
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path}: {CONFIGURATION!r} has no keys; fetch the file again")
    return cast(dict[str, Any], settings)


def _weights_of(
    path: Path, items: Mapping[str, Item], config: Mapping[str, Any]
) -> tuple[dict[str, Weight], tuple[str, ...]]:
    left_out = [name for name in items if name.endswith(MULTIPLIERS)]
    kept = {
        name: item
        for name, item in items.items()
        if name != CONFIGURATION and not name.endswith(MULTIPLIERS)
    }
    for name, item in kept.items():
        if item.kind == INTGEMM8 and not _usable(multiplier_of(item)):
            raise CheckpointError(
                f"{path}: {name}'s multiplier is {multiplier_of(item)}, expected a positive number;"
                " the file is damaged, fetch it again"
            )
    weights = {name: weight_of(item) for name, item in kept.items()}
    check_shapes(path, weights, dict(_shapes(config)))
    if not left_out:
        return weights, ()
    note = f"{len(left_out)} activation multipliers (QuantMultA) left out: activations stay floats"
    return weights, (note,)


def _usable(multiplier: float) -> bool:
    return isfinite(multiplier) and multiplier > 1e-30  # its reciprocal is the scale


def _shapes(config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """All parameters of the network and their shapes, ``[out, in]``."""
    width = config["d_model"]
    yield "Wemb", (config["vocab_size"], width)
    yield OUTPUT_BIAS, (config["vocab_size"],)
    for i in range(1, config["encoder_layers"] + 1):
        yield from _attention(f"encoder_l{i}_self", width)
        yield from _ffn(f"encoder_l{i}_ffn", width, config["ffn_dim"])
    for i in range(1, config["decoder_layers"] + 1):
        recurrent = f"decoder_l{i}_rnn"
        yield f"{recurrent}_W", (width, width)
        yield f"{recurrent}_Wf", (width, width)
        yield f"{recurrent}_bf", (width,)
        yield from _norm(f"{recurrent}_ffn_ln", width)
        yield from _attention(f"decoder_l{i}_context", width)
        yield from _ffn(f"decoder_l{i}_ffn", width, config["decoder_ffn_dim"])


def _attention(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for letter in "qkvo":
        yield f"{name}_W{letter}", (width, width)
        yield f"{name}_b{letter}", (width,)
    yield from _norm(f"{name}_Wo_ln", width)


def _ffn(name: str, width: int, inner: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}_W1", (inner, width)
    yield f"{name}_b1", (inner,)
    yield f"{name}_W2", (width, inner)
    yield f"{name}_b2", (width,)
    yield from _norm(f"{name}_ffn_ln", width)


def _norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}_scale", (width,)
    yield f"{name}_bias", (width,)


def _tokenizer(folder: Path, size: int) -> TokenizerFiles:
    """tokenizer.json when the folder has one, else its single .spm converted.

    Neither appends the end of sentence: that is the runtime's, by the model's own ids."""
    from tokenizers import Tokenizer

    if (folder / "tokenizer.json").is_file():
        files = tokenizer_file(folder / "tokenizer.json")
    else:
        files = tokenizer_of_spm(_vocabulary(folder))
    count = Tokenizer.from_buffer(files.data).get_vocab_size()
    if count > size:
        raise CheckpointError(
            f"{folder}: its vocabulary has {count} pieces, the model {size};"
            " copy the vocabulary of the same model"
        )
    return files


def _vocabulary(folder: Path) -> Path:
    found = sorted(folder.glob("*.spm"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise CheckpointError(
            f"{folder}: expected tokenizer.json or one .spm vocabulary, found {names};"
            " copy the vocabulary beside the model"
        )
    return found[0]
