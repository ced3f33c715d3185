"""What a checkpoint says of its own decoding, as a bundle's defaults.

transformers reads the rules from generation_config.json, or from config.json where there is no such
file, never from both (``GenerationMixin``, ``GenerationConfig.from_model_config``). Special ids are
looked for in both: a file that names none leaves them to the configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from edgegen.manifest import GenerationDefaults

from ..checkpoint import Checkpoint
from .base import end_ids

FALLBACK = 256  # new tokens where nothing is said


def decoding_defaults(
    checkpoint: Checkpoint,
    *,
    positions: int = 0,
    max_source: int = 0,
    start: int | None = None,
    end: int = 2,
) -> GenerationDefaults:
    """For an encoder-decoder whose decoder starts from one token and has ``positions`` places (0:
    any number). ``start`` and ``end`` are what they are where nothing is said."""
    rules, ids = _said(checkpoint)
    first = rules.get("forced_bos_token_id")
    begin = ids.get("decoder_start_token_id", start)
    tokens = most(rules)
    return GenerationDefaults(
        start=(int(ids["bos_token_id"] if begin is None else begin),),
        pad=int(ids.get("pad_token_id", 0)),
        forced=() if first is None else ((0, int(first)),),
        min_new_tokens=least(rules),
        max_positions=positions,
        max_source=max_source,
        max_new_tokens=min(tokens, positions) if positions else tokens,
        **_rules(rules, end_ids(ids, end)),
    )


def prompted_defaults(
    checkpoint: Checkpoint, *, positions: int = 0, end: int = 2, pad: int | None = 0
) -> GenerationDefaults:
    """For a decoder that goes on from a prompt. ``end`` and ``pad`` (None: as the end) are what
    they are where nothing is said.

    Lengths that count the prompt, ``max_length`` and ``min_length``, say nothing of a text, and a
    first token is forced behind a lone token only: neither is taken over.
    """
    rules, ids = _said(checkpoint)
    ends = end_ids(ids, end)
    start = ids.get("bos_token_id")
    return GenerationDefaults(
        start=() if start is None else (int(start),),
        pad=int(ids.get("pad_token_id", ends[0] if pad is None else pad)),
        min_new_tokens=int(rules.get("min_new_tokens", 0)),
        max_positions=positions,
        max_new_tokens=int(rules.get("max_new_tokens", FALLBACK)),
        **_rules(rules, ends),
    )


def _said(checkpoint: Checkpoint) -> tuple[dict[str, Any], dict[str, Any]]:
    """Rules, and special ids, without what is null."""
    rules = {k: v for k, v in (checkpoint.generation or checkpoint.config).items() if v is not None}
    return rules, {k: v for k, v in {**checkpoint.config, **rules}.items() if v is not None}


def _rules(rules: Mapping[str, Any], ends: tuple[int, ...]) -> dict[str, Any]:
    """What holds for any decoder: tokens that end it, and those it never writes."""
    words = [tuple(map(int, word)) for word in rules.get("bad_words_ids", ())]
    never = {word[0] for word in words if len(word) == 1 and word[0] not in ends}
    return {
        "end": ends,
        "forced_end": min(end_ids({"eos_token_id": rules.get("forced_eos_token_id")}, -1)),
        "suppress": tuple(sorted(never | {int(i) for i in rules.get("suppress_tokens", ())})),
        "suppress_at_start": tuple(int(i) for i in rules.get("begin_suppress_tokens", ())),
        "bad_words_ids": tuple(word for word in words if len(word) > 1),
    }


def with_rules(defaults: GenerationDefaults, checkpoint: Checkpoint) -> GenerationDefaults:
    """What the checkpoint says of repetition and of beam searches, of any family. How many beams it
    would have is not taken over: greedy stays the default, and these hold when a request asks for
    beams."""
    rules = checkpoint.generation or checkpoint.config
    length, early = rules.get("length_penalty"), rules.get("early_stopping")
    return msgspec.structs.replace(
        defaults,
        no_repeat_ngram_size=int(rules.get("no_repeat_ngram_size") or 0),
        encoder_no_repeat_ngram_size=int(rules.get("encoder_no_repeat_ngram_size") or 0),
        repetition_penalty=float(rules.get("repetition_penalty") or 1.0),
        length_penalty=1.0 if length is None else float(length),
        early_stopping="never" if early == "never" else bool(early),
    )


def least(rules: Mapping[str, Any]) -> int:
    """``min_length`` counts the start token, ``min_new_tokens`` does not and wins."""
    said = rules.get("min_new_tokens")
    return int(said) if said is not None else max(0, int(rules.get("min_length") or 0) - 1)


def most(rules: Mapping[str, Any]) -> int:
    """The same of ``max_length`` and ``max_new_tokens``."""
    said = rules.get("max_new_tokens")
    return int(said) if said is not None else int(rules.get("max_length") or FALLBACK + 1) - 1
