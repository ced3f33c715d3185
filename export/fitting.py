"""What becomes of a configuration that is not that of its weights: one line instead of whatever
Python says where a family first stumbles over it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from edgegen.errors import CheckpointError, EdgegenError

from .checkpoint import Checkpoint
from .families import family_of
from .families.base import Family

STUMBLES = (KeyError, IndexError, TypeError, ValueError, AttributeError, ZeroDivisionError)


@contextmanager
def fitting(checkpoint: Checkpoint) -> Generator[None]:
    """Raises ``CheckpointError`` where the block stumbles over the checkpoint."""
    try:
        yield
    except EdgegenError:
        raise
    except STUMBLES as error:
        raise CheckpointError(
            f"{checkpoint.model_type}: config.json and the weights make no such model "
            f"({_told(error, checkpoint)}); take both from one checkpoint, or report it where "
            "they are."
        ) from error


def bound(checkpoint: Checkpoint) -> tuple[str, Family]:
    """As ``family_of``, with everything a family says of itself looked at once."""
    with fitting(checkpoint):
        name, family = family_of(checkpoint)
        family.weights()
        for graph in family.graph_names():
            family.graph(graph, "append")
        for say in (family.generation, family.speech, family.image, family.encoding):
            say()
        return name, family


def _told(error: Exception, checkpoint: Checkpoint) -> str:
    if not isinstance(error, KeyError):
        return f"{type(error).__name__}: {error}".splitlines()[0]
    missing = str(error.args[0]) if error.args else "?"
    _, _, inner = missing.partition(".")
    if inner and inner in checkpoint.weights:
        return f"there is {inner} and no {missing}: this is a base model without its head"
    return f"no {missing!r}"
