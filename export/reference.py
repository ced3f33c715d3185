"""The truth an export is held against: the checkpoint in torch, float32.

transformers' own class where it has the architecture (found by optimum's TasksManager), else the
operation set's torch body.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from edgegen.errors import CheckpointError
from edgegen.graph import HIDDEN
from edgegen.shortlist import spread_of

from .checkpoint import Weight
from .families.base import Family
from .ops.torch_ops import TorchOps

Logits = NDArray[np.float32]
# Weights that old files hold and no class reads, or that only other uses of the model need.
UNREAD = (r"rotary_emb\.inv_freq$", r"position_ids$", r"_float_tensor$", r"(^|\.)pooler\.")
# What transformers calls the sources that go to the encoder as they are.
REFERENCE_NAMES: Mapping[str, str] = {"samples": "input_values", "pixel_values": "pixel_values"}


class Reference(Protocol):
    """``source`` holds ``input_ids [S]`` or ``samples [window]``; empty for decoder-only models."""

    @property
    def name(self) -> str: ...
    @property
    def family(self) -> Family: ...
    def greedy(
        self, source: Mapping[str, Any], prompt: Sequence[int], count: int, ends: frozenset[int]
    ) -> list[int]:
        """Up to ``count`` arg-max tokens after the prompt, the end token included."""
        ...

    def logits(self, source: Mapping[str, Any], tokens: Sequence[int], together: int = 0) -> Logits:
        """``[n, V]`` of one forward over all tokens, nothing cached. The first ``together`` rows
        see each other."""
        ...


def reference_of(family: Family) -> Reference:
    return TransformersReference(family) if family.in_transformers else TorchReference(family)


class TransformersReference:
    """A transformers model with the checkpoint's weights."""

    def __init__(self, family: Family) -> None:
        import transformers
        from optimum.exporters.tasks import TasksManager

        self.family = family
        config = dict(family.config)
        model_type = config.pop("model_type")
        self.config = transformers.AutoConfig.for_model(model_type, **config)
        auto = TasksManager.get_model_class_for_task(
            family.task, framework="pt", model_type=model_type
        )
        self.model = auto.from_config(self.config, dtype=torch.float32).eval()
        weights = family.reference_weights()
        untie(self.model, weights)
        self._load(weights)
        self.name = f"transformers {transformers.__version__} {type(self.model).__name__}"

    def _load(self, weights: Mapping[str, Weight]) -> None:
        """One weight after another, so that memory holds the model once.

        Raises ``CheckpointError`` for weights that are not those of the class."""
        kind = type(self.model).__name__
        places: Mapping[str, torch.Tensor] = self.model.state_dict()
        missing, found = places.keys() - weights.keys(), weights.keys() - places.keys()
        for name, place in places.items():
            if name in missing:
                continue
            if weights[name].shape != place.shape:
                raise CheckpointError(
                    f"the weights are not those of config.json: {name} is "
                    f"{list(weights[name].shape)} and that of {kind} {list(place.shape)}."
                )
            place.copy_(torch.from_numpy(weights[name].read()))
        tied = set(getattr(self.model, "_tied_weights_keys", None) or ())
        lost = missing - tied - self._tables() - self._own(missing)
        spare = (*UNREAD, *(self.model._keys_to_ignore_on_load_unexpected or ()))
        faults = [
            f"{what} {', '.join(names[:3])}{f' and {len(names) - 3} more' if names[3:] else ''}"
            for what, names in (("no", _others(lost, UNREAD)), ("none for", _others(found, spare)))
            if names
        ]
        if faults:
            raise CheckpointError(
                f"the weights are not those of config.json: {kind} has {'; '.join(faults)}."
            )

    def _tables(self) -> set[str]:
        """Parameters that share their memory with another one: loaded through it."""
        found: dict[int, list[str]] = {}
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            found.setdefault(parameter.data_ptr(), []).append(name)
        return {name for shared in found.values() if len(shared) > 1 for name in shared}

    def _own(self, missing: Iterable[str]) -> set[str]:
        """Those the class says it can be without, and tables it computes: nothing trains them."""
        computed = {name for name, one in self.model.named_parameters() if not one.requires_grad}
        patterns: Sequence[str] = self.model._keys_to_ignore_on_load_missing or ()
        spared = {name for name in missing for pattern in patterns if re.search(pattern, name)}
        return computed | spared

    def _inputs(self, source: Mapping[str, Any]) -> dict[str, Any]:
        ((name, given),) = source.items()
        if name == "input_ids":
            return {name: torch.tensor([list(given)])}
        if name == "samples" and self.family.shape.source == "features":
            return {"input_features": self._spectrogram(given)}
        return {REFERENCE_NAMES[name]: torch.from_numpy(given)[None]}

    def _spectrogram(self, samples: Any) -> torch.Tensor:
        """transformers' own, so that the features graph is checked too."""
        import transformers

        make: Any = transformers.WhisperFeatureExtractor
        extract = make(feature_size=self.family.shape.feature_bins)
        found: torch.Tensor = extract(
            samples, sampling_rate=16000, return_tensors="pt"
        ).input_features
        return found

    @torch.no_grad()
    def greedy(
        self, source: Mapping[str, Any], prompt: Sequence[int], count: int, ends: frozenset[int]
    ) -> list[int]:
        if self.family.shape.bidirectional_prompt:
            return by_forwards(self, source, prompt, count, ends)
        encoder_decoder = self.family.shape.encoder
        given: dict[str, Any] = {}
        if encoder_decoder:
            given["encoder_outputs"] = self.model.get_encoder()(**self._inputs(source))
        key = "decoder_input_ids" if encoder_decoder else "input_ids"
        feed, cache, found = list(prompt), None, list[int]()
        while len(found) < count:
            out = self.model(
                **given, **{key: torch.tensor([feed])}, past_key_values=cache, use_cache=True
            )
            cache = out.past_key_values
            feed = [int(out.logits[0, -1].argmax())]
            found += feed
            if feed[0] in ends:
                break
        return found

    @torch.no_grad()
    def logits(self, source: Mapping[str, Any], tokens: Sequence[int], together: int = 0) -> Logits:
        ids = torch.tensor([list(tokens)])
        if self.family.shape.encoder:
            out = self.model(**self._inputs(source), decoder_input_ids=ids, use_cache=False)
        else:
            seen = torch.from_numpy(seen_rows(len(tokens), together))[None, None]
            mask = {"attention_mask": seen} if together else {}
            out = self.model(input_ids=ids, use_cache=False, **mask)
        return np.asarray(out.logits[0].numpy(), np.float32)


