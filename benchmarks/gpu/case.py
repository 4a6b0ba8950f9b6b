"""What every section is given: the device, sizes, a stopwatch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Bar, Row
from fusemix_core.paired import PairedLatents, ResidentLatents

Job = Callable[[], Iterable[Row]]
Jobs = Iterator[tuple[str, Job]]
"""Named parts of a section. If one fails, the others still run."""

GB = 1e9


@dataclass(frozen=True)
class Timing:
    """The median of several runs, and the most device memory that one of them took."""

    seconds: float
    peak_gb: float

    @property
    def ms(self) -> float:
        return 1e3 * self.seconds


@dataclass(frozen=True)
class Case:
    """Where a section measures.

    Args:
        device: the GPU, or in a rehearsal the CPU.
        scratch: an empty folder.
        quick: at sizes that a CPU takes, to show that every line runs.
    """

    device: torch.device
    scratch: Path
    quick: bool = False

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    def size(self, full: int, quick: int) -> int:
        """`full`, or in a rehearsal `quick`."""
        return quick if self.quick else full

    def wait(self) -> None:
        """Return when the device has done all that it was given."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def once(self, run: Callable[[], object]) -> Timing:
        """One run, without a warm-up."""
        return self.timed(run, repeats=1, warmups=0)

    def timed(self, run: Callable[[], object], repeats: int = 7, warmups: int = 2) -> Timing:
        """Several runs, each waited for; in a rehearsal one."""
        repeats, warmups = (1, min(warmups, 1)) if self.quick else (repeats, warmups)
        for _ in range(warmups):
            run()
        self.wait()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        seconds = []
        for _ in range(repeats):
            began = time.perf_counter()
            run()
            self.wait()
            seconds.append(time.perf_counter() - began)
        peak = torch.cuda.max_memory_allocated(self.device) if self.cuda else 0
        return Timing(statistics.median(seconds), peak / GB)

    def pairs(
        self, count: int, widths: dict[str, int], where: torch.device | None = None
    ) -> PairedLatents:
        """Paired float16 latents of these widths: noisy maps of the same causes."""
        where = where or self.device
        generator = torch.Generator(where).manual_seed(0)

        def drawn(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, device=where)

        causes, tables = drawn(count, 64), {}
        for modality, width in widths.items():
            rows = torch.empty(count, width, dtype=torch.float16, device=where)
            mix = drawn(64, width) / 8
            for part, own in zip(rows.split(65_536), causes.split(65_536), strict=True):
                part.copy_(own @ mix + drawn(len(part), width) / 2)
            tables[modality] = ResidentLatents(rows)
        return PairedLatents(tables, torch.arange(count)[:, None].repeat(1, len(widths)))


def against(
    name: str, value: float, unit: str, goal: float | None, details: dict[str, Any] | None = None
) -> Row:
    """A figure that should be at most `goal`, if there is one."""
    if goal is None:
        return Row(name, value, unit, details=details or {})
    return Row(name, value, unit, f"{goal:g} {unit}", value / goal, Bar(1.0), details or {})
