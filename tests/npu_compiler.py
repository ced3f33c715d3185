"""Intel's NPU compiler on Linux: the one of OpenVINO's Windows wheel, under Wine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

GCC, WINE = "x86_64-w64-mingw32-gcc", "wine"
PROGRAM = Path(__file__).with_name("npu_compile.c")
# NPU 3720 is Meteor Lake's and Arrow Lake's, 4000 Lunar Lake's, 5010 Panther Lake's.
PLATFORMS = ("3720", "4000", "5010")


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """A graph's blob in bytes, or 0 and the compiler's reason."""

    graph: str
    seconds: float
    size: int
    reason: str = ""


def missing() -> str:
    """What to install, in one line; empty where nothing is missing."""
    if not sys.platform.startswith("linux"):
        return "Wine is used on Linux; on Windows OpenVINO's own wheel has the compiler"
    lacking = [program for program in (GCC, WINE) if shutil.which(program) is None]
    if not lacking:
        return ""
    return f"{' and '.join(lacking)} not found: apt install gcc-mingw-w64-x86-64 wine64 wine"


class Compiler:
    """In ``folder``, kept between runs: the wheel's libraries and a program that calls them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / version("openvino").partition("-")[0]
        if not (self.folder / "compile.exe").exists():
            self._install()

    def _install(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        wanted = f"openvino=={self.folder.name}"
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        windows = ["--only-binary", ":all:", "--platform", "win_amd64", "--python-version", "3.11"]
        subprocess.run([*download, *windows, wanted, "-d", str(self.folder)], check=True)
        (wheel,) = self.folder.glob("*.whl")
        with ZipFile(wheel) as packed:
            for name in packed.namelist():
                if name.startswith("openvino/libs/") and name.endswith((".dll", ".json")):
                    (self.folder / Path(name).name).write_bytes(packed.read(name))
        wheel.unlink()
        built = self.folder / "compile.exe"
        subprocess.run([GCC, "-O1", "-o", str(built), str(PROGRAM)], check=True)

    def compile(self, graphs: Sequence[Path], weights: Path, platform: str) -> list[Compiled]:
        """Graphs that share a weight file, in turn."""
        environment = {**os.environ, "WINEPREFIX": str(self.folder / "wine"), "WINEDEBUG": "-all"}
        named = [f"Z:{path.resolve()}" for path in (weights, *graphs)]
        ran = subprocess.run(
            [WINE, "compile.exe", platform, named[0], "out.blob", *named[1:]],
            cwd=self.folder, env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        found = [read(line) for line in ran.stdout.splitlines() if line[:3] in ("ok ", "no ")]
        assert len(found) == len(graphs), ran.stdout + ran.stderr
        return found


def read(line: str) -> Compiled:
    """A line of the program's."""
    kind, seconds, rest = line.split(" ", 2)
    if kind == "ok":
        size, _, graph = rest.partition(" ")
        return Compiled(graph=Path(graph).name, seconds=float(seconds), size=int(size))
    graph, _, reason = rest.partition(".xml: ")
    return Compiled(graph=f"{Path(graph).name}.xml", seconds=float(seconds), size=0, reason=reason)
