"""Where an OpenVINO decoder's keys and values are held: by the caller, or by the backend.

    python bench/caches.py               T5-small's shape under random weights, int8, one thread
    python bench/caches.py --weight-format fp32 --threads 2

Both graphs run in turns over the same tokens, as the runtime runs them: n rows a call, of which
half stand. Prints medians of a call in milliseconds, and the median ratio of neighbouring calls.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from transformers import T5Config, T5ForConditionalGeneration

from edgegen.devices import DeviceOptions, Session, device_named
from edgegen.export.checkpoint import Checkpoint, Origin, Weight
from edgegen.export.families.t5 import T5
from edgegen.export.formats import openvino
from edgegen.export.options import CACHES, ExportOptions
from edgegen.manifest import Variant
from edgegen.runtime.decoder import Decoder

SHAPE: dict[str, Any] = {
    "vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6,
    "num_decoder_layers": 6, "num_heads": 8, "decoder_start_token_id": 0,
}  # fmt: skip
SOURCE, CALLS = 64, 12


def family() -> T5:
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(**SHAPE))
    weights = {name: Weight.of(tensor.numpy()) for name, tensor in model.state_dict().items()}
    origin = Origin(source="random weights", kind="memory")
    return T5(
        Checkpoint(config=model.config.to_dict(), weights=weights, tokenizers={}, origin=origin)
    )


class Side:
    """One kind of cache on a session of its own."""

    def __init__(self, folder: Path, variants: dict[str, Variant], key: str, threads: int) -> None:
        options, device = DeviceOptions(threads=threads), device_named("ov-cpu")
        self.variant = variants[key]

        def compiled(variant: Variant) -> Session:
            return device.compile(folder / Path(variant.file).name, variant, options)

        feeds = {
            "input_ids": np.full((1, SOURCE), 7),
            "source_mask": np.zeros((1, SOURCE), np.float32),
        }
        encoded = compiled(variants["encode"]).request().run(feeds)
        self.memory = {name: array.copy() for name, array in encoded.items()}
        self.memory["source_mask"] = feeds["source_mask"].astype(np.float32)
        self.session = compiled(self.variant)

    def calls(self, past: int, tokens: Sequence[int]) -> Iterator[float]:
        """Seconds of each call of ``n`` tokens, the first half of which stands."""
        decoder = Decoder(self.session, self.variant, self.memory)
        decoder.forward([7] * past, first_row=past - 1)
        decoder.keep(past)
        for _ in range(CALLS):
            start = perf_counter()
            decoder.forward(tokens)
            decoder.keep(decoder.length + (len(tokens) + 1) // 2)
            yield perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weight-format", default="int8")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=12)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = ExportOptions(
            model="-",
            output=folder,
            formats=("openvino",),
            weight_format=asked.weight_format,
            caches=CACHES["openvino"],
        )
        variants = openvino.write(family(), folder, options)
        keys = ("decode", "decode+stateful")
        sides = [Side(folder, variants, key, asked.threads) for key in keys]
        print("past   n  append  stateful  stateful/append")
        for past in (8, 32, 64, 128, 256):
            for n in (1, 4, 8):
                compare(sides, past, n, asked.rounds)


def compare(sides: Sequence[Side], past: int, n: int, rounds: int) -> None:
    tokens = [int(i) for i in np.random.default_rng(n).integers(3, 32000, n)]
    pairs: list[tuple[float, ...]] = []
    for _ in range(rounds):
        # One call of each in turn, so that both see the same machine.
        pairs += zip(*(side.calls(past, tokens) for side in sides), strict=True)
    append, stateful = (1e3 * median(found) for found in zip(*pairs, strict=True))
    ratio = median(mine / other for other, mine in pairs)
    print(f"{past:4} {n:3} {append:7.3f} {stateful:9.3f} {ratio:10.3f}")


if __name__ == "__main__":
    main()
