"""Static ONNX graphs of 8-bit weights and 16-bit activations, for NPUs that compute in integers.

A graph of any size is run on calibration texts, its activations' ranges are noted, and quantising
and dequantising is written around every operator (``onnxruntime.quantization``, its recipe for
Qualcomm's HTP). That is done once: graphs of all sizes have the same scales, so a draft's rows and
plain decoding's differ by rounding only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize
from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config

from edgegen.devices import DeviceOptions, Placement, Session, device_named
from edgegen.devices.device import Feeds, Request, Tensor
from edgegen.errors import ExportError
from edgegen.graph import HIDDEN, Graph
from edgegen.manifest import Cache, Precision, Variant

from ..checkpoint import Weight
from ..families.base import Family
from ..ops.static_ops import QdqOps, StaticOps
from ..options import ExportOptions
from ..static import static_cache
from ..stepper import Stepper, memory_of
from .calibration import inputs_within, padding_within
from .onnx_static import Recorder
from .weight_file import WeightFile

TOKENS = 24
# A score this much below another has no part of it left in 16 bits: exp(-20) is 2e-9.
MARGIN = 20.0
# Rows of a call in turn, so that masks of one row and of several are seen.
CALLS = (1, 5)
PADDING = 4


def quantised(
    family: Family,
    folder: Path,
    file: WeightFile,
    weights: Mapping[str, Weight],
    options: ExportOptions,
) -> dict[str, tuple[onnx.ModelProto, Graph]]:
    """``encode`` and ``decode`` with rounded weights and activations; weights go into ``file``."""
    if family.shape.recurrent_width:
        raise ExportError(
            f"qdq: a {family.checkpoint.model_type} decoder's state is summed up over the whole "
            "text and loses its digits in 16 bits; use --weight-format fp32 or fp16."
        )
    texts = options.calibration or options.parity_prompts or family.parity_prompts
    with TemporaryDirectory(dir=folder) as name:
        at = Path(name)
        graphs = recorded(family, at / "float", weights, StaticOps)
        calls = calibrated(family, graphs, texts)
        far = min(beyond(graphs[part][0], calls[part]) for part in graphs)
        graphs = recorded(family, at / "near", weights, partial(QdqOps, far=far))
        return {
            part: (rounded(path, calls[part], file), graph)
            for part, (path, graph) in graphs.items()
            if part != "features"
        }


def recorded(
    family: Family, folder: Path, weights: Mapping[str, Weight], ops: Callable[..., StaticOps]
) -> dict[str, tuple[Path, Graph]]:
    """The family's graphs of any size as files in ``folder``, and their ports."""
    folder.mkdir()
    found: dict[str, tuple[Path, Graph]] = {}
    with closing(WeightFile(folder / "weights.data")) as dense:
        for part in family.graph_names():
            model, graph = Recorder(family, part, weights, dense, ops).recorded(0)
            found[part] = folder / f"{part}.onnx", graph
            onnx.save(model, found[part][0])
    return found


def beyond(path: Path, calls: Sequence[Feeds]) -> float:
    """What a mask must add for a score to be nothing beside any other: below 0 by as much as the
    scores seen are apart, and ``MARGIN``."""
    model = onnx.load(path, load_external_data=False)
    names = [node.input[0] for node in model.graph.node if node.op_type == "Softmax"]
    if not names:
        return -MARGIN
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    watched = path.with_name(f"{path.stem}-scores.onnx")
    onnx.save(model, watched)
    session = onnxruntime.InferenceSession(str(watched), providers=["CPUExecutionProvider"])
    least, most = 0.0, 0.0
    for feeds in calls:
        for given in session.run(names, dict(feeds)):
            scores = np.asarray(given)
            seen = scores[scores > HIDDEN / 2]
            least, most = min(least, float(seen.min())), max(most, float(seen.max()))
    return least - most - MARGIN


