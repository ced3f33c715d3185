"""Sound as the models take it: float32 mono samples in [-1, 1] at one rate, from files or arrays.

Files are decoded by libsndfile (``soundfile``) and resampled by libsoxr (``soxr``), both loaded
on first use. Files are read in blocks, so an hour of stereo needs memory only for what is kept.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgegen.errors import InputError

Samples = NDArray[np.float32]
Source = str | Path | bytes | BinaryIO

SILENCE_RMS = 1e-3  # -60 dBFS: below the noise floor of a quiet room
SILENCE_FRAME_S = 0.1
LOUDEST = 2.0  # float sound may overshoot 1 a little; far beyond it is on another scale
MOST_CHANNELS = 32
BLOCK_FRAMES = 1 << 18
# libsndfile notes a chunk that promises more bytes than the file has, in its log only.
SHORT_CHUNK = re.compile(r"^ ?(?:data|SSND) : (\d+) \(should be (\d+)\)", re.MULTILINE)
# Recorders that write to a pipe leave the size open: zero or nearly all bits set.
OPEN_SIZE = 0x7FFFF000


def read(source: Source, sample_rate: int = 16000) -> Samples:
    """A whole sound file as float32 [samples] in [-1, 1], channels averaged, at ``sample_rate``.

    ``source`` is a path, a file's bytes or an open binary file: wav, flac, ogg, mp3, aiff and
    whatever else libsndfile reads. Raises ``InputError`` for a file that is absent, no sound,
    empty or shorter than its header says, and for samples that are not finite.
    """
    return np.concatenate(list(_resampled(source, sample_rate)))


def blocks(source: Source, sample_rate: int = 16000, seconds: float = 30.0) -> Iterator[Samples]:
    """``read`` in pieces of ``seconds`` (the last may be shorter), for files too long to hold."""
    size = round(seconds * sample_rate)
    if size < 1:
        raise InputError(f"audio blocks of {seconds} s: expected at least one sample each.")
    kept: list[Samples] = []
    length = 0
    for part in _resampled(source, sample_rate):
        kept, length = [*kept, part], length + part.size
        if length < size:
            continue
        joined = np.concatenate(kept)
        whole = length - length % size
        yield from joined[:whole].reshape(-1, size)
        kept, length = [joined[whole:]], length - whole
    if length:
        yield np.concatenate(kept)


def as_waveform(array: Any, rate: int, target: int = 16000) -> Samples:
    """Samples already in memory, checked, mixed to mono and resampled from ``rate`` to ``target``.

    ``array`` is [samples] or [samples, channels]: floats in [-1, 1], or int8, int16, int32 or
    uint8 (centred on 128) over their full range. Raises ``InputError`` on anything else.
    """
    mono = _mono(np.asarray(array), "audio array")
    if mono.size == 0:
        raise InputError("audio array: it is empty; expected at least one sample.")
    return _fit(_resample([mono], rate, target, "audio array"))


def is_silent(samples: Samples, sample_rate: int = 16000) -> bool:
    """Whether no 100 ms of the sound has an RMS of -60 dBFS (0.001) or more.

    No samples at all are silent. A constant offset counts as sound: nothing is filtered first.
    """
    frame = max(1, round(SILENCE_FRAME_S * sample_rate))
    whole = samples.size - samples.size % frame
    power = np.square(samples[:whole], dtype=np.float64).reshape(-1, frame).mean(axis=1)
    if (power >= SILENCE_RMS**2).any():
        return False
    rest = samples[whole:]
    return not rest.size or float(np.square(rest, dtype=np.float64).mean()) < SILENCE_RMS**2


def _resampled(source: Source, target: int) -> Iterator[Samples]:
    name = f"audio {str(source)!r}" if isinstance(source, str | Path) else "audio file"
    soundfile = _library("soundfile")
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    opened = _open(stream, name) if isinstance(stream, str | Path) else None
    try:
        with soundfile.SoundFile(opened or stream) as file:
            _check_chunks(file.extra_info, name)
            parts = _file_parts(file, name)
            for part in _resample(parts, file.samplerate, target, name):
                yield np.clip(part, -1.0, 1.0)
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        raise InputError(_unreadable(name, error)) from error
    finally:
        if opened is not None:
            opened.close()


def _file_parts(file: Any, name: str) -> Iterator[Samples]:
    """The file's frames as mono blocks. Raises when there are none or fewer than announced."""
    count = 0
    while (block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)).size:
        count += len(block)
        yield _mono(block, name)
    if count == 0:
        raise InputError(f"{name}: it holds no samples; expected at least one.")
    # Compressed formats announce their length to a frame or so, an mp3 to two of 1152.
    if count < file.frames - max(2304, file.frames // 100):
        raise InputError(_truncated(name, count, file.frames, "frames"))


def _mono(array: NDArray[Any], name: str) -> Samples:
    if array.ndim not in (1, 2) or (array.ndim == 2 and not 1 <= array.shape[1] <= MOST_CHANNELS):
        raise InputError(
            f"{name}: shape {list(array.shape)}; expected [samples] or [samples, channels] with at "
            f"most {MOST_CHANNELS} channels. Transpose it if the channels come first."
        )
    scaled = _scaled(array, name)
    mono: Samples = scaled if array.ndim == 1 else scaled.mean(axis=1, dtype=np.float32)
    if mono.size and not np.isfinite(mono).all():
        raise InputError(f"{name}: samples are NaN or infinite; expected numbers in [-1, 1].")
    peak = float(np.abs(mono).max(initial=0.0))
    if peak > LOUDEST:
        raise InputError(
            f"{name}: samples reach {peak:.4g}; expected floats in [-1, 1]. Divide by full scale."
        )
    return mono


def _scaled(array: NDArray[Any], name: str) -> Samples:
    kind = array.dtype.name
    if kind in ("float16", "float32", "float64"):
        with np.errstate(over="ignore"):  # what overflows is infinite, and refused as such
            return np.asarray(array, dtype=np.float32)
    if kind == "uint8":
        return (array.astype(np.float32) - np.float32(128)) / np.float32(128)
    if kind in ("int8", "int16", "int32"):
        return np.asarray(array / 2.0 ** (8 * array.dtype.itemsize - 1), dtype=np.float32)
    raise InputError(
        f"{name}: dtype {array.dtype}; expected float16, float32, float64, uint8, int8, int16 or "
        "int32. Convert it first."
    )


def _resample(parts: Iterable[Samples], rate: int, target: int, name: str) -> Iterator[Samples]:
    """``parts`` at ``rate`` as parts at ``target``; joined, what one call on the whole would give.

    The last part is only known once there is no next one, so one part is held.
    """
    for value in (rate, target):
        if value < 1:
            raise InputError(f"{name}: sample rate {value}; expected a number of samples a second.")
    if rate == target:
        yield from parts
        return
    stream = _library("soxr").ResampleStream(rate, target, 1, dtype="float32")
    held: Samples | None = None
    for part in parts:
        if held is not None:
            yield stream.resample_chunk(held)
        held = part
    if held is not None:
        yield stream.resample_chunk(held, last=True)


def _fit(parts: Iterable[Samples]) -> Samples:
    """Joined and clipped: resampling overshoots full scale by a little."""
    joined: Samples = np.clip(np.concatenate(list(parts)), -1.0, 1.0)
    return joined


def _open(path: str | Path, name: str) -> BinaryIO:
    """Opened here, not by name: libsndfile would trust the suffix over the content."""
    try:
        return open(path, "rb")
    except (OSError, ValueError) as error:  # ValueError: what is no path at all
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{name}: cannot be opened ({why}).") from error


def _check_chunks(log: str, name: str) -> None:
    """Raises when a wav or aiff file ends before its sound chunk does."""
    for found in SHORT_CHUNK.finditer(log):
        announced, present = int(found[1]), int(found[2])
        if present < announced < OPEN_SIZE:
            raise InputError(_truncated(name, present, announced, "bytes"))


def _truncated(name: str, present: int, announced: int, unit: str) -> str:
    return (
        f"{name}: it is cut off, with {present} of {announced} {unit}. Copy it again, or have a "
        "sound editor repair it."
    )


def _unreadable(name: str, error: Exception) -> str:
    why = getattr(error, "error_string", None) or str(error)
    return (
        f"{name}: it cannot be read as sound ({' '.join(str(why).split())}); expected wav, flac, "
        "ogg, mp3 or another format of libsndfile. Convert it with a tool such as ffmpeg."
    )


def _library(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(
            f"reading audio needs the package {name}, which is not installed here: "
            "pip install 'edgegen[audio]'."
        ) from error
