"""What contestants are given: token ids, sentences, recordings. The same for all of them."""

from __future__ import annotations

import random
import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from edgegen.export.sources.packages import make_once
from edgegen.runtime import audio

from .environments import HERE, digest, home
from .models import fetched, path_of
from .voice import Voice

SENTENCES = HERE.parent / "sentences.txt"
SPEECH = ("moonshine-voice", "0.1.5", "moonshine_voice/assets")
RATE = 16_000


def sentences() -> tuple[str, ...]:
    """Two hundred English sentences."""
    return tuple(SENTENCES.read_text(encoding="utf-8").splitlines())


def random_ids(count: int, texts: int = 1) -> tuple[tuple[int, ...], ...]:
    """``count`` ids of each text that are no marks, the end mark last."""
    drawn = random.Random(count)
    return tuple((*drawn.choices(range(3, 32_000), k=count - 1), 1) for _ in range(texts))


def with_slips(texts: Sequence[str]) -> list[str]:
    """Two neighbouring letters of every third word swapped."""
    found: list[str] = []
    for text in texts:
        words = text.split(" ")
        for i in range(1, len(words), 3):
            word = words[i]
            if len(word) > 3:
                words[i] = word[0] + word[2] + word[1] + word[3:]
        found.append(" ".join(words))
    return found


def misspelt(count: int) -> tuple[tuple[int, ...], ...]:
    """Sentences with slips, as the proofreader reads them; the longest of those there are."""
    tokenizer = Tokenizer.from_file(str(path_of("proofread") / "tokenizer.json"))
    longest = sorted(sentences(), key=len)[-count:]
    return tuple(tuple(tokenizer.encode(text).ids) for text in with_slips(longest))


def prompt(count: int) -> tuple[int, ...]:
    """The first ``count`` tokens of the sentences, as SmolLM2 reads them."""
    tokenizer = Tokenizer.from_file(str(path_of("smollm2") / "tokenizer.json"))
    return tuple(tokenizer.encode(" ".join(sentences())).ids[:count])


def recording(name: str) -> str:
    """The path of one of the package's recordings, mono at 16 kHz and 16 bits."""
    package, version, folder = SPEECH

    def fill(scratch: Path) -> None:
        source = fetched(package, version) / folder / f"{name}.wav"
        write(scratch / f"{name}.wav", audio.read(source, RATE))

    made = make_once(home() / "speech" / f"{name}-{version}", fill)
    return str(made / f"{name}.wav")


def spoken() -> tuple[str, ...]:
    """More than ten minutes: the recordings, and the sentences spoken by espeak-ng, ten a file."""
    voice = HERE / "voice.py"
    made = make_once(home() / "speech" / f"sentences-{digest([SENTENCES, voice])}", speak)
    return recording("beckett"), recording("two_cities"), *map(str, sorted(made.glob("*.wav")))


def speak(folder: Path) -> None:
    texts, voice = sentences(), Voice()
    for number, start in enumerate(range(0, len(texts), 10)):
        write(folder / f"{number:02}.wav", voice.say(" ".join(texts[start : start + 10])))


def write(path: Path, samples: audio.Samples) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        whole = np.clip(np.round(samples * 32768), -32768, 32767)
        file.writeframes(whole.astype("<i2").tobytes())
