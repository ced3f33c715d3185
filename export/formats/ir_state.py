"""The decode graph with its keys and values in the backend instead of in its ports.

Made of an ``append`` graph: each past becomes a variable that is read and assigned. The rows that
stand are gathered before the new ones follow, so a caller goes back by naming them the next time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgegen.devices.openvino import load_openvino
from edgegen.graph import Graph, Port

ov = load_openvino()
opset13, op = ov.opset13, ov.op
KEPT = Port(name="kept", dtype="int64", shape=("past",))


def keep_inside(model: Any, graph: Graph) -> tuple[Any, Graph]:
    """A stateful copy of an ``append`` decode model, and its ports; constants are shared.

    A state has the id of the port it was, starts empty with each request and holds
    ``[B, rows, heads, head_dim]``.
    """
    model = model.clone()
    past = [port for port in graph.inputs if port.name.startswith(("past_key_", "past_value_"))]
    places = {name: node for node in model.get_parameters() for name in node.output(0).get_names()}
    kept = opset13.parameter([-1], np.int64, name=KEPT.name)
    kept.output(0).set_names({KEPT.name})
    batch = opset13.gather(
        opset13.shape_of(places["tokens"], output_type="i64"),
        opset13.constant(np.array([0])),
        opset13.constant(0),
    )
    results = {name: node for node in model.get_results() for name in names_of(node)}
    assigned: list[Any] = []
    for port in past:
        stand, variable = remembered(port, batch, kept)
        new = results[port.name.replace("past_", "new_")].input(0).get_source_output()
        assigned.append(op.assign(follow(places[port.name], stand, new), variable))
    gone = {port.name for port in past}
    inputs = tuple(port for port in graph.inputs if port.name not in gone)
    outputs = tuple(port for port in graph.outputs if not port.name.startswith("new_"))
    model_of: Any = ov.Model  # its stub cannot be bound
    made = model_of(
        [results[port.name] for port in outputs],
        assigned,
        [*(places[port.name] for port in inputs), kept],
        graph.name,
    )
    return made, Graph(name=graph.name, inputs=(*inputs, KEPT), outputs=outputs)


def names_of(result: Any) -> set[str]:
    return set(result.input(0).get_source_output().get_names())


def remembered(port: Port, batch: Any, kept: Any) -> tuple[Any, Any]:
    """The rows of a new variable that stand, and the variable."""
    heads, dim = port.shape[2:]
    info = op.util.VariableInfo()
    info.variable_id, info.data_type = port.name, ov.Type.f32
    info.data_shape = ov.PartialShape([-1, -1, heads, dim])
    variable = op.util.Variable(info)
    shape = opset13.concat([batch, opset13.constant(np.array([0, heads, dim]))], 0)
    empty = opset13.broadcast(opset13.constant(np.float32(0)), shape)
    return opset13.gather(op.read_value(empty, variable), kept, opset13.constant(1)), variable


def follow(past: Any, stand: Any, new: Any) -> Any:
    """Put what stands in the past's place; that and the new rows as one."""
    users = list(past.output(0).get_target_inputs())
    for user in users:
        user.replace_source_output(stand.output(0))
    for node in (user.get_node() for user in users):
        # Attention has joined them already, unless it puts the source before them.
        if node.get_type_name() == "Concat" and node.get_input_size() == 2:
            return node
    return opset13.concat([stand, new], 1)