def _others(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The names that no pattern is found in."""
    return sorted(name for name in names if not any(re.search(one, name) for one in patterns))


def seen_rows(n: int, together: int) -> Logits:
    """Additive ``[n, n]``: a row sees itself and those before it, the first ``together`` each
    other."""
    hidden = np.triu(np.full((n, n), HIDDEN, np.float32), 1)
    hidden[:together, :together] = 0
    return hidden


def by_forwards(
    reference: Reference,
    source: Mapping[str, Any],
    prompt: Sequence[int],
    count: int,
    ends: frozenset[int],
) -> list[int]:
    """``greedy`` by a forward over everything for each token; rows of a prefix-LM's prompt see each
    other."""
    together = len(prompt) if reference.family.shape.bidirectional_prompt else 0
    found: list[int] = []
    while len(found) < count and not (found and found[-1] in ends):
        logits = reference.logits(source, [*prompt, *found], together)
        found.append(int(logits[-1].argmax()))
    return found


def untie(model: Any, weights: Mapping[str, Weight]) -> None:
    """Tables of their own for tied parameters that differ in the checkpoint.

    transformers 5 ties T5's output table whatever the configuration says, and lets the checkpoint
    decide when it loads one (``PreTrainedModel.tie_weights``).
    """
    for name, source in model.all_tied_weights_keys.items():
        both = name in weights and source in weights
        if both and not weights[name].equals(weights[source]):
            module, _, leaf = name.rpartition(".")
            own = torch.nn.Parameter(torch.empty(weights[name].shape))
            setattr(model.get_submodule(module), leaf, own)


class TorchReference:
    """The family's own graphs, evaluated in torch."""

    name = "edgegen torch float32"

    def __init__(self, family: Family) -> None:
        self.family, self.weights = family, family.weights()

    @torch.no_grad()
    def logits(self, source: Mapping[str, Any], tokens: Sequence[int], together: int = 0) -> Logits:
        shape, n = self.family.shape, len(tokens)
        feeds: dict[str, Any] = {
            "tokens": np.array([tokens]),
            "positions": np.arange(n)[None],
            "past_length": np.array([0]),
            "key_positions": np.arange(n)[None],
            "visible": seen_rows(n, together)[None],
            "parents": np.arange(-1, n - 1)[None],
            "logit_rows": np.arange(n),
        }
        if shape.encoder:
            ids = np.array([list(source["input_ids"])])
            feeds |= {"input_ids": ids, "source_mask": np.zeros(ids.shape, np.float32)}
            encoder = TorchOps(self.weights, feeds)
            self.family.encode(encoder)
            feeds |= encoder.results
        for i in range(shape.layers):
            if shape.recurrent_width:
                feeds[f"state_{i}"] = np.zeros((1, shape.recurrent_width), np.float32)
            else:
                for part in ("key", "value"):
                    empty = np.zeros((1, 0, shape.cache_heads, shape.head_dim), np.float32)
                    feeds[f"past_{part}_{i}"] = empty
        decoder = TorchOps(self.weights, feeds)
        self.family.decode(decoder)
        logits = np.asarray(decoder.results["logits"][0].numpy(), np.float32)
        spread = spread_of({name: np.asarray(a) for name, a in feeds.items()}, shape.vocabulary)
        return logits if spread is None else spread(logits)

    def greedy(
        self, source: Mapping[str, Any], prompt: Sequence[int], count: int, ends: frozenset[int]
    ) -> list[int]:
        return by_forwards(self, source, prompt, count, ends)
