"""The untrained start of an encoder-decoder: a decoder-only checkpoint's weights on both sides.

Which weight becomes which: Encoder-Decoder Gemma (arXiv 2504.06225) and T5Gemma 2 (arXiv
2512.14856). Both go on to train what is made here; until that is done it knows its languages and
does no task.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from edgegen.errors import CheckpointError, ExportError
from edgegen.progress import Progress, unheard
from edgegen.registry import unknown

from .checkpoint import Array, Checkpoint, Origin, Weight
from .checkpoint_folder import DTYPES, Dtype, write_folder, write_json
from .sources import load
from .sources.base import check_shapes
from .sources.local import NOTES_FILE

Named = Iterator[tuple[str, Weight]]
UNTRAINED = "untrained start of an adaptation"
# A stack's names where they are not the decoder-only model's.
RENAMED = {
    "input_layernorm": "pre_self_attn_layernorm",
    "post_attention_layernorm": "post_self_attn_layernorm",
}
# The published models have a tower that reads pictures and decoder-only weights have none: one of
# zeros, as small as the class allows, stands in its place.
TOWER = {
    "model_type": "siglip_vision_model", "hidden_size": 8, "intermediate_size": 8,
    "num_hidden_layers": 1, "num_attention_heads": 1, "image_size": 32, "patch_size": 2,
}  # fmt: skip
PICTURES = ("model.encoder.vision_tower.", "model.encoder.multi_modal_projector.")


@dataclass(frozen=True, kw_only=True)
class AdaptOptions:
    """``source`` and ``encoder`` are what ``edgegen export -m`` takes; ``encoder``, by default the
    source too, may be of another width for ``t5gemma``. ``dtype`` is of the numbers written."""

    source: str
    target: str
    output: Path
    encoder: str | None = None
    dtype: Dtype = "bf16"
    revision: str | None = None
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        faults: list[str] = []
        if self.target not in TARGETS:
            faults.append(unknown("target", self.target, list(TARGETS)).rstrip("."))
        if self.dtype not in DTYPES:
            faults.append(f"dtype {self.dtype!r} (use {' or '.join(DTYPES)})")
        if faults:
            raise ExportError(f"adapt options: {'; '.join(faults)}.")


@dataclass(frozen=True, kw_only=True)
class Sides:
    """The decoder-only checkpoints the two sides start from: one and the same, or two."""

    encoder: Checkpoint
    decoder: Checkpoint

    @property
    def same(self) -> bool:
        return self.encoder is self.decoder


@dataclass(frozen=True, kw_only=True)
class Target:
    """A kind of encoder-decoder, the decoder-only kind it starts from, and how."""

    model_type: str
    config: Callable[[Sides], dict[str, Any]]
    weights: Callable[[Sides], Named]


def adapt(options: AdaptOptions, progress: Progress | None = None) -> Checkpoint:
    """Write the folder that ``edgegen export`` and transformers load; returns what is in it.

    ``progress`` is told each stage in words. Raises ``CheckpointError``, ``ExportError``; nothing
    is left behind then.
    """
    say = progress or unheard
    target, output = TARGETS[options.target], options.output
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ExportError(f"{output}: not an empty folder; name one that is empty or not there.")
    say(f"reading {options.source}")
    source = causal_of(options.source, options, target)
    encoder = source
    if options.encoder is not None:
        say(f"reading {options.encoder}")
        encoder = causal_of(options.encoder, options, target)
        sizes = [int(side.config["vocab_size"]) for side in (source, encoder)]
        if sizes[0] != sizes[1]:
            raise CheckpointError(
                f"{options.encoder}: a vocabulary of {sizes[1]}, and {options.source} has "
                f"{sizes[0]}; expected models of one tokenizer."
            )
    made = start_of(options.target, Sides(encoder=encoder, decoder=source))
    say(f"writing the {UNTRAINED}: {options.target}")
    try:
        _write(made, output, options.dtype)
    except OSError as error:
        raise ExportError(
            f"{output}: cannot be written ({error.strerror or error}); make room or name another "
            "folder."
        ) from None
    return made


def _write(made: Checkpoint, output: Path, dtype: Dtype) -> None:
    """The whole folder or nothing."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as temporary:
        folder = Path(temporary) / "whole"
        write_folder(made, folder, dtype, card_of(made))
        write_json(folder / NOTES_FILE, {"notes": list(made.origin.notes)})
        if output.exists():
            output.rmdir()
        folder.rename(output)


