"""OpenVINO IR whose graphs share one weight file: each content stored once.

IR keeps its constants as ``offset`` and ``size`` into a ``.bin`` that belongs to one graph. Here
the constants of every graph are moved to one file and the offsets written anew, which
``Core.read_model(xml, bin)`` maps like any other. Format: docs.openvino.ai, "OpenVINO IR format".
"""

from __future__ import annotations

import mmap
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from edgegen.devices.openvino import load_openvino
from edgegen.errors import ExportError
from edgegen.graph import Graph, Port

from .weight_file import WeightFile

ov = load_openvino()


def save(model: Any, path: Path, file: WeightFile) -> None:
    """Write ``path`` (.xml) with its constants in ``file``."""
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        lone = Path(name) / path.name
        ov.save_model(model, lone, compress_to_fp16=False)
        tree = ElementTree.parse(lone)
        with lone.with_suffix(".bin").open("rb") as source:
            _move_constants(tree, source.fileno(), file)
    _mark_widening(tree)
    tree.write(path, encoding="utf-8", xml_declaration=True)


def _move_constants(tree: Any, source: int, file: WeightFile) -> None:
    """Every ``Const``, those inside loop bodies too."""
    with mmap.mmap(source, 0, access=mmap.ACCESS_READ) as data:
        for layer in tree.iter("layer"):
            if layer.get("type") != "Const":
                continue
            said = layer.find("data")
            start, size = int(said.get("offset")), int(said.get("size"))
            if not size:
                continue
            offset, _ = file.place(np.frombuffer(data[start : start + size], np.uint8))
            said.set("offset", str(offset))


def _mark_widening(tree: Any) -> None:
    """Say that a narrow constant's ``Convert`` is a decompression, so devices keep it narrow."""
    for scope in (*tree.iter("net"), *tree.iter("body")):
        layers = {layer.get("id"): layer for layer in scope.iterfind("layers/layer")}
        for edge in scope.iterfind("edges/edge"):
            source, target = layers[edge.get("from-layer")], layers[edge.get("to-layer")]
            if source.get("type") != "Const" or target.get("type") != "Convert":
                continue
            if source.find("data").get("element_type") not in ("f16", "bf16"):
                continue
            if target.find("rt_info") is None:
                marks = ElementTree.Element("rt_info")
                ElementTree.SubElement(marks, "attribute", name="decompression", version="0")
                target.insert(1, marks)


def check(path: Path, file: Path, graph: Graph) -> None:
    """The graph as a device will read it has the ports it should; ``ExportError`` if not."""
    model = ov.Core().read_model(path, file)
    faults: list[str] = []
    for side, ports, found in (
        ("input", graph.inputs, model.inputs),
        ("output", graph.outputs, model.outputs),
    ):
        if len(ports) != len(found):
            faults.append(f"{len(found)} {side}s where {len(ports)} were written")
        for port, place in zip(ports, found, strict=False):
            if not _same(port, place):
                faults.append(f"{side} {port} came back as {place}")
    if faults:
        raise ExportError(
            f"{path.name}: OpenVINO changed the ports: {'; '.join(faults)}. Export to onnx instead."
        )


def _same(port: Port, place: Any) -> bool:
    shape = place.get_partial_shape()
    return (
        port.name in place.get_names()
        and place.get_element_type().to_dtype() == np.dtype(port.dtype)
        and len(shape) == len(port.shape)
        and all(
            said.is_dynamic or said.get_length() == dim
            for said, dim in zip(shape, port.shape, strict=True)
            if isinstance(dim, int)
        )
    )
