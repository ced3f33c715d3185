"""Devices: one file each, one line here. A device compiles a graph file into a ``Session``."""

from __future__ import annotations

from collections.abc import Callable

from edgegen.registry import Registry

from .device import Device, DeviceOptions, Placement, Request, Session

DEVICES: Registry[type[Device]] = Registry(
    "device",
    {
        "ort-cpu": "edgegen.devices.ort_cpu:OrtCpu",
        "ort-cuda": "edgegen.devices.ort_cuda:OrtCuda",
        "ort-webgpu": "edgegen.devices.ort_webgpu:OrtWebgpu",
        "ort-qnn": "edgegen.devices.ort_qnn:OrtQnn",
        "ov-cpu": "edgegen.devices.ov_cpu:OvCpu",
        "ov-gpu": "edgegen.devices.ov_gpu:OvGpu",
        "ov-npu": "edgegen.devices.ov_npu:OvNpu",
    },
)
# Devices that are told which library they are: KIND:LIBRARY.
PLUGINS: Registry[Callable[[str], Device]] = Registry(
    "kind of device library", {"ort": "edgegen.devices.ort_plugin:OrtPlugin"}
)

__all__ = [
    "DEVICES",
    "PLUGINS",
    "Device",
    "DeviceOptions",
    "Placement",
    "Request",
    "Session",
    "device_named",
]


def device_named(name: str) -> Device:
    """The device of that name, or of that ``KIND:LIBRARY``. Raises ``UnknownName``."""
    kind, _, library = name.partition(":")
    return PLUGINS[kind](library) if library else DEVICES[name]()
