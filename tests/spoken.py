"""A speech bundle whose model says what a test wrote: words, times, who speaks what language.

The window is 3 s at 1000 samples a second, a time step 20 samples, a word one byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import tiny_bundle
from numpy.typing import NDArray

from edgegen.bundle import Bundle
from edgegen.bundle_writer import BundleWriter
from edgegen.devices.device import DeviceOptions, Feeds, Tensor
from edgegen.devices.fake import FakeDevice
from edgegen.graph import Graph, Port
from edgegen.manifest import Cache, Component, GenerationDefaults, Speech, Tokenizer, Variant
from edgegen.runtime.engine import Engine
from edgegen.runtime.pipeline import Pipeline
from edgegen.runtime.speech import SpeechTask
from edgegen.runtime.tokenizer import ByteTokenizer

RATE, WINDOW, STEP = 1000, 3000, 20
START, ENGLISH, FRENCH, TRANSLATE, TRANSCRIBE, NOBODY, UNTIMED = range(260, 267)
END, TIMES = 1, 267
VOCABULARY = TIMES + WINDOW // STEP + 1
MULTILINGUAL = Speech(
    sample_rate=RATE,
    window_samples=WINDOW,
    timestamp_begin=TIMES,
    no_timestamps=UNTIMED,
    no_speech=NOBODY,
    tasks={"transcribe": TRANSCRIBE, "translate": TRANSLATE},
    languages={"en": ENGLISH, "fr": FRENCH},
)
ENGLISH_ONLY = msgspec.structs.replace(MULTILINGUAL, tasks={}, languages={})


def words(text: str) -> list[int]:
    return ByteTokenizer().encode(text, add_special=False)


def at(seconds: float) -> int:
    """The token of a time."""
    return TIMES + round(seconds * RATE / STEP)


def ramp(seconds: float) -> NDArray[np.float32]:
    """Sound that tells where it was cut: it grows by a thousandth every time step."""
    return (0.1 + np.arange(round(seconds * RATE)) / STEP / 1000).astype(np.float32)


@dataclass(kw_only=True)
class Script:
    """``lines[i]`` is what the model writes of the window that is heard i-th, end token left out.

    ``nobody`` is how likely that nobody speaks there, ``sure`` the log-probability of each token.
    """

    lines: Sequence[Sequence[int]]
    nobody: Mapping[int, float] = field(default_factory=dict[int, float])
    sure: Mapping[int, float] = field(default_factory=dict[int, float])
    language: int = ENGLISH
    languages: Mapping[int, int] = field(default_factory=dict[int, int])  # of single windows
    bare: bool = False  # the prompt is the start token alone
    heard: list[NDArray[np.float32]] = field(default_factory=list[NDArray[np.float32]])
    calls: list[list[int]] = field(default_factory=list[list[int]])  # tokens of decode calls

    @property
    def starts(self) -> list[float]:
        """Seconds of the ramp at which the windows began."""
        return [round((float(one[0]) - 0.1) * 1000) * STEP / RATE for one in self.heard]

    @property
    def prompts(self) -> list[list[int]]:
        """Special tokens fed for each window."""
        found: list[list[int]] = []
        for call in self.calls:
            special = [token for token in call if START <= token < TIMES]
            if START in special:
                found.append([])
            found[-1] += special
        return found

    def features(self, feeds: Feeds) -> Mapping[str, Tensor]:
        self.heard.append(np.array(feeds["samples"][0]))
        return {"features": np.full((1, 1), len(self.heard) - 1, np.float32)}

    def encode(self, feeds: Feeds) -> Mapping[str, Tensor]:
        return {"memory": feeds["features"]}

    def decode(self, feeds: Feeds) -> Mapping[str, Tensor]:
        window = int(feeds["memory"][0, 0])
        self.calls.append(feeds["tokens"][0].tolist())
        first = int(feeds["past_length"][0])
        logits = [self._row(window, first + int(row)) for row in feeds["logit_rows"]]
        new = np.zeros((1, len(self.calls[-1]), 1, 1), np.float32)
        return {"logits": np.stack(logits)[None], "new_key_0": new, "new_value_0": new}

    def _row(self, window: int, position: int) -> NDArray[np.float32]:
        if position == 0:
            return self._first_row(window)
        written = position - len(self.prompts[-1]) + 1
        line = [*self.lines[window], END]
        token = line[min(written, len(line) - 1)]
        return _sure_of(token, np.exp(self.sure.get(window, -0.01)))

    def _first_row(self, window: int) -> NDArray[np.float32]:
        row = _sure_of(NOBODY, self.nobody.get(window, 0.0))
        row[self.languages.get(window, self.language)] += 5
        if self.bare:
            row[self.lines[window][0]] = 20
        return row

    def pipeline(self, folder: Path, speech: Speech = MULTILINGUAL) -> Pipeline:
        """The bundle, written and opened on a fake device."""
        write(folder, speech)
        device = FakeDevice(
            {"features": self.features, "encode": self.encode, "decode": self.decode}
        )
        engine = Engine(Bundle.open(folder), device, DeviceOptions())
        return Pipeline(engine, SpeechTask(engine, {"source": ByteTokenizer()}), 0.0)


def _sure_of(token: int, probability: float) -> NDArray[np.float32]:
    """Logits that give ``token`` this probability and share the rest among the words."""
    row = np.full(VOCABULARY, -30, np.float32)
    row[3:START] = np.log(max(1e-9, 1 - probability) / (START - 3))
    row[token] = np.log(max(probability, 1e-9))
    return row


def write(folder: Path, speech: Speech) -> None:
    port = {
        "samples": Port(name="samples", dtype="float32", shape=("B", WINDOW)),
        "features": Port(name="features", dtype="float32", shape=("B", 1)),
        "memory": Port(name="memory", dtype="float32", shape=("B", 1)),
        "tokens": Port(name="tokens", dtype="int64", shape=("B", "n")),
        "past_length": Port(name="past_length", dtype="int64", shape=("B",)),
        "logit_rows": Port(name="logit_rows", dtype="int64", shape=("m",)),
        "logits": Port(name="logits", dtype="float32", shape=("B", "m", VOCABULARY)),
    }
    past = [f"past_{kind}_0" for kind in ("key", "value")]
    new = [f"new_{kind}_0" for kind in ("key", "value")]
    for names, rows in ((past, "past"), (new, "n")):
        port |= {n: Port(name=n, dtype="float32", shape=("B", rows, 1, 1)) for n in names}
    graphs = {
        "features": (["samples"], ["features"]),
        "encode": (["features"], ["memory"]),
        "decode": (["tokens", "past_length", "logit_rows", "memory", *past], ["logits", *new]),
    }

    cache = Cache(kind="append", layers=1, heads=1, head_dim=1)

    def component(name: str, ports: tuple[list[str], list[str]]) -> Component:
        ins, outs = (tuple(port[name] for name in names) for names in ports)
        variant: Variant = msgspec.structs.replace(
            tiny_bundle.variant(name),
            graph=Graph(name=name, inputs=ins, outputs=outs),
            cache=cache if name == "decode" else Cache(kind="none"),
            buckets={},
        )
        return Component(variants=(variant,))

    manifest = msgspec.structs.replace(
        tiny_bundle.manifest(),
        task="automatic-speech-recognition",
        vocabulary=VOCABULARY,
        speech=speech,
        generation=GenerationDefaults(start=(START,), end=(END,), max_positions=200),
        tokenizers={"source": Tokenizer(kind="bytes", offset=3)},
        components={name: component(name, ports) for name, ports in graphs.items()},
        drafts=(),
        parity=(),
    )
    with BundleWriter(folder) as writer:
        writer.add_file("graphs/onnx-int8/weights.bin", b"weights")
        for name in graphs:
            writer.add_file(f"graphs/onnx-int8/{name}.onnx", name.encode())
        writer.finish(manifest)
