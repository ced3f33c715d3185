"""What there is to run on: every device of the table, and what the backends say of the machine.

Detection is the backends' own; nothing here probes hardware.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edgegen.errors import DeviceMissing

from . import DEVICES, device_named
from .onnxruntime import load_onnxruntime
from .openvino import load_openvino, reason


@dataclass(frozen=True, kw_only=True)
class DeviceEntry:
    """``usable``: edgegen has a device of that name. ``why``: the reason it is not available;
    ``caveat``: what is to be known before its results are believed."""

    name: str
    usable: bool
    available: bool
    why: str = ""
    caveat: str = ""
    details: dict[str, str] = field(default_factory=dict[str, str])


def list_devices() -> list[DeviceEntry]:
    """edgegen's devices first, then ONNX Runtime's providers and OpenVINO's devices here."""
    return [*_table(), *_onnxruntime(), *_openvino()]


def _table() -> list[DeviceEntry]:
    found: list[DeviceEntry] = []
    for name in DEVICES:
        device = device_named(name)
        why = device.missing()
        found.append(
            DeviceEntry(
                name=name,
                usable=True,
                available=why is None,
                why=why or "",
                caveat=device.limits.caveat,
                details=device.describe() if why is None else {},
            )
        )
    return found


def _onnxruntime() -> list[DeviceEntry]:
    """Providers built into the installed wheel, and the hardware its plugins claim."""
    try:
        ort: Any = load_onnxruntime()
    except DeviceMissing as error:
        return [DeviceEntry(name="onnxruntime", usable=False, available=False, why=str(error))]
    built = ort.get_available_providers()
    claimed: dict[str, dict[str, str]] = {}
    for place in ort.get_ep_devices():
        kind = str(place.device.type).rpartition(".")[2]
        seen = claimed.setdefault(place.ep_name, {"vendor": place.ep_vendor})
        seen[f"hardware {len(seen)}"] = f"{kind} {place.device.vendor}".strip()
    return [
        DeviceEntry(
            name=f"onnxruntime:{provider}",
            usable=False,
            available=provider in built or provider in claimed,
            why=""
            if provider in built or provider in claimed
            else f"the installed onnxruntime {ort.__version__} was built without it",
            details=claimed.get(provider, {}),
        )
        for provider in dict.fromkeys([*built, *claimed, *ort.get_all_providers()])
    ]


# A device's name, and a property only a present device of that kind can tell.
OPENVINO_PROBES = {"CPU": "FULL_DEVICE_NAME", "GPU": "FULL_DEVICE_NAME", "NPU": "DEVICE_TYPE"}
OPENVINO_DETAILS = (
    "FULL_DEVICE_NAME",
    "DEVICE_TYPE",
    "DEVICE_ARCHITECTURE",
    "OPTIMIZATION_CAPABILITIES",
    "GPU_DEVICE_TOTAL_MEM_SIZE",
    "NPU_DRIVER_VERSION",
)


def _openvino() -> list[DeviceEntry]:
    try:
        core: Any = load_openvino().Core()
    except DeviceMissing as error:
        return [DeviceEntry(name="openvino", usable=False, available=False, why=str(error))]
    seen = [str(name) for name in core.available_devices]
    kinds = {name.partition(".")[0] for name in seen}
    found = [
        DeviceEntry(
            name=f"openvino:{name}", usable=False, available=True, details=_details(core, name)
        )
        for name in seen
    ]
    for name, probe in OPENVINO_PROBES.items():
        if name not in kinds:
            found.append(
                DeviceEntry(
                    name=f"openvino:{name}",
                    usable=False,
                    available=False,
                    why=_why_missing(core, name, probe),
                )
            )
    return found


def _details(core: Any, name: str) -> dict[str, str]:
    supported = {str(key) for key in core.get_property(name, "SUPPORTED_PROPERTIES")}
    found: dict[str, str] = {}
    for key in OPENVINO_DETAILS:
        if key in supported:
            value = core.get_property(name, key)
            found[key] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return found


def _why_missing(core: Any, name: str, probe: str) -> str:
    try:
        core.get_property(name, probe)
    except Exception as error:  # the backend's own types are not public
        return reason(error)
    return "the plugin answers but lists no such device"
