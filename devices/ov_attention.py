"""Attention of an OpenVINO graph in single operators: products, the mask, softmax.

A graph says most of it as one ScaledDotProductAttention. The CPU takes that apart itself, unless
keys are a state of its own, and then copies all keys in every call to turn them; of a product with
a turned factor they are read where they are. Numbers are the same up to the rounding of the scale.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def take_apart(model: Any) -> None:
    """Replace each ScaledDotProductAttention with what it stands for, in place."""
    from openvino import opset13

    for node in model.get_ordered_ops():
        if node.get_type_name() != "ScaledDotProductAttention" or node.get_attributes()["causal"]:
            continue  # what is causal has no mask to add
        query, keys, values, *further = node.input_values()
        mask = further[0] if further else None
        scale = further[1] if len(further) > 1 else ruled(query)
        asked = opset13.multiply(query, scale)
        scores = opset13.matmul(asked, transposed_once(keys), False, True)
        if mask is not None:
            scores = opset13.add(scores, mask)
        mixed = opset13.matmul(opset13.softmax(scores, -1), values, False, False)
        mixed.set_friendly_name(node.get_friendly_name())
        for target in list(node.output(0).get_target_inputs()):
            target.replace_source_output(mixed.output(0))
    model.validate_nodes_and_infer_types()


def ruled(query: Any) -> Any:
    """The scale where none is said: one over the root of a head's width."""
    from openvino import opset13

    width = query.get_partial_shape()[-1].get_length()
    return opset13.constant(np.float32(width**-0.5))


def transposed_once(value: Any) -> Any:
    """The same of one transposition where it comes of two: of two the library makes another one."""
    from openvino import opset13

    outer, orders = value.get_node(), list[Any]()
    while outer.get_type_name() == "Transpose":
        order = outer.input_value(1).get_node()
        if order.get_type_name() != "Constant":
            break
        orders.append(order.get_data())
        value = outer.input_value(0)
        outer = value.get_node()
    if not orders:
        return value
    whole = orders[-1]
    for order in reversed(orders[:-1]):
        whole = whole[order]
    return opset13.transpose(value, opset13.constant(whole))
