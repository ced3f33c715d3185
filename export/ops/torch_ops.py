"""The torch body of the operation set: what a graph means, in float32.

The parity gate uses it for architectures transformers does not have; training can differentiate
through it. Nothing here is quantised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..checkpoint import Weight
from .base import Ops
from .specs import Norm

UNARY: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "erf": torch.erf,
    "sqrt": torch.sqrt,
    "log": torch.log,
    "cos": torch.cos,
    "sin": torch.sin,
    "neg": torch.neg,
    "abs": torch.abs,
}
BINARY: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "max": torch.maximum,
    "min": torch.minimum,
    "greater": torch.gt,
    "less_equal": torch.le,
}


class TorchOps(Ops[Tensor]):
    """Evaluate a family's graph on feeds (port name -> array or tensor)."""

    def __init__(self, weights: Mapping[str, Weight], feeds: Mapping[str, Any]) -> None:
        super().__init__()
        self.weights = weights
        self.feeds = {name: torch.as_tensor(value) for name, value in feeds.items()}
        self._parameters: dict[str, Tensor] = {}

    def input(self, name: str) -> Tensor:
        return self.feeds[name]

    def constant(self, value: Any, dtype: str = "float32") -> Tensor:
        return torch.from_numpy(np.asarray(value, dtype=dtype))

    def parameter(self, name: str) -> Tensor:
        if name not in self._parameters:
            self._parameters[name] = torch.from_numpy(self.weights[name].read())
        return self._parameters[name]

    def linear(self, x: Tensor, weight: str, bias: str | None = None) -> Tensor:
        return functional.linear(
            x, self.parameter(weight), None if bias is None else self.parameter(bias)
        )

    def gather_rows(self, table: str, ids: Tensor) -> Tensor:
        return self.parameter(table)[ids]

    def unary(self, kind: str, x: Tensor) -> Tensor:
        return UNARY[kind](x)

    def binary(self, kind: str, x: Tensor, y: Tensor) -> Tensor:
        return BINARY[kind](x, y)

    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.matmul(x, y)

    def softmax(self, x: Tensor) -> Tensor:
        return torch.softmax(x, -1)

    def transpose(self, x: Tensor, order: Sequence[int]) -> Tensor:
        return x.permute(*order)

    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        return x.reshape([x.shape[i] if dim == 0 else dim for i, dim in enumerate(shape)])

    def unsqueeze(self, x: Tensor, axis: int) -> Tensor:
        return x.unsqueeze(axis)

    def split(self, x: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        return list(torch.split(x, list(sizes), -1))

    def concat(self, values: Sequence[Tensor], axis: int) -> Tensor:
        return torch.cat(list(values), axis)

    def gather(self, x: Tensor, indices: Tensor, axis: int) -> Tensor:
        flat = torch.index_select(x, axis, indices.reshape(-1))
        return flat.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])

    def where(self, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return torch.where(condition, x, y)

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        return x.to(getattr(torch, dtype))

    def mean(self, x: Tensor, axis: int) -> Tensor:
        return x.mean(axis, keepdim=True)

    def maximum(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        return x.amax(list(axes), keepdim=True)

    def conv1d(self, x: Tensor, weight: str, bias: str | None, stride: int, padding: int) -> Tensor:
        offset = None if bias is None else self.parameter(bias)
        return functional.conv1d(x, self.parameter(weight), offset, stride, padding)

    def pad_reflect(self, x: Tensor, left: int, right: int) -> Tensor:
        return functional.pad(x[:, None], (left, right), mode="reflect")[:, 0]

    def arange(self, like: Tensor, axis: int) -> Tensor:
        return torch.arange(like.shape[axis])

    def size(self, x: Tensor, axis: int) -> Tensor:
        return torch.tensor(x.shape[axis])

    def latest(self, x: Tensor, rows: Tensor, axis: int) -> Tensor:
        return x.narrow(axis, x.shape[axis] - int(rows), int(rows))

    def norm(self, x: Tensor, spec: Norm) -> Tensor:
        weight = self.parameter(spec.weight)
        if spec.kind == "layer":
            bias = None if spec.bias is None else self.parameter(spec.bias)
            return functional.layer_norm(x, weight.shape, weight, bias, spec.eps)
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + spec.eps) * weight

    def follow_parents(
        self, keep: Tensor, gain: Tensor, states: Tensor, parents: Tensor, positions: Tensor
    ) -> Tensor:
        standing, rows = len(states), list(states)
        keeps, gains = keep.flatten(0, 1), gain.flatten(0, 1)
        for j, parent in enumerate(parents.flatten().tolist()):
            rows.append(keeps[j] * rows[parent + standing] + gains[j])
        return torch.stack(rows[standing:]).reshape(keep.shape)
