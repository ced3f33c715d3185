"""What tests of the command line share: a text, Python's answer to it, a silent recording."""

from __future__ import annotations

import re
import wave
from pathlib import Path
from typing import Any

import edgegen

ONE_LINE = re.compile(r"edgegen[^\n]*: [^\n]+\n")
TEXT = "ba bin dor"


def expected(bundle: Path, text: str, **options: Any) -> str:
    with edgegen.load(bundle) as pipeline:
        return pipeline.generate(text, edgegen.GenerationOptions(**options)).text


def silence(path: Path) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(bytes(2 * 8000))
    return path
