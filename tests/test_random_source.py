"""Random checkpoints: pairs of equal size whose layers are of one kind, the same every time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from edgegen.errors import UnknownName
from edgegen.export.build import parameters_of
from edgegen.export.checkpoint import Weight
from edgegen.export.families import family_of
from edgegen.export.sources import load
from edgegen.export.sources.random import MODELS, SIZES


@pytest.mark.parametrize("size", list(SIZES))
def test_the_two_of_a_pair_have_equal_parameters_within_a_thousandth(size: str) -> None:
    pair = [load(f"random:{name}-{size}") for name in ("encoder-decoder", "decoder-only")]
    counts = [parameters_of(checkpoint) for checkpoint in pair]
    assert abs(counts[0] - counts[1]) <= counts[1] / 1000
    if size != "tiny":
        assert abs(counts[0] / (1e6 * int(size.removesuffix("m"))) - 1) < 0.05


@pytest.mark.parametrize("size", list(SIZES))
def test_the_encoder_has_two_thirds_of_the_layers_and_every_layer_the_same_matrices(
    size: str,
) -> None:
    both = load(f"random:encoder-decoder-{size}")
    alone = load(f"random:decoder-only-{size}")
    encoder = layers(both.weights, "model.encoder.text_model.layers.")
    decoder = layers(both.weights, "model.decoder.layers.")
    whole = layers(alone.weights, "model.layers.")
    assert len(encoder) == 2 * len(decoder)
    assert len(encoder) + len(decoder) == len(whole) == SIZES[size].layers
    assert len({tuple(sorted(one)) for one in [*encoder, *decoder, *whole]}) == 1


def layers(weights: Mapping[str, Weight], prefix: str) -> list[list[tuple[int, ...]]]:
    """The shapes of every layer's weights."""
    found: dict[str, list[tuple[int, ...]]] = {}
    for name, weight in weights.items():
        if name.startswith(prefix):
            number = name.removeprefix(prefix).partition(".")[0]
            found.setdefault(number, []).append(weight.shape)
    return list(found.values())


@pytest.mark.parametrize("name", [name for name in MODELS if name.endswith("tiny")])
def test_a_random_model_is_the_same_every_time_and_some_family_takes_all_of_it(name: str) -> None:
    once, again = load(f"random:{name}"), load(f"random:{name}")
    for weight in once.weights:
        assert np.array_equal(once.weights[weight].read(), again.weights[weight].read())
    assert family_of(once)[1].shape.encoder == name.startswith("encoder")


def test_an_unknown_pair_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="decoder-only-30m"):
        load("random:decoder-only-30")
