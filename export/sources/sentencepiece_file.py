"""A SentencePiece vocabulary as a tokenizer.json: unigram (arXiv 1804.10959) or byte pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgegen.errors import CheckpointError

from ..checkpoint import TokenizerFiles
from .base import one_line

UNIGRAM, PAIRS = 1, 2  # TrainerSpec.ModelType in sentencepiece_model.proto
SPACE = "\u2581"


def tokenizer_of_spm(
    path: Path, special: Sequence[str] = (), end: str | None = None
) -> TokenizerFiles:
    """Pieces, scores and normaliser of an .spm. ``special`` tokens are no text wherever they stand;
    ``end`` is one of them, put behind a text; without it nothing is added.

    Raises ``CheckpointError`` when it is damaged or another kind of model."""
    proto = parsed_vocabulary(path)
    if proto.trainer_spec.model_type not in (UNIGRAM, PAIRS):
        raise CheckpointError(
            f"{path}: neither a unigram nor a byte-pair vocabulary; copy a tokenizer.json beside it"
        )
    if (
        proto.trainer_spec.treat_whitespace_as_suffix
        or not proto.normalizer_spec.escape_whitespaces
    ):
        raise CheckpointError(
            f"{path}: its spaces do not stand as {SPACE} before words, and nothing else is read "
            "here; copy a tokenizer.json beside it"
        )
    try:
        text = _built(proto, special, end)
    except Exception as error:  # tokenizers raises plain Exception on pieces it cannot take
        raise CheckpointError(
            f"{path}: its pieces or normaliser are damaged ({one_line(error)}); fetch it again"
        ) from None
    return TokenizerFiles(kind="tokenizers", data=text.encode("utf-8"))


def _built(proto: Any, special: Sequence[str], end: str | None) -> str:
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(_model(proto))
    steps: list[Any] = []
    if proto.normalizer_spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap))
    if proto.normalizer_spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
    if steps:
        tokenizer.normalizer = normalizers.Sequence(steps)
    scheme = "always" if proto.normalizer_spec.add_dummy_prefix else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme=scheme)
    tokenizer.decoder = decoders.Metaspace(SPACE, prepend_scheme=scheme)
    tokenizer.add_special_tokens(list(special))
    if end is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
        )
    return tokenizer.to_str()


def _model(proto: Any) -> Any:
    from tokenizers.models import BPE, Unigram

    trainer = proto.trainer_spec
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    if trainer.model_type == UNIGRAM:
        return Unigram(pieces, trainer.unk_id, trainer.byte_fallback)
    return BPE(
        vocab={piece: i for i, (piece, _) in enumerate(pieces)},
        merges=_merges(pieces),
        unk_token=pieces[trainer.unk_id][0],
        fuse_unk=True,
        byte_fallback=trainer.byte_fallback,
    )


def _merges(pieces: Sequence[tuple[str, float]]) -> list[tuple[str, str]]:
    """Every way to make a piece of two others, the pieces of the highest score first."""
    known = {piece for piece, _ in pieces}
    ranked = sorted(pieces, key=lambda piece: -piece[1])
    return [
        (piece[:cut], piece[cut:])
        for piece, _ in ranked
        for cut in range(1, len(piece))
        if piece[:cut] in known and piece[cut:] in known
    ]


def parsed_vocabulary(path: Path) -> Any:
    """The ModelProto of a file. Raises ``CheckpointError`` for damage and for no pieces."""
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2  # generated code: no types

    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    try:
        proto.ParseFromString(path.read_bytes())
    except (DecodeError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a SentencePiece vocabulary ({one_line(error)}); fetch it again"
        ) from None
    if not proto.pieces:
        raise CheckpointError(f"{path}: a SentencePiece vocabulary without pieces; fetch it again")
    return proto
