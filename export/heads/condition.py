"""A classifier that estimates, from the decoder's hidden state, whether a text will be as wanted.

Two layers, trained on texts the model wrote itself, every beginning with the label of its finished
text: Yoshida et al., "MAP's not dead yet", arXiv 2311.08817. The graph takes ``hidden
[rows, width]`` and gives ``log_probability [rows]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgegen.bundle import Bundle
from edgegen.bundle_writer import BundleWriter
from edgegen.errors import ExportError
from edgegen.graph import Graph, Port
from edgegen.manifest import Component, ConditionComponent, Manifest, Precision, Variant

from ..ops.onnx_ops import IR_VERSION, OPSET, value_info

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """``inner`` neurons; ``epochs`` over all beginnings in batches of ``batch``."""

    inner: int = 128
    epochs: int = 20
    batch: int = 512
    learning_rate: float = 1e-3
    held_out: float = 0.1  # share of the texts
    seed: int = 0

    def __post_init__(self) -> None:
        whole = min(self.inner, self.epochs, self.batch)
        if whole < 1 or self.learning_rate <= 0 or not 0 < self.held_out < 1:
            raise ExportError(
                f"head options: sizes at least 1 and a share within 0 to 1, got {self}."
            )


@dataclass(frozen=True)
class Head:
    """``weights`` of the graph, and on texts it was not trained on the loss in nats a beginning:
    its own, and that of always giving the share of the labels."""

    weights: Mapping[str, Floats]
    loss: float
    base_loss: float


def fit(
    hidden: Floats, holds: NDArray[np.bool_], text: NDArray[np.int64], options: HeadOptions
) -> Head:
    """Train on ``hidden [N, width]`` with the labels ``holds [N]``; ``text [N]`` tells which rows
    are of one text. Raises ``ExportError`` when all labels are alike."""
    count = int(text.max()) + 1
    random = np.random.default_rng(options.seed)
    kept_back = random.permutation(count)[: max(1, round(count * options.held_out))]
    test = np.isin(text, kept_back)
    share = float(holds[~test].mean()) if (~test).any() else 0.0
    if not 0 < share < 1:
        said = "of every text" if share else "of no text"
        raise ExportError(
            f"the condition holds {said} of {count} sampled: there is nothing to learn; "
            "take more --samples, other sources or a higher --temperature."
        )
    mean = hidden[~test].mean(0)
    spread = hidden[~test].std(0) + 1e-5
    first, second = _train((hidden[~test] - mean) / spread, holds[~test], options)
    inner = first.weight.detach().numpy() / spread
    weights = {
        "inner.weight": inner.T,
        "inner.bias": first.bias.detach().numpy() - inner @ mean,
        "outer.weight": second.weight.detach().numpy().T,
        "outer.bias": second.bias.detach().numpy(),
    }
    weights = {name: np.ascontiguousarray(array, np.float32) for name, array in weights.items()}
    # The cost of a label that is not: log(1 - p) of what the graph says.
    chance = np.clip(np.exp(log_probability(hidden[test], weights)), 1e-7, 1 - 1e-7)
    return Head(weights, loss_of(chance, holds[test]), loss_of(share, holds[test]))


def loss_of(chance: Floats | float, holds: NDArray[np.bool_]) -> float:
    """Mean cross-entropy in nats."""
    said = np.where(holds, chance, 1 - np.asarray(chance))
    return float(-np.log(said).mean())


def _train(
    rows: Floats, holds: NDArray[np.bool_], options: HeadOptions
) -> tuple[torch.nn.Linear, torch.nn.Linear]:
    """The two layers, on rows of mean 0 and spread 1."""
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        first = torch.nn.Linear(rows.shape[1], options.inner)
        second = torch.nn.Linear(options.inner, 1)
        net = torch.nn.Sequential(first, torch.nn.ReLU(), second)
        x, y = torch.from_numpy(rows.astype(np.float32)), torch.from_numpy(holds.astype(np.float32))
        optimiser = torch.optim.AdamW(net.parameters(), lr=options.learning_rate, weight_decay=0.01)
        for _ in range(options.epochs):
            order = torch.randperm(len(x))
            for start in range(0, len(x), options.batch):
                part = order[start : start + options.batch]
                logits = net(x[part])[:, 0]
                loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, y[part])
                optimiser.zero_grad()
                torch.autograd.backward(loss)
                optimiser.step()
    return first, second


def log_probability(hidden: Floats, weights: Mapping[str, Floats]) -> Floats:
    """What the graph computes, in numpy: ``[rows]``."""
    inner = np.maximum(hidden @ weights["inner.weight"] + weights["inner.bias"], 0)
    logit = (inner @ weights["outer.weight"] + weights["outer.bias"])[:, 0]
    estimated: Floats = -np.logaddexp(np.float32(0), -logit)
    return estimated


def graph_of(width: int) -> Graph:
    return Graph(
        name="condition",
        inputs=(Port(name="hidden", dtype="float32", shape=("rows", width)),),
        outputs=(Port(name="log_probability", dtype="float32", shape=("rows",)),),
    )


def model_of(weights: Mapping[str, Floats]) -> onnx.ModelProto:
    """The graph with its weights inside: a few hundred kilobytes."""
    graph = graph_of(weights["inner.weight"].shape[0])
    node = helper.make_node
    nodes = [
        node("Gemm", ["hidden", "inner.weight", "inner.bias"], ["inner"]),
        node("Relu", ["inner"], ["active"]),
        node("Gemm", ["active", "outer.weight", "outer.bias"], ["logit"]),
        node("Neg", ["logit"], ["against"]),
        node("Softplus", ["against"], ["cost"]),
        node("Neg", ["cost"], ["column"]),
        node("Squeeze", ["column", "last"], ["log_probability"]),
    ]
    held: dict[str, NDArray[Any]] = {**weights, "last": np.array([1], np.int64)}
    recorded = helper.make_graph(
        nodes,
        graph.name,
        [value_info(port) for port in graph.inputs],
        [value_info(port) for port in graph.outputs],
        [numpy_helper.from_array(array, name) for name, array in held.items()],
    )
    return helper.make_model(
        recorded,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="edgegen",
    )


def add(bundle: Bundle, decode: Variant, condition: str, head: Head, output: Path) -> Manifest:
    """Write the bundle once more with the head for ``condition`` on the decoder ``decode``.

    A head the bundle has for both is replaced. ``output`` may be the bundle's own folder.
    """
    manifest = bundle.manifest
    target = next(file.sha256 for file in manifest.files if file.path == decode.file)
    old = {
        one.component
        for one in manifest.conditions
        if (one.condition, one.target_sha256) == (condition, target)
    }
    taken = set(manifest.components) - old
    name = next(n for i in range(len(taken) + 1) if (n := f"condition-{i}") not in taken)
    file = f"{decode.file.rpartition('/')[0]}/{name}.onnx"
    variant = Variant(
        format="onnx",
        precision=Precision(weight_format=decode.precision.weight_format),
        graph=graph_of(head.weights["inner.weight"].shape[0]),
        file=file,
    )
    dropped = {manifest.components[one].variants[0].file for one in old}
    components = {one: part for one, part in manifest.components.items() if one not in old}
    record = ConditionComponent(condition=condition, target_sha256=target, component=name)
    changed = msgspec.structs.replace(
        manifest,
        components={**components, name: Component(variants=(variant,))},
        conditions=(*(one for one in manifest.conditions if one.component not in old), record),
    )
    with BundleWriter(output) as writer:
        for one in manifest.files:
            if one.path not in dropped:
                writer.add_file(one.path, bundle.file(one.path))
        writer.add_file(file, model_of(head.weights).SerializeToString())
        return writer.finish(changed)
