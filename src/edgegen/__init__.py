"""edgegen: small encoder-decoder language models on devices without a server GPU.

    pipeline = edgegen.load("bundles/en-pt", device="ort-cpu", threads=1)
    print(pipeline.generate("The train leaves at nine.").text)

Names are imported when first used, so ``import edgegen`` loads no library at all. Neither is
anything told to the makers of one: ONNX Runtime's reporter is off from here on (see
``edgegen.unreported``).
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgegen.bundle import Bundle as Bundle
    from edgegen.errors import BundleError as BundleError
    from edgegen.errors import CacheFull as CacheFull
    from edgegen.errors import CheckpointError as CheckpointError
    from edgegen.errors import DeviceError as DeviceError
    from edgegen.errors import DeviceMissing as DeviceMissing
    from edgegen.errors import EdgegenError as EdgegenError
    from edgegen.errors import EdgegenWarning as EdgegenWarning
    from edgegen.errors import ExportError as ExportError
    from edgegen.errors import InputError as InputError
    from edgegen.errors import ParityError as ParityError
    from edgegen.errors import UnknownName as UnknownName
    from edgegen.manifest import Manifest as Manifest
    from edgegen.runtime.opening import load as load
    from edgegen.runtime.options import GenerationOptions as GenerationOptions
    from edgegen.runtime.pipeline import Gaps as Gaps
    from edgegen.runtime.pipeline import Pipeline as Pipeline
    from edgegen.runtime.pipeline import Result as Result

__version__ = "0.1.0"

# Read when ONNX Runtime is first imported, whoever does it. A value of the user's stays.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "Bundle",
    "BundleError",
    "CacheFull",
    "CheckpointError",
    "DeviceError",
    "DeviceMissing",
    "EdgegenError",
    "EdgegenWarning",
    "ExportError",
    "Gaps",
    "GenerationOptions",
    "InputError",
    "Manifest",
    "ParityError",
    "Pipeline",
    "Result",
    "UnknownName",
    "load",
]

_HOMES = {
    "Bundle": "edgegen.bundle",
    "BundleError": "edgegen.errors",
    "CacheFull": "edgegen.errors",
    "CheckpointError": "edgegen.errors",
    "DeviceError": "edgegen.errors",
    "DeviceMissing": "edgegen.errors",
    "EdgegenError": "edgegen.errors",
    "EdgegenWarning": "edgegen.errors",
    "ExportError": "edgegen.errors",
    "Gaps": "edgegen.runtime.pipeline",
    "GenerationOptions": "edgegen.runtime.options",
    "InputError": "edgegen.errors",
    "Manifest": "edgegen.manifest",
    "ParityError": "edgegen.errors",
    "Pipeline": "edgegen.runtime.pipeline",
    "Result": "edgegen.runtime.pipeline",
    "UnknownName": "edgegen.errors",
    "load": "edgegen.runtime.opening",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use and keep it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'edgegen' has no attribute {name!r}")
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
