"""Devices: one file each, one line here. A device compiles a graph file into a ``Session``."""

from __future__ import annotations

from edgegen.registry import Registry

from .device import Device, DeviceOptions, Request, Session

DEVICES: Registry[type[Device]] = Registry(
    "device",
    {
        "ort-cpu": "edgegen.devices.ort_cpu:OrtCpu",
        "ov-cpu": "edgegen.devices.ov_cpu:OvCpu",
    },
)

__all__ = ["DEVICES", "Device", "DeviceOptions", "Request", "Session", "device_named"]


def device_named(name: str) -> Device:
    """The device of that name. Raises ``UnknownName``."""
    return DEVICES[name]()
