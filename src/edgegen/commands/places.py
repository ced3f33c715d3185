"""Arguments of ``edgegen run`` that say where and in which precision."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from .arguments import option

PLACE = "Device"

Device = Annotated[
    str | None,
    option(
        "--device", panel=PLACE, metavar="NAME",
        help='Where to run: a name that "edgegen devices" lists, or one a part, as in '
        "encode=ov-cpu,decode=ort-cpu. Default: where the plan measured here says, or ort-cpu.",
    ),
]  # fmt: skip
Placement = Annotated[
    Path | None,
    option(
        "--placement", panel=PLACE, metavar="FILE",
        help="Plan that says where parts run, of edgegen profile --plan.",
    ),
]  # fmt: skip
Fallback = Annotated[
    str | None,
    option(
        "--fallback", panel=PLACE, metavar="LIST",
        help="Devices that take over, in order, from one that is missing or fails. Default: none.",
    ),
]  # fmt: skip
SourceCache = Annotated[
    float | None,
    option(
        "--source-cache", panel=PLACE, metavar="MB",
        help="Memory for encoded sources, which are not encoded again when they come again. "
        "Default: none.",
    ),
]  # fmt: skip
Threads = Annotated[int, Option(metavar="N", help="Processor threads.", rich_help_panel=PLACE)]
Precision = Annotated[
    str | None,
    option(
        "--precision", panel=PLACE, metavar="FORMAT",
        help="Weight format, where the bundle has several, or one a part, as in "
        "encode=fp32,decode=int8. Default: the narrowest.",
    ),
]  # fmt: skip
Static = Annotated[
    bool,
    option(
        "--static", panel=PLACE,
        help="Run graphs of fixed sizes, as devices that compile one shape do anyway.",
    ),
]  # fmt: skip
Exact = Annotated[
    bool,
    option(
        "--exact/--fast", panel=PLACE,
        help="Float arithmetic in float32, or in what the device does faster (bfloat16...). "
        "Default: exact.",
    ),
]  # fmt: skip
CacheDir = Annotated[
    str,
    option(
        "--cache-dir", panel=PLACE, metavar="DIR",
        help="Where devices keep compiled graphs: a folder; auto, the user's cache, for those that "
        "take long to compile (GPU, NPU); or none. What --draft auto measures is kept in any case. "
        "Default: auto.",
    ),
]  # fmt: skip
NoVerify = Annotated[
    bool,
    option("--no-verify", panel=PLACE, help="Open the bundle without hashing its files."),
]
