"""GenerationOptions: everything a caller can ask of one generation, checked once when made.

Names are those of transformers' ``GenerationConfig`` wherever it has the same thing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, cast

from edgegen.errors import EdgegenError, InputError
from edgegen.manifest import GenerationDefaults
from edgegen.registry import unknown

from .drafters import DRAFTERS
from .verifiers import VERIFIERS

Task = Literal["transcribe", "translate"]
EarlyStopping = Literal["never"] | bool
VerifierName = Literal["match", "rejection", "typical"]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Those options of which a bundle may have its own, decided."""

    min_new_tokens: int
    repetition_penalty: float
    no_repeat_ngram_size: int
    encoder_no_repeat_ngram_size: int


@dataclass(frozen=True, kw_only=True)
class Beams:
    """The options of a beam search, decided: ``beams.BeamOptions``."""

    num_beams: int
    num_return_sequences: int
    num_beam_groups: int
    diversity_penalty: float
    length_penalty: float
    early_stopping: EarlyStopping
    logprobs: int | None


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """What to generate and how. Raises ``InputError`` naming every fault in one line.

    Lists are accepted where tuples are named and become tuples.
    """

    # Most tokens to emit, the end token included; None takes the bundle's default.
    max_new_tokens: int | None = None
    # The end tokens are forbidden until this many tokens are out; None takes the bundle's rule.
    min_new_tokens: int | None = None
    # False takes the likeliest token and ignores temperature, top_k, top_p, min_p and seed.
    do_sample: bool = False
    # Logits are divided by it before anything is cut; below 1 is more certain.
    temperature: float = 1.0
    # Keep the k likeliest tokens, ties with the last included; 0 keeps all.
    top_k: int = 0
    # Keep the fewest likeliest tokens that hold this much probability; 1 keeps all.
    top_p: float = 1.0
    # Drop tokens less likely than this share of the likeliest one; 0 drops none.
    min_p: float = 0.0
    # Above 1 makes every token already in the decoder's text less likely; 1 is off and None takes
    # the bundle's rule.
    repetition_penalty: float | None = None
    # No run of this many tokens occurs twice in the decoder's text; 0 is off, None as above.
    no_repeat_ngram_size: int | None = None
    # No run of this many tokens of the source is in the decoder's text; 0 is off, None as above.
    encoder_no_repeat_ngram_size: int | None = None
    # Texts followed at once; above 1 looks for the likeliest text, with no draft and no sampling.
    num_beams: int = 1
    # How many of them a result holds, the best first, in `hypotheses`.
    num_return_sequences: int = 1
    # Beams compete inside groups; a group is held back from tokens of the groups before it.
    num_beam_groups: int = 1
    # What a token costs a group for each time the groups before it chose it at the same place.
    diversity_penalty: float = 0.0
    # Scores are divided by length to this power: above 0 favours long texts, below 0 short ones;
    # None takes the bundle's rule.
    length_penalty: float | None = None
    # True ends when as many texts ended as beams there are, "never" only when no better one can
    # come; False when none is likely to. None as above.
    early_stopping: EarlyStopping | None = None
    # What must be so of a text for a beam search to take it: rules of `conditions.RULES` joined by
    # "+", e.g. "not-empty+length:3-20". A bundle's classifier for it is used where there is one.
    condition: str | None = None
    # Texts that must be written, spelled as `bad_words` are.
    force_words: tuple[str, ...] = ()
    # Texts that may not be written, in the tokenizer's own spelling of them, with or
    # without a space before; another spelling of the same letters stays possible.
    bad_words: tuple[str, ...] = ()
    # The same as token sequences.
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    # Texts that end the generation wherever they appear; they are cut from the text.
    stop: tuple[str, ...] = ()
    # Key of the noise: the same seed gives the same text whatever the drafter.
    seed: int = 0
    # None: no log-probabilities; 0: the emitted tokens'; k: also the k likeliest of each step.
    logprobs: int | None = None
    # Token ids never emitted, beside those the bundle suppresses.
    suppress: tuple[int, ...] = ()
    # (index among the new tokens, id) pairs; they win over the bundle's at the same index.
    forced: tuple[tuple[int, int], ...] = ()
    # Language spoken, or of a translation the one wanted: a name or the bundle's code; None lets
    # the model or bundle decide.
    language: str | None = None
    # Language a translation is from; None takes the bundle's default.
    source_language: str | None = None
    # What a speech model is to write: the words spoken, or their English translation.
    task: Task | None = None
    # Whether a speech model is to write timestamps.
    timestamps: bool = False
    # Which drafter speculates. "auto" drafts where that pays by the pipeline's calibration, and not
    # at all without one; "none" is plain decoding. Only `verifier` can change the text.
    draft: str = "auto"
    # Draft tokens a step; None lets the calibration decide. For "auto" it is the most.
    num_assistant_tokens: int | None = None
    # A draft model stops after a token less likely than this; 0 never stops it.
    assistant_confidence_threshold: float = 0.0
    # Folder where drafters that learn keep what texts taught them, by bundle; None keeps nothing.
    draft_store: Path | None = None
    # How drafts are accepted: "match" gives the text of plain decoding, "rejection" its
    # distribution, "typical" is lossy.
    verifier: VerifierName = "match"
    # True shortens a source that is too long, with a warning; False refuses it.
    truncate: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _frozen(getattr(self, field.name)))
        faults = [*_number_faults(self), *_kind_faults(self), *_sequence_faults(self)]
        faults = faults or _beam_faults(self)
        if faults:
            raise InputError(f"generation options: {'; '.join(faults)}.")

    def with_changes(self, **changes: Any) -> Self:
        """A copy with some fields changed, checked again. Unknown names raise ``InputError``."""
        names = [field.name for field in fields(self)]
        strange = [unknown("option", name, names) for name in changes if name not in names]
        if strange:
            raise InputError(f"generation options: {' '.join(strange)}")
        return replace(self, **changes)

    def rules(self, defaults: GenerationDefaults) -> Rules:
        """What holds of a bundle's text: what is asked for, else what the bundle says."""
        return Rules(**self._decided(Rules, defaults))

    def beams(self, defaults: GenerationDefaults) -> Beams:
        """The same of a beam search."""
        return Beams(**self._decided(Beams, defaults))

    def _decided(self, kind: type[Rules | Beams], defaults: GenerationDefaults) -> dict[str, Any]:
        asked = {field.name: getattr(self, field.name) for field in fields(kind)}
        return {
            name: getattr(defaults, name, None) if value is None else value
            for name, value in asked.items()
        }


