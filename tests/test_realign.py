"""Laws of one text in two vocabularies: nothing of it is lost, and special ids keep meaning."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import tiny_bundle
import tokenizers
from tiny_drafts import WORDS, letters, shuffled_words
from tiny_families import tokenizer as word_tokens

from edgegen.export.checkpoint import TokenizerFiles
from edgegen.manifest import GenerationDefaults, Speech
from edgegen.runtime.drafters.realign import Bridge, Side, Translation, speller
from edgegen.runtime.tokenizer import ByteTokenizer, JsonTokenizer, Tokenizer

BEGIN, END = 900, 800


def side(
    tokens: TokenizerFiles | Tokenizer,
    *,
    vocabulary: int = 1000,
    start: tuple[int, ...] = (0,),
    end: tuple[int, ...] = (1,),
    speech: Speech | None = None,
    encoder: bool = True,
) -> Side:
    manifest = tiny_bundle.manifest()
    components = dict(manifest.components)
    if not encoder:
        del components["encode"]
    manifest = msgspec.structs.replace(
        manifest,
        vocabulary=vocabulary,
        components=components,
        generation=GenerationDefaults(start=start, end=end),
        speech=speech,
    )
    if isinstance(tokens, TokenizerFiles):
        tokens = JsonTokenizer(tokenizers.Tokenizer.from_buffer(tokens.data))
    return Side(manifest=manifest, source=tokens, target=tokens)


def byte_level() -> Tokenizer:
    """Words with their space before them, as GPT-2 and Whisper write them."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    words = {letter: i + 2 for i, letter in enumerate(alphabet)}
    merges: list[tuple[str, str]] = []
    for letter in sorted({word[0] for word in WORDS}):
        words[f"Ġ{letter}"] = len(words) + 2
        merges.append(("Ġ", letter))
    made = tokenizers.Tokenizer(tokenizers.models.BPE(words, merges))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    return JsonTokenizer(made)


def some_text(count: int, seed: int = 0) -> str:
    random = np.random.default_rng(seed)
    return " ".join(WORDS[int(i)] for i in random.integers(0, len(WORDS), count))


TOKENIZERS: dict[str, TokenizerFiles | Tokenizer] = {
    "words": word_tokens(end=True),
    "shuffled": shuffled_words(),
    "letters": letters(),
    "byte-level": byte_level(),
    "bytes": ByteTokenizer(),
}
SPELLING = ("letters", "byte-level", "bytes")  # those that have tokens for half a word


@pytest.mark.parametrize("target", TOKENIZERS)
@pytest.mark.parametrize("draft", TOKENIZERS)
def test_a_text_read_in_steps_and_written_back_is_the_text(target: str, draft: str) -> None:
    """However many tokens a step adds; what the draft continues comes back as the target's own
    tokens, wherever the text was cut."""
    ours, theirs = side(TOKENIZERS[target]), side(TOKENIZERS[draft])
    translation, text = Translation(ours, theirs), some_text(12)
    whole = ours.target.encode(text, add_special=False)
    expected = theirs.target.encode(text, add_special=False)
    random = np.random.default_rng(1)
    for _ in range(8):
        bridge, at = translation.bridge(), 0
        while at < len(whole):
            at += int(random.integers(1, 5))
            read = bridge.read([0, *whole[:at]])
            assert read[0] == 0
            if draft in SPELLING:
                assert theirs.target.decode(read[1:]) == ours.target.decode(whole[:at])
            following = theirs.target.encode(text, add_special=False)[len(read) - 1 :]
            if expected[: len(read) - 1] == read[1:]:
                assert bridge.write(following) == whole[at:]
        assert bridge.read([0, *whole])[1:] == expected


def test_the_way_is_the_first_that_fits() -> None:
    words, more = word_tokens(end=True), side(word_tokens(end=True), vocabulary=1001)
    assert Translation(side(words), side(words)).way == "same"
    assert Translation(side(words), more).way == "mapped"
    assert Translation(side(words), side(words, start=(2,))).way == "mapped"
    assert Translation(side(words), side(shuffled_words())).way == "mapped"
    assert Translation(side(words), side(letters())).way == "realigned"


def test_a_token_the_target_lacks_is_never_drafted() -> None:
    translation = Translation(side(word_tokens(end=True)), side(shuffled_words(), vocabulary=1003))
    unshared = translation.unshared()
    assert {1000, 1001, 1002} <= set(unshared)
    bridge = translation.bridge()
    bridge.read([0])
    shared = next(token for token in range(3, 100) if token not in unshared)
    assert len(bridge.write([shared, 1000, shared])) == 1


