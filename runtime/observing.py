"""Texts a model writes by itself, seen from inside: the hidden state after each of their tokens.

What a classifier of a condition learns from; see ``conditions``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgegen.errors import InputError

from .asking import Asked, Call, Writing
from .conditioning import HIDDEN_TAP, condition_of
from .conditions import Condition
from .decoder import Decoder
from .engine import Engine
from .options import GenerationOptions
from .pipeline import Pipeline
from .result import Result
from .task import Source


@dataclass(frozen=True)
class Observed:
    """``hidden [N, width]`` of every beginning, the empty one included; ``holds [N]``, whether the
    condition holds of the finished text, which is the ``text [N]``-th."""

    hidden: NDArray[np.float32]
    holds: NDArray[np.bool_]
    text: NDArray[np.int64]

    @property
    def held(self) -> float:
        """Of which share of the texts it holds."""
        first = np.unique(self.text, return_index=True)[1]
        return float(self.holds[first].mean())


@dataclass
class _Part:
    """A text being written: its decoder, and what was fed to it, the prompt first."""

    decoder: Decoder
    prompt: int
    fed: list[int] = field(default_factory=list[int])


def observe(
    pipeline: Pipeline,
    sources: Sequence[Source],
    options: GenerationOptions,
    *,
    samples: int,
    on_sample: Callable[[int], None] | None = None,
) -> Observed:
    """Sample texts for the sources in turn, each with a seed of its own from ``options.seed`` on,
    and look whether ``options.condition`` holds of them.

    Raises ``InputError`` as ``check`` does.
    """
    check(pipeline, sources)
    engine = pipeline.engine
    hidden: list[NDArray[np.float32]] = []
    holds: list[bool] = []
    free = options.with_changes(condition=None, num_beams=1, do_sample=True, draft="none")
    for sample in range(samples):
        said = free.with_changes(seed=options.seed + sample)
        result, parts = _watched(pipeline.task.run(sources[sample % len(sources)], said))
        for part, one in zip(parts, result.timings.passes, strict=True):
            tokens = tuple(token for step in one.steps for token in step.tokens)
            hidden.append(_states(engine, part))
            holds.append(_judge(engine, options, part.prompt).holds(tokens))
        if on_sample is not None:
            on_sample(sample + 1)
    sizes = [len(rows) for rows in hidden]
    return Observed(
        np.concatenate(hidden), np.repeat(holds, sizes), np.repeat(np.arange(len(sizes)), sizes)
    )


def check(pipeline: Pipeline, sources: Sequence[Source]) -> None:
    """Raises ``InputError`` when the bundle's decoder does not give its hidden states, or there is
    nothing to write of."""
    if HIDDEN_TAP not in pipeline.engine.variants:
        raise InputError(
            f"bundle {pipeline.bundle.path}: its decoder gives no hidden states; "
            "export the model with --taps hidden."
        )
    if not sources:
        raise InputError("no sources to write texts for; name a file of one a line.")


def _watched(running: Writing[Result]) -> tuple[Result, list[_Part]]:
    """The result, and what was fed on the way."""
    parts: list[_Part] = []
    try:
        item = next(running)
        while True:
            if not isinstance(item, Asked):
                item = next(running)
                continue
            if isinstance(item, Call):
                if not parts or parts[-1].decoder is not item.decoder:
                    if item.decoder.length:
                        raise InputError("observing: a prompt is too long; give shorter sources.")
                    parts.append(_Part(item.decoder, len(item.feed.tokens)))
                parts[-1].fed += item.feed.tokens
            item = running.send(item.alone())
    except StopIteration as end:
        return end.value, parts
    finally:
        running.close()


def _states(engine: Engine, part: _Part) -> NDArray[np.float32]:
    """The states of the prompt's last row and of each token behind it, in one call."""
    session, variant = engine.session(HIDDEN_TAP), engine.variants[HIDDEN_TAP]
    size = engine.manifest.vocabulary
    decoder = Decoder(session, variant, part.decoder.memory, len(part.fed), vocabulary=size)
    if engine.manifest.generation.bidirectional_prompt:
        decoder.tie(part.prompt)
    hidden = decoder.forward(part.fed, first_row=part.prompt - 1).hidden
    assert hidden is not None
    return hidden.copy()


def _judge(engine: Engine, options: GenerationOptions, prompt: int) -> Condition:
    most = engine.most(options, prompt)
    condition = condition_of(engine, options, engine.manifest.generation, most, None)
    assert condition is not None
    return condition