# More rows than any device takes at a time.
MOST_BEAMS = 256
# More tokens than any text has.
MOST_TOKENS = 2**24

# field: (whole number?, None allowed?, lowest, whether the lowest itself is allowed, highest)
_RANGES: dict[str, tuple[bool, bool, float, bool, float]] = {
    "max_new_tokens": (True, True, 1, True, math.inf),
    "min_new_tokens": (True, True, 0, True, math.inf),
    "temperature": (False, False, 0, False, math.inf),
    "top_k": (True, False, 0, True, math.inf),
    "top_p": (False, False, 0, False, 1),
    "min_p": (False, False, 0, True, 1),
    "assistant_confidence_threshold": (False, False, 0, True, 1),
    "repetition_penalty": (False, True, 0, False, math.inf),
    "no_repeat_ngram_size": (True, True, 0, True, math.inf),
    "encoder_no_repeat_ngram_size": (True, True, 0, True, math.inf),
    "num_beams": (True, False, 1, True, MOST_BEAMS),
    "num_return_sequences": (True, False, 1, True, math.inf),
    "num_beam_groups": (True, False, 1, True, math.inf),
    "diversity_penalty": (False, False, 0, True, math.inf),
    "length_penalty": (False, True, -100, True, 100),
    "seed": (True, False, 0, True, 2**64 - 1),
    "logprobs": (True, True, 0, True, math.inf),
    "num_assistant_tokens": (True, True, 1, True, math.inf),
}


def _number_faults(options: GenerationOptions) -> list[str]:
    faults: list[str] = []
    for name, (whole, optional, low, closed, high) in _RANGES.items():
        value: object = getattr(options, name)
        if value is None and optional:
            continue
        kind = int if whole else (int, float)
        good = isinstance(value, kind) and not isinstance(value, bool)
        if not (good and _within(cast(float, value), low, closed, high)):
            bound = f"{'at least' if closed else 'above'} {low:g}"
            bound += f" and at most {high:g}" if high < math.inf else ""
            way_out = " (do_sample=False is greedy)" if name == "temperature" else ""
            wanted = f"{'a whole number' if whole else 'a number'} {bound}{way_out}"
            faults.append(f"{name} must be {wanted}, got {value!r}")
    most, least = options.max_new_tokens, options.min_new_tokens
    if not faults and most is not None and least is not None and least > most:
        faults.append(f"min_new_tokens={least} is more than max_new_tokens={most}")
    return faults


