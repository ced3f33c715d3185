"""Options that take a list: words or numbers with commas between."""

from __future__ import annotations

from edgegen.errors import InputError


def words(text: str) -> tuple[str, ...]:
    """``"a, b"`` as its words, each once. Raises ``InputError`` for commas and no word."""
    found = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if text and not found:
        raise InputError(f"{text!r}: expected words with commas between, got none.")
    return found


def numbers(name: str, text: str) -> tuple[int, ...]:
    """``"128,512"`` as numbers. Raises ``InputError``."""
    try:
        return tuple(int(word) for word in words(text))
    except ValueError:
        raise InputError(
            f"{name} {text!r}: expected whole numbers with commas between, as in 128,512."
        ) from None
