"""Laws of sound input: any file gives the same sound, and a bad one gives one line."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgegen.errors import InputError
from edgegen.runtime.audio import Samples, as_waveform, blocks, is_silent, read

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")
SECONDS = 1.5
TONES = (220.0, 1375.0)


def tone(rate: int, frequency: float = TONES[0]) -> Samples:
    time = np.arange(round(SECONDS * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def encoded(samples: Samples, rate: int, form: str, subtype: str | None = None) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=form, subtype=subtype)
    return out.getvalue()


def error_of(sound: Samples, expected: Samples) -> float:
    """RMS difference away from the edges, where filters ring and codecs pad."""
    length = min(sound.size, expected.size)
    inside = slice(800, length - 1600)
    return float(np.sqrt(np.mean((sound[inside] - expected[inside]) ** 2)))


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize(
    ("form", "subtype", "tolerance"),
    [
        ("WAV", "PCM_U8", 5e-3),
        ("WAV", "PCM_16", 1e-3),
        ("WAV", "PCM_24", 1e-3),
        ("WAV", "FLOAT", 1e-3),
        ("FLAC", "PCM_16", 1e-3),
        ("FLAC", "PCM_24", 1e-3),
        ("OGG", "VORBIS", 3e-2),
        ("MP3", None, 3e-2),
    ],
)
def test_every_rate_and_format_gives_the_same_sound(
    rate: int, form: str, subtype: str | None, tolerance: float
) -> None:
    sound = read(encoded(tone(rate), rate, form, subtype))
    assert sound.dtype == np.float32 and sound.ndim == 1
    assert abs(sound.size - SECONDS * 16000) <= (2400 if form == "MP3" else 1)
    assert error_of(sound, tone(16000)) < tolerance


def test_channels_are_averaged() -> None:
    left, right = tone(44100), tone(44100, TONES[1])
    sound = read(encoded(np.stack([left, right], axis=1), 44100, "WAV", "FLOAT"))
    both = as_waveform(np.stack([tone(16000), tone(16000, TONES[1])], axis=1), 16000)
    assert error_of(sound, both) < 1e-3
    assert error_of(2 * both, tone(16000) + tone(16000, TONES[1])) < 1e-6


def test_a_path_its_bytes_and_an_open_file_are_one(tmp_path: Path) -> None:
    data = encoded(tone(22050), 22050, "FLAC")
    path = tmp_path / "sound.wav"  # the suffix lies; the content counts
    path.write_bytes(data)
    expected = read(data)
    assert np.array_equal(read(path), expected)
    assert np.array_equal(read(str(path)), expected)
    with path.open("rb") as file:
        assert np.array_equal(read(file), expected)


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("seconds", [0.0371, 0.5, SECONDS, 30.0])
def test_blocks_joined_are_the_whole_and_all_but_the_last_are_full(
    rate: int, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgegen.runtime.audio.BLOCK_FRAMES", 1009)
    data = encoded(tone(rate), rate, "WAV", "FLOAT")
    parts = list(blocks(data, seconds=seconds))
    assert {part.size for part in parts[:-1]} <= {round(seconds * 16000)}
    assert 0 < parts[-1].size <= round(seconds * 16000)
    assert np.array_equal(np.concatenate(parts), read(data))


@pytest.mark.parametrize("rate", [16000, 44100])
def test_reading_in_small_blocks_changes_nothing(
    rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(tone(rate), rate, "WAV", "FLOAT")
    whole = read(data)
    monkeypatch.setattr("edgegen.runtime.audio.BLOCK_FRAMES", 997)
    np.testing.assert_allclose(read(data), whole, atol=1e-6)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint8", "float16", "float64"])
def test_an_array_of_any_kind_is_the_same_waveform(dtype: str) -> None:
    wave = tone(16000)
    kind = np.dtype(dtype)
    given: Any = wave.astype(kind)
    if kind.kind in "iu":
        scale = 2.0 ** (8 * kind.itemsize - 1)
        given = np.round(wave.astype(np.float64) * scale + (128 if kind.kind == "u" else 0))
        given = given.astype(kind)
    np.testing.assert_allclose(as_waveform(given, 16000), wave, atol=0.5 / 127)


def test_an_array_is_resampled_and_never_leaves_the_unit_range() -> None:
    loud = np.sign(tone(48000))  # a square wave overshoots when it is filtered
    sound = as_waveform(np.stack([loud, loud], axis=1), 48000)
    assert abs(sound.size - SECONDS * 16000) <= 1
    assert float(np.abs(sound).max()) <= 1.0


@pytest.mark.parametrize(
    ("array", "rate", "line"),
    [
        (np.zeros(0, np.float32), 16000, "empty"),
        (np.zeros((2, 16000), np.float32), 16000, "Transpose"),
        (np.zeros((2, 2, 2), np.float32), 16000, r"shape \[2, 2, 2\]"),
        (np.float32(0), 16000, "shape"),
        (np.array([0, np.nan]), 16000, "NaN"),
        (np.array([0, 1e300]), 16000, "infinite"),
        (np.array([0.0, 32767.0]), 16000, "reach 3.277e"),
        (np.zeros(4, np.int64), 16000, "dtype int64"),
        (np.array(["a"]), 16000, "dtype"),
        (np.zeros(4, np.bool_), 16000, "dtype bool"),
        (np.zeros(4, np.float32), 0, "sample rate 0"),
    ],
)
def test_an_array_that_is_no_waveform_is_one_line(array: Any, rate: int, line: str) -> None:
    with pytest.raises(InputError, match=line) as caught:
        as_waveform(array, rate)
    assert "\n" not in str(caught.value)


def damaged() -> dict[str, tuple[bytes, str]]:
    wav, flac = (encoded(tone(44100), 44100, form) for form in ("WAV", "FLAC"))
    mp3, aiff = (encoded(tone(44100), 44100, form) for form in ("MP3", "AIFF"))
    nan = encoded(np.array([0, np.nan], np.float32), 16000, "WAV", "FLOAT")
    return {
        "empty.wav": (b"", "cannot be read"),
        "text.wav": (b"Dear diary,\n today\n" * 99, "cannot be read"),
        "header.wav": (wav[:20], "cannot be read"),
        "half.wav": (wav[: len(wav) // 2], "cut off"),
        "half.flac": (flac[: len(flac) // 2], "cannot be read|cut off"),
        "half.mp3": (mp3[: len(mp3) // 2], "cut off"),
        "half.aiff": (aiff[: len(aiff) // 2], "cut off"),
        "silent.wav": (encoded(np.zeros(0, np.float32), 8000, "WAV"), "no samples"),
        "nan.wav": (nan, "NaN"),
    }


@pytest.mark.parametrize("name", list(damaged()))
def test_a_damaged_file_is_one_line_that_names_it(name: str, tmp_path: Path) -> None:
    content, line = damaged()[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=line) as caught:
        read(path)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_wav_whose_size_was_left_open_is_read_to_its_end() -> None:
    data = bytearray(encoded(tone(16000), 16000, "WAV"))
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    assert error_of(read(bytes(data)), tone(16000)) < 1e-3


def test_a_path_that_is_no_file_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.wav", tmp_path):
        with pytest.raises(InputError, match="cannot be opened"):
            read(path)


def test_nonsense_sizes_are_refused() -> None:
    data = encoded(tone(16000), 16000, "WAV")
    with pytest.raises(InputError, match="sample rate -1"):
        read(data, sample_rate=-1)
    with pytest.raises(InputError, match="at least one sample"):
        list(blocks(data, seconds=0))


@pytest.mark.parametrize("package", ["soundfile", "soxr"])
def test_a_missing_library_names_the_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(tone(8000), 8000, "WAV")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"pip install 'edgegen\[audio\]'\.$"):
        read(data)


def test_silence_is_every_tenth_of_a_second_below_minus_sixty_decibels() -> None:
    quiet = np.full(16000, 0.0005, np.float32)
    assert is_silent(np.zeros(0, np.float32))
    assert is_silent(np.zeros(16000, np.float32))
    assert is_silent(quiet)
    click = quiet.copy()
    click[8000:9600] = 0.002
    assert not is_silent(click)
    assert not is_silent(np.append(quiet, np.full(10, 0.002, np.float32)))
    assert not is_silent(tone(16000))
