"""Devices that are execution providers of ONNX Runtime: built in, or in a library of their own.

What a library brings is asked of ONNX Runtime (``get_ep_devices``); nothing here probes hardware.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from edgegen.errors import DeviceMissing
from edgegen.manifest import Variant

from .device import DeviceOptions, Limits, Session
from .onnxruntime import MISSING, Provider, compile_session, load_onnxruntime
from .ort_memory import first_line

# ONNX Runtime keeps arithmetic on sizes and positions, which are integers, off GPUs.
COUNTING = (
    "Shape",
    "Size",
    "Add",
    "Sub",
    "Neg",
    "Min",
    "Max",
    "Range",
    "Cast",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "Concat",
    "Gather",
)


class OrtProvider(ABC):
    """Base of these devices: found, described, and compiled for with nothing left to the CPU that
    ``limits`` does not declare."""

    name: str
    limits: ClassVar[Limits]
    provider: str  # ONNX Runtime's name
    package: str = ""  # a package that brings it as a library
    remedy: str  # how to come by it
    memory: str = ""  # where its own lies, if arrays may be left there, in ONNX Runtime's words
    contexts: bool = False

    def missing(self) -> str | None:
        if find_spec("onnxruntime") is None:
            return MISSING
        try:
            self.found()
        except DeviceMissing as error:
            return str(error)
        return None

    def found(self) -> tuple[Any, ...]:
        """The library's devices; none where the provider is built in. Raises ``DeviceMissing``."""
        ort = load_onnxruntime()
        claimed = claimed_by(ort, self.provider)
        if claimed:
            return claimed
        if self.provider in ort.get_available_providers():
            return ()
        if not self.package or find_spec(self.package) is None:
            raise DeviceMissing(
                f"{self.provider} is not part of onnxruntime {ort.__version__}; {self.remedy}"
            )
        register(ort, self.provider, import_module(self.package).get_library_path())
        claimed = claimed_by(ort, self.provider)
        if not claimed:
            raise DeviceMissing(
                f"{self.package} finds no hardware that it drives; check the driver, or use "
                "another device"
            )
        return claimed

    @abstractmethod
    def options(self, places: tuple[Any, ...], options: DeviceOptions) -> Mapping[str, str]:
        """What the provider is told."""

    def describe(self) -> dict[str, str]:
        ort, places = load_onnxruntime(), self.found()
        told = {"hardware": hardware(places) or "told by the driver when a graph is compiled"}
        told["onnxruntime"] = ort.__version__
        for place in places[:1]:
            if version := place.ep_metadata.get("version"):
                told["provider"] = version
            if driver := place.device.metadata.get("DriverVersion"):
                told["driver"] = driver
        return told

    def compile(self, file: Path, variant: Variant, options: DeviceOptions) -> Session:
        places = self.found()
        provider = Provider(
            name=self.provider,
            options=self.options(places, options),
            places=places,
            memory=self.memory,
            cpu_ops=self.limits.cpu_ops,
            cache=options.cache_of(self.limits) if self.contexts else None,
            versions=self.describe(),
        )
        return compile_session(file, variant, options, self.name, provider)


def claimed_by(ort: Any, provider: str) -> tuple[Any, ...]:
    """What the libraries known so far offer under a provider's name."""
    return tuple(place for place in ort.get_ep_devices() if place.ep_name == provider)


def register(ort: Any, name: str, library: str) -> None:
    """Make a library known to ONNX Runtime, where it is not yet. Raises ``DeviceMissing``."""
    try:
        ort.register_execution_provider_library(name, library)
    except Exception as error:  # the library's own types are not public
        if "already registered" not in str(error):
            raise DeviceMissing(
                f"ONNX Runtime cannot load the provider library {library}: {first_line(error)}"
            ) from error


def kind_of(place: Any) -> str:
    """CPU, GPU or NPU: what the library says that its hardware is."""
    return str(place.device.type).rpartition(".")[2]


def hardware(places: tuple[Any, ...]) -> str:
    """Makers and kinds, for people."""
    named = (f"{place.device.vendor or place.ep_vendor} {kind_of(place)}" for place in places)
    return ", ".join(dict.fromkeys(named))
