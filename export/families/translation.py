"""Languages of a translation model: its tokenizer's language tokens and where they stand.

The places are those of transformers' tokenizers (``_build_translation_inputs`` and
``set_src_lang_special_tokens`` of each) and of the configurations these models come with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgegen.manifest import Translation

from ..checkpoint import Checkpoint, TokenizerFiles


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a tokenizer writes a language, and where source and target language are said."""

    token: re.Pattern[str]
    source: Literal["none", "before", "after"]
    target: Literal["start", "first", "before"]
    default: str = ""


LOCALE = re.compile(r"([a-z]{2,3}_[A-Z][A-Za-z]+)")
FORMS: Mapping[str, Form] = {
    "MBartTokenizer": Form(token=LOCALE, source="after", target="start", default="en_XX"),
    "MBart50Tokenizer": Form(token=LOCALE, source="before", target="first", default="en_XX"),
    "NllbTokenizer": Form(token=LOCALE, source="before", target="first", default="eng_Latn"),
    "M2M100Tokenizer": Form(
        token=re.compile("__(.+)__"), source="before", target="first", default="en"
    ),
    "MarianTokenizer": Form(token=re.compile(">>(.+)<<"), source="none", target="before"),
}
USUAL = {"mbart": "MBartTokenizer", "m2m_100": "M2M100Tokenizer", "marian": "MarianTokenizer"}


def translation_of(checkpoint: Checkpoint) -> Translation | None:
    """None for a model of one language or one direction."""
    form = form_of(checkpoint)
    files = checkpoint.tokenizers.get("source")
    if form is None or files is None:
        return None
    found = ((form.token.fullmatch(token), i) for token, i in tokens_of(files))
    languages = {match[1]: i for match, i in found if match}
    if not languages:
        return None
    said = str(checkpoint.tokenizer_config.get("src_lang") or form.default)
    legacy = form.source == "before" and checkpoint.tokenizer_config.get("legacy_behaviour")
    return Translation(
        languages=languages,
        source="after" if legacy else form.source,
        target=form.target,
        default_source=said if said in languages and form.source != "none" else "",
    )


def form_of(checkpoint: Checkpoint) -> Form | None:
    """By the tokenizer's class as the tokenizer, the model or the model type names it."""
    for said in (checkpoint.tokenizer_config, checkpoint.config):
        name = str(said.get("tokenizer_class") or "").removesuffix("Fast")
        if name in FORMS:
            return FORMS[name]
    usual = USUAL.get(checkpoint.model_type)
    return None if usual is None else FORMS[usual]


def tokens_of(files: TokenizerFiles) -> Iterator[tuple[str, int]]:
    """The tokens that are no text: those added to a tokenizer.json, or all of a vocabulary."""
    if files.vocabulary:
        yield from json.loads(files.vocabulary).items()
        return
    document: dict[str, Any] = json.loads(files.data or b"{}")
    for token in document.get("added_tokens") or ():
        yield str(token["content"]), int(token["id"])