LANGUAGES = {"en": 802, "pt": 803}
MANY = Speech(
    timestamp_begin=BEGIN, no_timestamps=801, no_speech=806, languages=LANGUAGES,
    tasks={"transcribe": 804, "translate": 805},
)  # fmt: skip
ENGLISH = Speech(timestamp_begin=BEGIN - 1, no_timestamps=700, no_speech=702)


def speaking(tokens: TokenizerFiles) -> Bridge:
    """A target of many languages and a draft of one, whose ids of the same things differ."""
    target = side(word_tokens(end=False), start=(810,), end=(END,), speech=MANY)
    draft = side(tokens, vocabulary=999, start=(710,), end=(701,), speech=ENGLISH)
    return Translation(target, draft).bridge()


@pytest.mark.parametrize("draft", ["shuffled", "letters"])
def test_special_ids_keep_their_meaning(draft: str) -> None:
    tokens = TOKENIZERS[draft]
    assert isinstance(tokens, TokenizerFiles)
    bridge = speaking(tokens)
    assert bridge.read([810, 802, 804, 801]) == [710, 700]
    bridge = speaking(tokens)
    theirs = JsonTokenizer(tokenizers.Tokenizer.from_buffer(tokens.data))
    word = theirs.encode(WORDS[5], add_special=False)
    text = [810, 802, 804, BEGIN, 3 + 5, BEGIN + 7]
    assert bridge.read(text) == [710, BEGIN - 1, *word, BEGIN + 6]
    other = theirs.encode(WORDS[9], add_special=False)
    said = [BEGIN + 6, *other, *word, BEGIN + 20, 701]
    assert bridge.write(said) == [BEGIN + 7, 3 + 9, 3 + 5, BEGIN + 21, END]


def test_times_of_another_step_are_left_out() -> None:
    target = side(word_tokens(end=False), speech=MANY)
    slow = msgspec.structs.replace(ENGLISH, seconds_per_timestamp=0.04)
    bridge = Translation(target, side(letters(), speech=slow)).bridge()
    assert bridge.read([0, BEGIN]) == [0]


def test_half_a_character_is_neither_read_nor_written() -> None:
    bridge = Translation(side(ByteTokenizer()), side(byte_level())).bridge()
    snow = ByteTokenizer().encode("☃", add_special=False)
    assert bridge.read([0, *snow[:2]]) == [0]
    assert bridge.write(byte_level().encode("ba", add_special=False)) == []
    read = bridge.read([0, *snow])
    assert byte_level().decode(read[1:]) == "☃"
    half = byte_level().encode("b☃", add_special=False)[:-1]
    assert bridge.write(half) == ByteTokenizer().encode("b", add_special=False)


def test_a_prompt_begins_as_the_drafts_tokenizer_begins_texts() -> None:
    begins = tokenizers.Tokenizer.from_buffer(letters().data)
    begins.post_processor = tokenizers.processors.TemplateProcessing(
        single="</s> $A", special_tokens=[("</s>", 1)]
    )
    draft = side(JsonTokenizer(begins), start=(), encoder=False)
    target = side(word_tokens(end=False), start=(), encoder=False)
    read = Translation(target, draft).bridge().read([3, 4])
    assert read == begins.encode(f"{WORDS[0]} {WORDS[1]}").ids
    assert read[0] == 1


def test_the_source_gets_the_drafts_own_prefix_end_and_length() -> None:
    def with_source(tokens: TokenizerFiles, **said: object) -> Side:
        made = side(tokens)
        generation = msgspec.structs.replace(made.manifest.generation, **said)
        manifest = msgspec.structs.replace(made.manifest, generation=generation)
        return Side(manifest=manifest, source=made.source, target=made.target)

    target = with_source(word_tokens(end=True), source_prefix=(7, 8))
    draft = with_source(shuffled_words(), source_prefix=(9,), max_source=4)
    translation = Translation(target, draft)
    text = f"{WORDS[0]} {WORDS[1]}"
    ours = [7, 8, *target.source.encode(text)]
    assert translation.source(ours) == [9, *draft.source.encode(text)]
    longer = [7, 8, *target.source.encode(f"{text} {text}")]
    cut = draft.source.encode(text)[:2]
    assert translation.source(longer) == [9, *cut, 1]
    same = Translation(target, with_source(word_tokens(end=True)))
    assert same.source(ours) == ours[2:]


def test_a_tokenizer_that_adds_a_space_of_its_own_gets_none() -> None:
    legacy = tokenizers.Tokenizer.from_buffer(letters().data)
    legacy.normalizer = tokenizers.normalizers.Sequence([
        tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")
    ])  # fmt: skip
    legacy.pre_tokenizer = None
    spell = speller(JsonTokenizer(legacy))
    one, other = WORDS[0], WORDS[1]
    whole = legacy.encode(f"{one} {other}", add_special_tokens=False).ids
    assert [*spell(one), *spell(f" {other}")] == whole
