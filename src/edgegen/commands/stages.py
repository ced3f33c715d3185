"""The stages of a long job on standard error, each with the seconds it took."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.text import Text

from .console import stderr


class Seconds(ProgressColumn):
    """How long a stage has taken, or took."""

    def render(self, task: Task) -> Text:
        seconds = task.finished_time if task.finished else task.elapsed
        return Text(f"{seconds or 0.0:6.1f} s")


class Stages:
    """Called with each stage when it begins. A terminal shows all of them and their seconds as they
    pass; elsewhere a stage is one line when it begins."""

    def __init__(self) -> None:
        self._console = stderr()
        self._progress = Progress(
            SpinnerColumn("line", finished_text=" "),
            Seconds(),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._running: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._finish()
        self._progress.stop()

    def __call__(self, stage: str) -> None:
        if self._progress.disable:
            self._console.print(stage, soft_wrap=True)
            return
        self._finish()
        self._running = self._progress.add_task(stage, total=1)

    def _finish(self) -> None:
        if self._running is not None:
            self._progress.update(self._running, completed=1)
