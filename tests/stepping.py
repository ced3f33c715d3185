"""Drives a decode graph by its ports alone, so that graphs and backends are compared without the
runtime's own loop. The torch body of a family stands in as one more session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgegen.devices.device import Feeds, Placement, Session, Tensor
from edgegen.export.families.base import Family
from edgegen.export.ops.torch_ops import TorchOps
from edgegen.graph import HIDDEN, Graph
from edgegen.manifest import Cache

Floats = NDArray[np.float32]


class TorchRequest:
    """Evaluates a family's graph in torch."""

    def __init__(self, family: Family, name: str) -> None:
        self._family, self._name = family, name
        self._bound: dict[str, Tensor] = {}

    def bind(self, name: str, array: Tensor) -> None:
        self._bound[name] = array

    def run(self, feeds: Feeds) -> dict[str, Tensor]:
        ops = TorchOps(self._family.weights(), {**self._bound, **feeds})
        with torch.no_grad():
            getattr(self._family, self._name)(ops)
        return {name: value.numpy() for name, value in ops.results.items()}


class TorchSession:
    """The truth: the operation set's torch body, over an append or recurrent cache."""

    device = "torch"
    memory, wide_masks = None, False

    def __init__(self, family: Family, name: str) -> None:
        kind = "recurrent" if family.shape.recurrent_width else "append"
        self.graph: Graph = family.graph(name, kind)
        self._family = family

    def request(self) -> TorchRequest:
        return TorchRequest(self._family, self.graph.name)

    def placement(self) -> Placement:
        return Placement(home=self.device)

    def close(self) -> None: ...


def encode(session: Session, ids: Sequence[int], padding: int = 0) -> dict[str, Tensor]:
    """The source's memory and mask, right-padded by ``padding`` hidden places."""
    padded = np.array([[*ids, *[0] * padding]], np.int64)
    mask = np.zeros(padded.shape, np.float32)
    mask[:, len(ids) :] = HIDDEN
    feeds: dict[str, Any] = {"input_ids": padded, "source_mask": mask}
    wanted = {name: feeds[name] for name in session.graph.input_names()}
    found = session.request().run(wanted)
    return {"source_mask": mask, **{name: array.copy() for name, array in found.items()}}


class Steps:
    """One text on a decode session. ``length`` may be set back to forget rows."""

    def __init__(self, session: Session, memory: Feeds, cache: Cache, capacity: int = 48) -> None:
        self._names = session.graph.input_names()
        self._request = session.request()
        self._kind, self._layers = cache.kind, cache.layers
        self.length = 0
        for name, array in memory.items():
            if name in self._names:
                self._request.bind(name, array)
        size = (capacity, cache.heads, cache.head_dim)
        if cache.kind == "in_place":
            size = (cache.heads, capacity, cache.head_dim)
        self._rows: dict[str, Floats] = {
            f"{part}_{i}": np.zeros((1, *size), np.float32)
            for i in range(cache.layers)
            for part in ("key", "value")
        }
        if cache.kind == "in_place":
            for name, array in self._rows.items():
                part, i = name.split("_")
                self._request.bind(f"{part}_cache_{i}", array)
                self._request.bind(f"{part}_cache_out_{i}", array)

    def feed(self, tokens: Sequence[int], parents: Sequence[int] | None = None) -> Floats:
        """Logits ``[n, vocabulary]``; the rows are kept."""
        n, past = len(tokens), self.length
        chain = list(range(-1, n - 1))
        outputs = self.run(self.call(tokens, chain if parents is None else parents))
        if self._kind == "append":
            for name, array in self._rows.items():
                array[:, past : past + n] = outputs[f"new_{name}"]
        self.length += n
        return np.array(outputs["logits"][0])

    def run(self, call: Feeds) -> dict[str, Tensor]:
        """The outputs of one call, whose rows are not kept."""
        feeds = {name: array for name, array in call.items() if name in self._names}
        if self._kind == "append":
            feeds |= {f"past_{name}": array[:, : self.length] for name, array in self._rows.items()}
        return self._request.run(feeds)

    def call(self, tokens: Sequence[int], parents: Sequence[int]) -> dict[str, Tensor]:
        """The decode ports but cache and memory: positions by depth, a row sees its ancestors."""
        n, past = len(tokens), self.length
        depth: list[int] = []
        visible = np.full((1, n, past + n), HIDDEN, np.float32)
        visible[:, :, :past] = 0
        for row, parent in enumerate(parents):
            depth.append(0 if parent < 0 else depth[parent] + 1)
            if parent >= 0:
                visible[0, row] = visible[0, parent]
            visible[0, row, past + row] = 0
        return {
            "tokens": np.array([tokens], np.int64),
            "positions": np.array([depth], np.int64) + past,
            "past_length": np.array([past], np.int64),
            "key_positions": np.array([[*range(past), *(past + d for d in depth)]], np.int64),
            "visible": visible,
            "parents": np.array([parents], np.int64),
            "logit_rows": np.arange(n, dtype=np.int64),
        }


def error(found: Floats, truth: Floats) -> float:
    """The largest difference relative to the truth's scale."""
    return float(np.abs(found - truth).max() / np.abs(truth).max())
