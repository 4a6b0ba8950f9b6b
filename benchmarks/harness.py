"""What every benchmark shares: paired timing, bars, and the rows that a result is made of."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusemix_core.allocator import keep_freed_memory


@dataclass(frozen=True)
class Options:
    """What a benchmark gets: `data`, a folder of datasets, where it needs real data; `scratch`, an
    empty folder for what it generates; `quick`, to show in a minute that it works."""

    scratch: Path
    data: Path | None = None
    threads: int = 2
    quick: bool = False


@dataclass(frozen=True)
class Bar:
    """What a ratio must be: at most `limit`, or at least it."""

    limit: float
    at_least: bool = False

    def met(self, ratio: float) -> bool:
        return ratio >= self.limit if self.at_least else ratio <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"


@dataclass(frozen=True)
class Row:
    """One figure, and how it stands to its reference measured in the same run.

    `ratio` is value / reference unless `name` and `reference` say otherwise (rates, speed-ups).
    `details` are plain values for plots and tables of the benchmark's own.
    """

    name: str
    value: float
    unit: str
    reference: str = ""
    ratio: float | None = None
    bar: Bar | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


def interleaved(
    forms: Mapping[str, Callable[[], object]], repeats: int = 7, warmups: int = 1
) -> dict[str, list[float]]:
    """Seconds of each form, run in turn (a b c, a b c, …) so that drift of the machine's speed
    falls on all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for repeat in range(warmups + repeats):
        for name, run in forms.items():
            start = time.perf_counter()
            run()
            if repeat >= warmups:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def with_usual_memory(run: Callable[[], object]) -> Callable[[], None]:
    """A form run with memory as torch leaves it, large blocks mapped afresh at each use, among
    others that keep them as the engine does."""

    def wrapped() -> None:
        keep_freed_memory(32 << 20)
        try:
            run()
        finally:
            keep_freed_memory()

    return wrapped


def ratio(seconds: Mapping[str, list[float]], name: str, of: str) -> float:
    """The median over the turns of `name`'s time in units of `of`'s."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[of], strict=True))


def median(values: list[float]) -> float:
    return statistics.median(values)