class Heard:
    """A session that keeps what it was fed."""

    def __init__(self, session: Session) -> None:
        self._session, self.calls = session, list[dict[str, Tensor]]()
        self.graph, self.device = session.graph, session.device
        self.memory, self.wide_masks = session.memory, session.wide_masks

    def request(self) -> Request:
        return HeardRequest(self, self._session.request())

    def placement(self) -> Placement:
        return self._session.placement()

    def close(self) -> None:
        self._session.close()


class HeardRequest:
    def __init__(self, session: Heard, request: Request) -> None:
        self._session, self._request = session, request
        self.bind = request.bind

    def run(self, feeds: Feeds) -> dict[str, Tensor]:
        self._session.calls.append(dict(feeds))
        return self._request.run(feeds)


class Reader:
    """Feeds one after another, as ``onnxruntime.quantization`` reads them."""

    def __init__(self, calls: Sequence[Mapping[str, NDArray[Any]]]) -> None:
        self._calls: Iterator[Mapping[str, NDArray[Any]]] = iter(calls)

    def get_next(self) -> dict[str, Any] | None:
        found = next(self._calls, None)
        return None if found is None else dict(found)


def calibrated(
    family: Family, graphs: Mapping[str, tuple[Path, Graph]], texts: Sequence[str]
) -> dict[str, list[dict[str, Tensor]]]:
    """What each graph is fed while the texts are answered greedily, by the graph's name."""
    device = device_named("ort-cpu")
    sessions: dict[str, Heard] = {}
    variants: dict[str, Variant] = {}
    for name, (path, graph) in graphs.items():
        cache = static_cache(family, name) if name == "decode" else Cache(kind="none")
        precision = Precision(weight_format="fp32")
        variants[name] = Variant(
            format="onnx", precision=precision, graph=graph, file=path.name, cache=cache
        )
        sessions[name] = Heard(device.compile(path, variants[name], DeviceOptions()))
    try:
        for text in texts:
            source, prompt = inputs_within(family, text, TOKENS)
            padding = padding_within(family, source, PADDING)
            memory = memory_of(sessions, source, padding) if "encode" in sessions else {}
            stepper = Stepper(sessions["decode"], variants["decode"], memory)
            most = len(prompt) + TOKENS + max(CALLS)
            _answer(stepper, prompt, family.generation().max_positions or most)
    finally:
        for session in sessions.values():
            session.close()
    return {name: session.calls for name, session in sessions.items()}


def _answer(stepper: Stepper, prompt: Sequence[int], most: int) -> None:
    """The prompt, then greedy tokens, with calls of several rows among them that do not stand;
    ``most`` positions there are."""
    row = stepper.decode(prompt)[-1]
    for at in range(min(TOKENS, most - stepper.length)):
        token = int(row.argmax())
        rows = min(CALLS[at % len(CALLS)], most - stepper.length)
        if rows > 1:
            stepper.decode([token] * rows, stand=False)
        row = stepper.decode([token])[-1]


def rounded(
    path: Path, calls: Sequence[Mapping[str, NDArray[Any]]], file: WeightFile
) -> onnx.ModelProto:
    """The graph at ``path`` with its weights and activations rounded, its weights in ``file``."""
    reader: Any = Reader(calls)  # the library's own class has no types
    level = logging.root.level
    with TemporaryDirectory(dir=path.parent) as folder:
        out = Path(folder) / path.name
        try:
            logging.root.setLevel(logging.ERROR)  # it warns of every operator it leaves alone
            config = get_qnn_qdq_config(
                str(path), reader, activation_type=QuantType.QUInt16,
                weight_type=QuantType.QUInt8,
            )  # fmt: skip
            quantize(str(path), str(out), config)
        except Exception as error:  # the library's own types are many
            first = str(error).strip().splitlines()[0][:300]
            raise ExportError(f"qdq: {path.stem} cannot be quantised: {first}") from error
        finally:
            logging.root.setLevel(level)
        model = onnx.load(out)
    stored = [
        file.tensor(tensor.name, np.asarray(onnx.numpy_helper.to_array(tensor)))
        for tensor in model.graph.initializer
    ]
    del model.graph.initializer[:]
    model.graph.initializer.extend(stored)
    return model