def causal_of(model: str, options: AdaptOptions, target: Target) -> Checkpoint:
    found = load(model, revision=options.revision, cache_dir=options.cache_dir)
    if found.model_type != target.model_type:
        raise CheckpointError(
            f"{model}: a {found.model_type} model; {options.target} starts from "
            f"{target.model_type}."
        )
    return found


def start_of(name: str, sides: Sides) -> Checkpoint:
    """The encoder-decoder in memory, every parameter of transformers' class accounted for."""
    import transformers

    target, origin = TARGETS[name], sides.decoder.origin
    said = target.config(sides)
    config: Any = transformers.AutoConfig.for_model(name, **said)
    with torch.device("meta"):
        auto: Any = transformers.AutoModelForSeq2SeqLM
        model: Any = auto.from_config(config)
    tied = set(model.all_tied_weights_keys)
    expected = {k: tuple(v.shape) for k, v in model.state_dict().items() if k not in tied}
    weights = dict(target.weights(sides))
    weights |= {k: zeros(shape) for k, shape in expected.items() if k.startswith(PICTURES)}
    check_shapes(origin.source, weights, expected)
    generation = {**sides.decoder.generation}
    start = generation.get("bos_token_id", sides.decoder.config.get("bos_token_id"))
    notes = [f"{UNTRAINED} ({name}): both sides are {origin.source} {origin.revision}"]
    if not sides.same:
        other = sides.encoder.origin
        notes = [
            f"{UNTRAINED} ({name}): the decoder is {origin.source} {origin.revision}, the encoder "
            f"{other.source} {other.revision}, cross-attention is random"
        ]
    return Checkpoint(
        config={**config.to_dict(), "model_type": name, "architectures": [type(model).__name__]},
        weights=weights,
        tokenizers=sides.decoder.tokenizers,
        origin=Origin(
            source=origin.source,
            kind="adapt",
            revision=origin.revision,
            licence=origin.licence,
            notes=(*notes, *origin.notes),
        ),
        generation={**generation, "decoder_start_token_id": start},
        tokenizer_config=sides.decoder.tokenizer_config,
    )


def card_of(made: Checkpoint) -> str:
    """What a person who finds the folder must know; the first paragraph goes into bundles."""
    return (
        f"{made.origin.notes[0]}.\n\n"
        "It was made by `edgegen adapt` and not trained since: it writes no useful text before it "
        "is.\nTrain it as its paper does (arXiv 2504.06225, arXiv 2512.14856).\n"
    )


# ------------------------------------------------------------------------------- the weight maps


def stack_of(causal: Checkpoint, at: str, table: bool = True) -> Named:
    """The layers, the final norm and the embedding of a decoder-only model under prefix ``at``."""
    for name, weight in causal.weights.items():
        if not name.startswith("model.") or (not table and "embed_tokens" in name):
            continue
        parts = name.removeprefix("model.").split(".")
        yield f"{at}.{'.'.join(RENAMED.get(part, part) for part in parts)}", weight


def t5gemma_config(sides: Sides) -> dict[str, Any]:
    tied = "lm_head.weight" not in sides.decoder.weights
    return {
        "encoder": side_of(sides.encoder, "t5_gemma_module"),
        "decoder": side_of(sides.decoder, "t5_gemma_module"),
        "vocab_size": sides.decoder.config["vocab_size"],
        "tie_word_embeddings": tied,
    }


