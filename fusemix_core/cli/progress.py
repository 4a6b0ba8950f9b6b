"""A run shown on the terminal: bars with rate and time left, notes, stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from rich.progress import Progress, TaskID
from rich.text import Text

from fusemix_core.cli.console import Notes, err, progress
from fusemix_core.runs.reporter import Reporter


class ConsoleReporter(Reporter):
    """Shows a run on stderr. A context manager, so that the bars end cleanly. `notes` prints the
    notes."""

    def __init__(self, notes: Notes | None = None) -> None:
        self._notes = notes or Notes()
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self._close()

    def _close(self) -> None:
        if self._bars is not None:
            self._bars.stop()
        self._bars, self._tasks = None, {}

    def _bar(self, name: str, total: int | None, unit: str) -> tuple[Progress, TaskID]:
        if self._bars is None:
            self._bars = progress(unit)
            self._bars.start()
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total, note="")
        return self._bars, self._tasks[name]

    def stage(self, text: str) -> None:
        self._close()
        err.print(Text(text, style="bold"))

    def note(self, text: str) -> None:
        self._notes(text)

    def encoding(self, name: str, done: int, total: int) -> None:
        bars, task = self._bar(name, total, "items")
        bars.update(task, completed=done, total=total)

    def on_stage(self, text: str) -> None:
        self._close()
        err.print(Text(f"  {text}"))

    def on_start(self, total_steps: int | None) -> None:
        self._bar("steps", total_steps, "steps")

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._bars is not None and "steps" in self._tasks:
            self._bars.update(self._tasks["steps"], completed=step)

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._bars is not None and "steps" in self._tasks:
            recall = metrics.get("recall_at_1")
            note = "" if recall is None else f"validation R@1 {100 * recall:.1f}"
            self._bars.update(self._tasks["steps"], completed=step, note=note)

    def on_pairs(self, done: int, total: int) -> None:
        bars, task = self._bar("pairs", total, "pairs")
        bars.update(task, completed=done, total=total)
        if done == total:
            self._close()

    def on_interrupt(self) -> None:
        err.print("Stopping after this step. Ctrl-C again stops at once.", style="yellow")

    def on_end(self) -> None:
        self._close()
