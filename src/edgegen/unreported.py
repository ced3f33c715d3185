"""Libraries imported so that they do not tell their makers what they are used for.

ONNX Runtime's wheels for Linux, Windows and macOS keep a number for the machine and a queue of
events (program, processor, system, sessions) under the user's home and send them, unless
``ORT_DISABLE_TELEMETRY`` is in the environment when it is imported (its Privacy.md): ``edgegen``
puts it there. OpenVINO and NNCF bring a reporter in Python, which is kept from being imported here.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager

REPORTER = "openvino_telemetry"
_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def unreported() -> Generator[None]:
    """While OpenVINO or NNCF is imported: both then do without their reporter for good.

    With it each import, conversion and compression is told over the network, and files are left in
    the user's home. To do so the process is forked from another thread, at which OpenBLAS stops its
    own (``pthread_atfork`` in its memory.c): a product of NumPy's that is under way then waits for
    them forever, and an export stands still. Nothing changes for who has imported it before.
    """
    with _ONE_AT_A_TIME:
        if REPORTER in sys.modules:
            yield
            return
        sys.modules[REPORTER] = None  # type: ignore[assignment] # "cannot be imported"
        try:
            yield
        finally:
            del sys.modules[REPORTER]
