"""Memory of several texts that one decode call reads: a batch row, a seat, for each.

Texts have lengths of their own; a row of a call sees its own text alone. Seats are kept packed at
the front, so a call is as wide as there are texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgegen.devices.device import Feeds, Tensor
from edgegen.graph import HIDDEN
from edgegen.manifest import Variant

from .buffers import Rows, check_room
from .decoder import Decoder, bind_memory

FIRST_ROWS = 64
FREE = ("S", "K")  # what sources differ in: tokens, and words of a shortlist
Floats = NDArray[np.float32]


class SeatedCache:
    """What a seated text knows of its cache: how long it is."""

    def __init__(self, length: int) -> None:
        self.length = length

    def before(self, n: int, back: int = 1) -> Feeds:
        raise RuntimeError("a seated text is decoded with the others")

    def after(self, outputs: Feeds, n: int) -> None:
        raise RuntimeError("a seated text is decoded with the others")

    def keep(self, length: int, rows: Sequence[int] = ()) -> None:
        self.length = length + len(rows)

    def reach(self, length: int) -> int:
        return min(length, self.length)

    def standing(self) -> Floats:
        raise RuntimeError("a seated text is decoded with the others")


def can_seat(decoder: Decoder) -> bool:
    """Whether the text's memory is of a kind that several texts can have side by side."""
    record = decoder.variant.cache
    plain = not record.window_layers and not record.memory_first and not decoder.variant.static
    return not decoder.branching and plain and record.kind in ("in_place", "append", "recurrent")


