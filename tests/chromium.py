"""Headless Chromium for tests: a page opened at a width, and what it said, fetched and looked like.

Speaks the DevTools protocol over two pipes (``--remote-debugging-pipe``): JSON, each ended by NUL.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--remote-debugging-pipe",
)  # fmt: skip


def installed() -> str | None:
    """The browser's path; None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@dataclass
class Seen:
    """What a page did while it was open. Widths in CSS pixels."""

    errors: list[str] = field(default_factory=list[str])
    requests: list[str] = field(default_factory=list[str])
    page_width: int = 0
    picture: bytes = b""


class Chromium:
    """One browser with one page."""

    def __init__(self, program: str) -> None:
        self._folder = TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        # The browser takes its two pipes at descriptors 3 and 4, whatever they are numbered here.
        shell = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        command = ["bash", "-c", shell, "bash", program, *FLAGS]
        self._process = subprocess.Popen(
            [*command, f"--user-data-dir={self._folder.name}", "about:blank"],
            pass_fds=(to_browser, from_browser),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._held, self._count = b"", 0
        self._events: list[dict[str, Any]] = []
        self._session = ""
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._ask(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._session = ""
        self._ask("Browser.close")
        self._process.wait(timeout=30)
        os.close(self._write)
        os.close(self._read)
        self._folder.cleanup()

    def open(self, page: Path, width: int, height: int = 900, *, dark: bool = False) -> Seen:
        """Load a file and look at it."""
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])
        self._events.clear()
        address = page.resolve().as_uri()
        self._ask("Page.navigate", url=address)
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._receive()
        widest = self._value("document.documentElement.scrollWidth")
        picture = self._ask("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        seen = Seen(page_width=widest, picture=base64.b64decode(picture))
        for event in self._events:
            self._note(event, seen, address)
        return seen

    def _note(self, event: dict[str, Any], seen: Seen, address: str) -> None:
        told = event["params"]
        if event["method"] == "Network.requestWillBeSent":
            asked = told["request"]["url"]
            if asked != address and not asked.startswith("data:"):
                seen.requests.append(asked)
        elif event["method"] in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            seen.errors.append(json.dumps(told)[:300])
        elif event["method"] == "Log.entryAdded":
            seen.errors.append(told["entry"]["text"])

    def _value(self, expression: str) -> int:
        found: int = self._ask("Runtime.evaluate", expression=expression)["result"]["value"]
        return found

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"chromium: {method}: {answer['error']['message']}")
                found: dict[str, Any] = answer["result"]
                return found

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._held:
            more = os.read(self._read, 1 << 16)
            if not more:
                raise RuntimeError("chromium: it ended")
            self._held += more
        line, _, self._held = self._held.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        if "method" in message:
            self._events.append(message)
        return message
