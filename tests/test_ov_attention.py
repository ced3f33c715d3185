"""Attention is taken apart for OpenVINO's CPU: other operators, the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from edgegen.devices.ov_attention import take_apart

openvino = pytest.importorskip("openvino")
from openvino import opset13  # noqa: E402

HEADS, WIDTH = 2, 32
FUSED = "ScaledDotProductAttention"
# How keys come to have their heads first.
TURNS = {"once": ((0, 2, 1, 3),), "twice": ((0, 2, 3, 1), (0, 1, 3, 2)), "not": ()}


def graph(turns: Sequence[Sequence[int]], masked: bool, scaled: bool, causal: bool = False) -> Any:
    """Queries, keys and values ``[1, rows, heads, width]``, but keys as they are where not turned;
    a mask ``[1, 1, n, T]``."""
    shape = [1, -1, HEADS, WIDTH]
    query, values = (opset13.parameter(shape, np.float32) for _ in range(2))
    keys = opset13.parameter(shape if turns else [1, HEADS, -1, WIDTH], np.float32)
    mask = opset13.parameter([1, 1, -1, -1], np.float32)
    first = opset13.constant(np.array([0, 2, 1, 3]))
    turned: Any = keys
    for order in turns:
        turned = opset13.transpose(turned, opset13.constant(np.array(order)))
    further: list[Any] = [mask] if masked else []
    if scaled:
        further.append(opset13.constant(np.float32(0.3)))
    mixed = opset13.scaled_dot_product_attention(
        opset13.transpose(query, first),
        turned,
        opset13.transpose(values, first),
        *further,
        causal=causal,
    )
    inputs = [query, keys, values, *([mask] if masked else [])]
    return openvino.Model([opset13.result(opset13.transpose(mixed, first))], inputs, "attention")


def ran(model: Any, feeds: Sequence[Any]) -> Any:
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(model, "CPU", exact).create_infer_request()
    return next(iter(request.infer(list(feeds)).values())).copy()


def kinds(model: Any) -> list[str]:
    return [str(node.get_type_name()) for node in model.get_ops()]


@pytest.mark.parametrize("way", TURNS)
@pytest.mark.parametrize(("masked", "scaled"), [(True, True), (True, False), (False, False)])
def test_taken_apart_it_gives_the_same_numbers(way: str, masked: bool, scaled: bool) -> None:
    rng = np.random.default_rng(5)
    whole, apart = (graph(TURNS[way], masked, scaled) for _ in range(2))
    take_apart(apart)
    assert FUSED in kinds(whole)
    assert FUSED not in kinds(apart)
    # A key's own transposition is one, and none where it needs none.
    assert kinds(apart).count("Transpose") == 3 + bool(TURNS[way])
    for rows, length in ((1, 16), (5, 48), (9, 112)):
        shapes = [(1, rows, HEADS, WIDTH), (1, length, HEADS, WIDTH), (1, length, HEADS, WIDTH)]
        if not TURNS[way]:
            shapes[1] = (1, HEADS, length, WIDTH)
        feeds = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
        if masked:
            hidden = rng.random((1, 1, rows, length)) < 0.3
            feeds.append(np.where(hidden, np.float32(-1e9), np.float32(0)))
        assert np.allclose(ran(whole, feeds), ran(apart, feeds), rtol=0, atol=2e-6)


def test_causal_attention_is_left_whole() -> None:
    model = graph(TURNS["once"], masked=False, scaled=False, causal=True)
    take_apart(model)
    assert FUSED in kinds(model)