def _within(value: float, low: float, closed: bool, high: float) -> bool:
    finite = math.isfinite(value)
    return finite and value <= high and (value >= low if closed else value > low)


def _kind_faults(options: GenerationOptions) -> list[str]:
    faults = [
        f"{name} must be True or False, got {getattr(options, name)!r}"
        for name in ("do_sample", "timestamps", "truncate")
        if not isinstance(getattr(options, name), bool)
    ]
    if options.task not in (None, "transcribe", "translate"):
        faults.append(f"task must be 'transcribe', 'translate' or None, got {options.task!r}")
    for name in ("language", "source_language", "condition"):
        language: object = getattr(options, name)
        if language is not None and not _text(language):
            faults.append(f"{name} must be a name or None, got {language!r}")
    if options.draft not in DRAFTERS:
        faults.append(unknown("drafter", str(options.draft), list(DRAFTERS)).rstrip("."))
    if options.draft_store is not None and not isinstance(cast(object, options.draft_store), Path):
        faults.append(f"draft_store must be a Path or None, got {options.draft_store!r}")
    if options.verifier not in VERIFIERS:
        faults.append(unknown("verifier", str(options.verifier), list(VERIFIERS)).rstrip("."))
    return faults


def _beam_faults(options: GenerationOptions) -> list[str]:
    beams, groups = options.num_beams, options.num_beam_groups
    faults: list[str] = []
    if options.early_stopping not in (True, False, "never", None):
        faults.append(
            f"early_stopping must be True, False or 'never', got {options.early_stopping!r}"
        )
    if options.num_return_sequences > beams:
        faults.append(
            f"num_return_sequences={options.num_return_sequences} needs as many num_beams"
        )
    if beams % groups:
        faults.append(f"num_beams={beams} must be a multiple of num_beam_groups={groups}")
    if options.diversity_penalty and groups == 1:
        faults.append("diversity_penalty needs num_beam_groups of at least 2")
    faults += _condition_faults(options)
    if beams == 1:
        return faults
    if options.do_sample:
        faults.append("num_beams and do_sample exclude each other; choose one")
    if options.draft not in ("auto", "none"):
        faults.append(f"num_beams takes no drafts, got draft={options.draft!r}; leave it out")
    return faults


def _condition_faults(options: GenerationOptions) -> list[str]:
    faults: list[str] = []
    asked = [name for name in ("condition", "force_words") if getattr(options, name)]
    if asked and options.num_beams == 1:
        faults.append(f"{asked[0]} needs num_beams of at least 2")
    if asked and options.num_beam_groups > 1:
        faults.append(f"{asked[0]} and num_beam_groups exclude each other; choose one")
    if options.condition is not None:
        from .conditions import Limits, read_rules

        try:
            read_rules(options.condition, Limits(most=options.max_new_tokens or MOST_TOKENS))
        except EdgegenError as error:
            faults.append(str(error).rstrip("."))
    return faults


def _sequence_faults(options: GenerationOptions) -> list[str]:
    faults: list[str] = []
    for name in ("stop", "bad_words", "force_words"):
        if not _all(getattr(options, name), _text):
            faults.append(f"{name} must be non-empty texts, got {getattr(options, name)!r}")
    if not _all(options.suppress, _token):
        faults.append(f"suppress must be token ids, got {options.suppress!r}")
    words = options.bad_words_ids
    if not _all(words, lambda word: word != () and _all(word, _token)):
        faults.append(f"bad_words_ids must be non-empty sequences of token ids, got {words!r}")
    forced = options.forced
    if not _all(forced, _pair):
        faults.append(f"forced must be (index, token id) pairs, got {forced!r}")
    return faults


def _all(values: object, good: Callable[[object], bool]) -> bool:
    if not isinstance(values, tuple):
        return False
    return all(good(value) for value in cast(Iterable[object], values))


def _text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _token(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _pair(value: object) -> bool:
    return _all(value, _token) and len(cast(tuple[int, ...], value)) == 2


def _frozen(value: object) -> object:
    if isinstance(value, list | tuple):
        return tuple(_frozen(item) for item in cast(Iterable[object], value))
    return value
