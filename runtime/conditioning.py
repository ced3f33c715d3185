"""The condition a request asks for, with the bundle's classifiers for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgegen.devices.device import Request
from edgegen.errors import BundleError
from edgegen.manifest import ConditionComponent, GenerationDefaults

from .conditions import Classifier, Condition, Limits, forced_words, marks_of, read_rules
from .options import GenerationOptions

if TYPE_CHECKING:
    from .engine import Engine

HIDDEN_TAP = "decode+hidden"


@dataclass(frozen=True)
class GraphClassifiers:
    """Graphs that each estimate one condition; together all of them, as if independent."""

    requests: tuple[Request, ...]

    def estimate(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        every = [request.run({"hidden": hidden})["log_probability"] for request in self.requests]
        total: NDArray[np.float32] = np.stack(every).sum(axis=0, dtype=np.float32)
        return total


def trained_for(engine: Engine, options: GenerationOptions) -> list[ConditionComponent]:
    """The bundle's classifiers for rules the request asks for, on the decoder that is used."""
    if options.condition is None:
        return []
    asked, target = set(options.condition.split("+")), engine.decode_sha256()
    found = [
        one
        for one in engine.manifest.conditions
        if one.target_sha256 == target and asked.issuperset(one.condition.split("+"))
    ]
    if found and HIDDEN_TAP not in engine.variants:
        raise BundleError(
            f"{engine.bundle.path}: it has a classifier for {found[0].condition} and no decoder "
            "with hidden states for it; export with --taps hidden and train it anew."
        )
    return found


def condition_of(
    engine: Engine,
    options: GenerationOptions,
    defaults: GenerationDefaults,
    most: int,
    encode: Callable[[str], Sequence[int]] | None,
) -> Condition | None:
    """What must be so of a text of at most ``most`` tokens, None where nothing must."""
    rules = forced_words(options.force_words, encode)
    if options.condition is not None:
        limits = Limits(most=most, ends=defaults.end, vocabulary=engine.manifest.vocabulary)
        rules += read_rules(options.condition, limits)
    if not rules:
        return None
    trained = trained_for(engine, options)
    classifier: Classifier | None = None
    if trained:
        sessions = [engine.session(one.component) for one in trained]
        classifier = GraphClassifiers(tuple(session.request() for session in sessions))
    marks = marks_of(defaults, engine.manifest.speech, engine.manifest.vocabulary)
    return Condition(rules=rules, most=most, marks=marks, classifier=classifier)