class Seats:
    """``size`` seats for texts of one decode graph."""

    def __init__(self, decoder: Decoder, size: int) -> None:
        self._variant: Variant = decoder.variant
        self._request = decoder.session.request()
        self._ports = {port.name: port for port in decoder.variant.graph.inputs}
        self._limit, self._size = decoder.limit, size
        self._taken: list[tuple[Decoder, SeatedCache]] = []
        self._memory: dict[str, Tensor] = {}
        self._bound = (0, 0, 0)  # texts, rows and source length the request's memory is for
        record = self._variant.cache
        self._time_axis = 3 if record.kind == "in_place" else 2
        if record.kind == "recurrent":
            self._array: Rows = np.zeros((record.layers, size, record.head_dim), np.float32)
        else:
            self._array = self._zeros(FIRST_ROWS)

    def _zeros(self, capacity: int) -> Rows:
        record = self._variant.cache
        shape = [2 * record.layers, self._size, record.heads, record.head_dim]
        shape.insert(self._time_axis, capacity + record.spare)
        return np.zeros(shape, record.dtype)

    @property
    def _recurrent(self) -> bool:
        return self._variant.cache.kind == "recurrent"

    # ------------------------------------------------------------ seats

    def take(self, decoder: Decoder) -> None:
        """Give a text a seat: its memory and the rows it has are copied there."""
        seat, length = len(self._taken), decoder.length
        standing = decoder.standing()
        if self._recurrent:
            self._array[:, seat] = standing
        else:
            self._reserve(length)
            self._array[:, seat][self._span(length)] = standing
        self._remember(seat, decoder.memory)
        cache = SeatedCache(length)
        decoder.sit(cache)
        self._taken.append((decoder, cache))

    def leave(self, decoder: Decoder) -> None:
        """Free a text's seat; the last text moves there."""
        seat = next(i for i, (one, _) in enumerate(self._taken) if one is decoder)
        last = self._taken.pop()
        if last[0] is decoder:
            return
        self._taken[seat] = last
        end = len(self._taken)
        if self._recurrent:
            self._array[:, seat] = self._array[:, end]
        else:
            span = self._span(last[1].length)
            self._array[:, seat][span] = self._array[:, end][span]
        for array in self._memory.values():
            array[seat] = array[end]

    def _span(self, length: int) -> tuple[slice, ...]:
        """Rows up to ``length`` of one seat."""
        return (slice(None),) * (self._time_axis - 1) + (slice(0, length),)

    def _reserve(self, rows: int) -> None:
        held = self._array.shape[self._time_axis] - self._variant.cache.spare
        if rows > held:
            grown = self._zeros(max(2 * held, rows))
            for old, new in zip(self._array.swapaxes(0, 1), grown.swapaxes(0, 1), strict=True):
                new[self._span(held)] = old[self._span(held)]
            self._array, self._bound = grown, (0, 0, 0)

    def _remember(self, seat: int, memory: Feeds) -> None:
        """Keys, values, mask and words of a source, padded to the longest of the seats."""
        for name, given in memory.items():
            port = self._ports.get(name)
            if port is None:
                continue
            axis = next((i for i, dim in enumerate(port.shape) if dim in FREE), None)
            held = self._memory.get(name)
            size = 0 if axis is None else given.shape[axis]
            if held is None or (axis is not None and held.shape[axis] < size):
                shape = [self._size, *given.shape[1:]]
                blank = HIDDEN if name == "source_mask" else np.float32(0)
                grown = np.full(shape, blank, given.dtype)
                if held is not None and axis is not None:
                    whole = [slice(None)] * held.ndim
                    whole[axis] = slice(0, held.shape[axis])
                    grown[tuple(whole)] = held
                self._memory[name], self._bound = grown, (0, 0, 0)
            part: list[slice | int] = [seat, *[slice(None)] * (given.ndim - 1)]
            if axis is not None:
                if name == "source_mask":
                    self._memory[name][seat] = HIDDEN
                part[axis] = slice(0, size)
            self._memory[name][tuple(part)] = given[0]

    # ------------------------------------------------------------ calls

    def forward(self, tokens: Mapping[Decoder, int]) -> dict[Decoder, Floats]:
        """One token for each seated text; logits ``[1, V]`` by text, the row kept when it says so.

        Views of a buffer the next call writes over.
        """
        texts, lengths = len(self._taken), self._lengths()
        longest = int(lengths.max())
        check_room(longest + 1, self._limit)
        if not self._recurrent:
            self._reserve(longest + 1)
        self._bind(texts)
        outputs = self._request.run(self._feeds(tokens, lengths, longest))
        self._after(outputs, lengths)
        logits = outputs["logits"]
        return {one: one.whole(logits[seat]) for seat, (one, _) in enumerate(self._taken)}

    def _lengths(self) -> NDArray[np.int64]:
        return np.array([cache.length for _, cache in self._taken], np.int64)

    def _bind(self, texts: int) -> None:
        """Give the request the seats taken; what is seated behind them is not read."""
        rows = 0 if self._recurrent else self._array.shape[self._time_axis]
        longest = max((array.shape[-1] for array in self._memory.values()), default=0)
        if self._bound == (texts, rows, longest):
            return
        self._bound = (texts, rows, longest)
        taken = {name: array[:texts] for name, array in self._memory.items()}
        bind_memory(self._request, self._variant.graph, taken)
        record = self._variant.cache
        for i in range(record.layers):
            if record.kind == "recurrent":
                self._request.bind(f"state_{i}", self._array[i, :texts])
            elif record.kind == "in_place":
                for part, kind in enumerate(("key", "value")):
                    memory = self._array[2 * i + part, :texts]
                    self._request.bind(f"{kind}_cache_{i}", memory)
                    self._request.bind(f"{kind}_cache_out_{i}", memory)

    def _feeds(
        self, tokens: Mapping[Decoder, int], lengths: NDArray[np.int64], longest: int
    ) -> dict[str, Tensor]:
        """The ports of docs/bundle.md for one row of each text.

        A cache in place takes a text's new row behind its last; others take it behind the longest.
        """
        texts = len(lengths)
        columns = np.arange(longest + 1)
        seen = columns[None] <= lengths[:, None]
        places = np.broadcast_to(columns, (texts, longest + 1)).copy()
        if self._variant.cache.kind != "in_place":
            seen = (columns[None] < lengths[:, None]) | (columns == longest)
            places[:, longest] = lengths
        every: dict[str, Tensor] = {
            "tokens": np.array([[tokens[decoder]] for decoder, _ in self._taken], np.int64),
            "positions": lengths[:, None].copy(),
            "past_length": lengths,
            "key_positions": places,
            "visible": np.where(seen, np.float32(0), HIDDEN)[:, None],
            "parents": np.arange(-texts, 0)[:, None],
            "logit_rows": np.zeros(1, np.int64),
        }
        feeds = {name: array for name, array in every.items() if name in self._ports}
        if self._variant.cache.kind == "append":
            for i in range(self._variant.cache.layers):
                for part, kind in enumerate(("key", "value")):
                    past = self._array[2 * i + part, :texts, :longest]
                    feeds[f"past_{kind}_{i}"] = np.ascontiguousarray(past)
        return feeds

    def _after(self, outputs: Feeds, lengths: NDArray[np.int64]) -> None:
        kind, texts = self._variant.cache.kind, len(lengths)
        for i in range(self._variant.cache.layers):
            if kind == "recurrent":
                self._array[i, :texts] = outputs[f"new_state_{i}"][:, 0]
            elif kind == "append":
                for part, name in enumerate(("key", "value")):
                    new = outputs[f"new_{name}_{i}"]
                    self._array[2 * i + part, np.arange(texts), lengths] = new[:, 0]
