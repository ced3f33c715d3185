"""A SentencePiece unigram vocabulary as a tokenizer.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgegen.errors import CheckpointError

from ..checkpoint import TokenizerFiles
from .base import one_line

UNIGRAM = 1  # TrainerSpec.ModelType in sentencepiece_model.proto
SPACE = "\u2581"


def tokenizer_of_spm(path: Path) -> TokenizerFiles:
    """Pieces, scores and normaliser of a unigram .spm; nothing is added around the text.

    Raises ``CheckpointError`` when it is damaged or not a unigram model."""
    proto = _parsed(path)
    if proto.trainer_spec.model_type != UNIGRAM:
        raise CheckpointError(f"{path}: not a unigram vocabulary; copy a tokenizer.json beside it")
    try:
        text = _built(proto)
    except Exception as error:  # tokenizers raises plain Exception on pieces it cannot take
        raise CheckpointError(
            f"{path}: its pieces or normaliser are damaged ({one_line(error)}); fetch it again"
        ) from None
    return TokenizerFiles(kind="tokenizers", data=text.encode("utf-8"))


def _built(proto: Any) -> str:
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import Unigram

    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    tokenizer = Tokenizer(
        Unigram(pieces, proto.trainer_spec.unk_id, proto.trainer_spec.byte_fallback)
    )
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
    return tokenizer.to_str()


def _parsed(path: Path) -> Any:
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
