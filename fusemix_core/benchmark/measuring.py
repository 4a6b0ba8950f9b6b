"""What a fit costs and how it went: its time, its memory, and the validation scores on the way."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fusemix_core.interfaces import Callback

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


def clock(device: torch.device) -> float:
    """Seconds that a limit counts: of the processor, in all threads, where the fit runs on it, so
    that other work on the machine makes no difference; else of the clock on the wall."""
    if device.type == "cpu":
        return time.process_time()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


Point = tuple[float, float, int, float, float]


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


@dataclass
class Course(Callback):
    """How a fit went: its number of steps, and its course on validation."""

    began: tuple[float, float] = field(default_factory=_now)
    steps: int = 0
    points: list[Point] = field(default_factory=list)
    last: Point | None = None

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        self.steps = step

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        if "score" not in metrics or "recall_at_1" not in metrics:
            return
        wall, cpu = (now - began for now, began in zip(_now(), self.began, strict=True))
        self.last = wall, cpu, step, 100 * metrics["recall_at_1"], 100 * metrics["score"]
        if not self.points or self.last[-1] > self.points[-1][-1]:
            self.points.append(self.last)

    def trajectory(self) -> list[list[float]]:
        """`[seconds, cpu_seconds, step, R@1, score]` of each evaluation that was the best so far,
        and of the last one; seconds since the start, shares in percent."""
        points = list(self.points)
        if self.last is not None and self.last != points[-1]:
            points.append(self.last)
        return [[round(number, 3) for number in point] for point in points]


@dataclass
class Cost:
    """The time and memory of what is done inside `with Cost() as cost`."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    memory_mb: float | None = None

    def __enter__(self) -> Cost:
        with contextlib.suppress(OSError):  # not Linux, or not allowed: no memory then
            _RESET.write_text("5")  # the peak counts from here
        self._before = _memory("VmRSS"), time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        before, cpu, wall = self._before
        self.seconds, self.cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
        peak = _memory("VmHWM")
        if before is not None and peak is not None:
            self.memory_mb = max(peak - before, 0.0)

    def facts(self) -> dict[str, Any]:
        """`seconds`, `cpu_seconds` in all threads, and `memory_mb`: the most main memory beyond
        what was held before; absent if the system does not say."""
        found = {"seconds": round(self.seconds, 3), "cpu_seconds": round(self.cpu_seconds, 3)}
        return found if self.memory_mb is None else found | {"memory_mb": round(self.memory_mb)}


def _memory(name: str) -> float | None:
    """A line of this process's status in MB."""
    with contextlib.suppress(OSError, ValueError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1000
    return None
