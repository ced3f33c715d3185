"""A synthetic voice, the same in every process: espeak-ng's library as a Python package carries it.

Its interface is espeak-ng's src/include/espeak-ng/speak_lib.h.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from edgegen.runtime import audio

from .models import fetched
from .protocol import Unavailable

PACKAGE = ("espeakng-loader", "0.2.4", "espeakng_loader")
VOICE, WORDS_A_MINUTE = b"en", 150  # "English (Great Britain)"
# The names speak_lib.h gives these numbers.
AUDIO_OUTPUT_SYNCHRONOUS, INITIALIZE_DONT_EXIT = 2, 0x8000
POS_CHARACTER, CHARS_UTF8, RATE = 1, 1, 1
BUFFER_MS = 1000
LISTENER = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class Voice:
    """Raises ``Unavailable`` where the library cannot be loaded. One a process: its state is."""

    def __init__(self) -> None:
        name, version, folder = PACKAGE
        home = fetched(name, version) / folder
        try:
            self._library: Any = ctypes.CDLL(str(home / "libespeak-ng.so"))
        except OSError as error:
            raise Unavailable(f"espeak-ng's library: {error}") from None
        self.rate: int = self._library.espeak_Initialize(
            AUDIO_OUTPUT_SYNCHRONOUS, BUFFER_MS, str(home).encode(), INITIALIZE_DONT_EXIT
        )
        if self.rate <= 0 or self._library.espeak_SetVoiceByName(VOICE):
            raise Unavailable(f"espeak-ng's library has no voice {VOICE.decode()} in {home}")
        self._library.espeak_SetParameter(RATE, WORDS_A_MINUTE, 0)

    def say(self, text: str) -> audio.Samples:
        """``float32 [n]`` at 16 kHz, as models of speech take it."""
        parts: list[np.ndarray[Any, np.dtype[np.int16]]] = []

        def heard(wave: Any, count: int, events: Any) -> int:
            if wave and count > 0:
                parts.append(np.ctypeslib.as_array(wave, (count,)).copy())
            return 0  # go on

        listener = LISTENER(heard)  # kept until all is said
        self._library.espeak_SetSynthCallback(listener)
        data = text.encode()
        self._library.espeak_Synth(
            data, ctypes.c_size_t(len(data) + 1), 0, POS_CHARACTER, 0, CHARS_UTF8, None, None
        )
        self._library.espeak_Synchronize()
        return audio.as_waveform(np.concatenate(parts), self.rate)