def t5gemma_weights(sides: Sides) -> Named:
    """Cross-attention starts as its layer's self-attention, or at random where an encoder of
    another kind is to be read (section 3 of the paper)."""
    yield from stack_of(sides.encoder, "model.encoder")
    yield from stack_of(sides.decoder, "model.decoder")
    if "lm_head.weight" in sides.decoder.weights:
        yield "lm_head.out_proj.weight", sides.decoder.weights["lm_head.weight"]
    spread = float(sides.decoder.config.get("initializer_range", 0.02))
    for name, weight in stack_of(sides.decoder, "model.decoder"):
        if "self_attn" not in name:
            continue
        crossing = name.replace("self_attn", "cross_attn")
        if sides.same or "layernorm" in name:
            yield crossing, weight
            continue
        width = int(sides.encoder.config["hidden_size"])
        reads = "k_proj" in name or "v_proj" in name
        yield crossing, noise((weight.shape[0], width) if reads else weight.shape, spread, crossing)


def t5gemma2_config(sides: Sides) -> dict[str, Any]:
    encoder: dict[str, Any] = {
        "text_config": side_of(sides.encoder, "t5gemma2_text"),
        "vision_config": TOWER,
    }
    return {"encoder": encoder, "decoder": side_of(sides.decoder, "t5gemma2_decoder")}


def t5gemma2_weights(sides: Sides) -> Named:
    """Merged attention has the projections of self-attention and no others; one table serves both
    sides and the head. The mark that ends an image starts as the word it is."""
    if not sides.same:
        raise ExportError("t5gemma2: both sides share one table; leave the encoder out.")
    encoder = "model.encoder.text_model"
    yield from stack_of(sides.encoder, encoder)
    yield from stack_of(sides.decoder, "model.decoder", table=False)
    table = sides.encoder.weights["model.embed_tokens.weight"]
    yield f"{encoder}.embed_tokens.eoi_embedding", Weight((table.shape[1],), partial(mark, table))


TARGETS: Mapping[str, Target] = {
    "t5gemma": Target(model_type="gemma2", config=t5gemma_config, weights=t5gemma_weights),
    "t5gemma2": Target(model_type="gemma3_text", config=t5gemma2_config, weights=t5gemma2_weights),
}


def side_of(causal: Checkpoint, model_type: str) -> dict[str, Any]:
    """The decoder-only configuration in the words a side's configuration knows."""
    import transformers

    said = {k: v for k, v in causal.config.items() if k != "model_type"}
    whole = transformers.AutoConfig.for_model(causal.model_type, **said).to_dict()
    make: Any = SIDES[model_type]
    known = set(getattr(transformers, make)().to_dict())
    known -= {"model_type", "architectures"}
    return {k: v for k, v in whole.items() if k in known}


# transformers exports these classes and has no model type of some of them in its tables.
SIDES = {
    "t5_gemma_module": "T5GemmaModuleConfig",
    "t5gemma2_text": "T5Gemma2TextConfig",
    "t5gemma2_decoder": "T5Gemma2DecoderConfig",
}


def mark(table: Weight) -> Array:
    """The scaled embedding of T5Gemma 2's end of image, where the vocabulary has it."""
    row, width = 256_000, table.shape[1]
    if row >= table.shape[0]:
        return np.zeros(width, np.float32)
    return np.asarray(table.read()[row] * np.float32(width**0.5), np.float32)


def zeros(shape: tuple[int, ...]) -> Weight:
    return Weight(shape, lambda: np.zeros(shape, np.float32))


def noise(shape: tuple[int, ...], spread: float, name: str) -> Weight:
    """Normal numbers that depend on the parameter's name alone."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")

    def read() -> Array:
        drawn = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
        return drawn * np.float32(spread)

    return Weight(shape, read)


def describe(made: Checkpoint) -> dict[str, Any]:
    """What was made, for people and programs."""
    return {
        "model_type": made.model_type,
        "licence": made.origin.licence,
        "notes": list(made.origin.notes),
    }


__all__ = ["TARGETS", "UNTRAINED", "AdaptOptions", "Sides", "adapt", "describe", "start_of"]
