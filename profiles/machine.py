"""The computer a profile is measured on, and the software on it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import edgegen
from edgegen.devices.machine import processor

from .record import Machine

LIBRARIES = ("numpy", "tokenizers", "msgspec")


def this_machine() -> Machine:
    """The computer and the software, as reports carry them."""
    import psutil

    versions = {"edgegen": edgegen.__version__}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Machine(
        system=platform.platform(),
        processor=processor(),
        cores=cores or 1,
        memory=int(psutil.virtual_memory().total),
        python=platform.python_version(),
        versions=versions,
    )
