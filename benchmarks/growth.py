"""How time and memory of the closed forms grow with the pairs and with the modalities.

python -m benchmarks.growth PAIRS MODALITIES THREADS     # one fit, for `measure`
python -m benchmarks.growth PAIRS HOME THREADS           # one from the store in HOME
"""

from __future__ import annotations

import math
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from benchmarks.feed import drop_cache
from benchmarks.generated import generate, open_pairs
from benchmarks.harness import Bar, Options, Row
from fusemix_core.aligners.recalls import mean_recall, recalls
from fusemix_core.interfaces import FitContext, PairedLatents, ResidentLatents
from fusemix_core.registry import registry
from fusemix_core.runs.config import find_recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Growth"
ABOUT = """
The closed forms of the default recipe (`--set adapter=none`) on generated latents in memory
(float16), each fit in a process of its own. The network that follows them ends when it gains no
more, so that its time says more of the data than of their number. Shown are the time of the whole
fit and, in the plot, its peak memory beyond the latents. The latents have a
spectrum that falls as a power of the rank, as encoders' do, and share 64 hidden causes between
modalities. The ratio is to the fit before: how much more time ten times the pairs, or one modality
more, take. Bars in seconds hold for two cores that nothing else uses. The last fit is all of
`auto` on latents of widths 1536 and 1024 in a store on disk that the system's cache has forgotten;
its network trains for 100 steps, and the memory is that of the whole process.
"""

PAIRS = (1_000, 10_000, 100_000, 1_000_000)
MODALITIES = (2, 3, 4, 5)
OF_MODALITIES = 10_000
"""Pairs of the fits with more modalities."""

FROM_DISK = 5_000_000
"""Pairs of the fit whose latents are larger than the memory."""

SECONDS = {(10_000, 2): 8, (10_000, 5): 60}
"""What fits of so many pairs and modalities may take."""

TIMES, PEAK_GB = 12.0, 4.0
"""How many times the time ten times the pairs may take; the memory beyond the latents."""

WIDTHS = (1280, 384, 512, 768, 1024)
CAUSES = 64
CHUNK = 50_000


def measure(options: Options) -> Iterator[Row]:
    pairs = PAIRS[:2] if options.quick else PAIRS
    yield from grown("pairs", [(n, 2) for n in pairs], options.threads)
    if not options.quick:
        yield from grown("modalities", [(OF_MODALITIES, k) for k in MODALITIES], options.threads)
    yield from from_disk(20_000 if options.quick else FROM_DISK, options)


def from_disk(pairs: int, options: Options) -> Iterator[Row]:
    """All of `auto` on a generated store that isn't in memory."""
    generate(options.scratch / "disk", pairs)
    seconds, peak, score = fitted(pairs, options.scratch / "disk", options.threads)
    name = f"{pairs:,} pairs from a cold disk, with a network"
    yield Row(name, seconds, "s", "", None, None, details={"score": score})
    gigabytes = peak / 1024
    yield Row(
        f"{name}, peak memory", gigabytes, "GB", f"{PEAK_GB:g} GB", gigabytes / PEAK_GB, Bar(1.0)
    )


def grown(axis: str, cases: Sequence[tuple[int, int]], threads: int) -> Iterator[Row]:
    before = None
    for pairs, count in cases:
        seconds, peak, score = fitted(pairs, count, threads)
        yield Row(
            f"{pairs:,} pairs, {count} modalities",
            seconds,
            "s",
            "" if before is None else "the fit before",
            None if before is None else seconds / before,
            Bar(TIMES) if axis == "pairs" and before is not None else None,
            details={
                "axis": axis,
                "pairs": pairs,
                "modalities": count,
                "peak_mb": peak,
                "score": score,
            },
        )
        yield from limits(axis, pairs, count, seconds, peak)
        before = seconds


def limits(axis: str, pairs: int, count: int, seconds: float, peak: float) -> Iterator[Row]:
    """The bars of one fit by itself: its seconds, if it has such a bar, and its memory."""
    name = f"{pairs:,} pairs, {count} modalities"
    most = SECONDS.get((pairs, count))
    if most is not None and (axis == "modalities") == (count > 2):
        yield Row(f"{name}, time", seconds, "s", f"{most} s", seconds / most, Bar(1.0))
    gigabytes = peak / 1024
    yield Row(
        f"{name}, peak memory", gigabytes, "GB", f"{PEAK_GB:g} GB", gigabytes / PEAK_GB, Bar(1.0)
    )


def fitted(pairs: int, of: int | Path, threads: int) -> tuple[float, float, float]:
    """(seconds, peak MB beyond the latents in memory, validation score) of a fit in its own
    process, of so many modalities or of the store in a folder."""
    command = [sys.executable, "-m", "benchmarks.growth", str(pairs), str(of), str(threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, peak, score = map(float, done.stdout.split()[-3:])
    return seconds, peak, score


def plot(rows: Sequence[Row], figure: Figure) -> None:
    axes = figure.subplots(1, 2)
    for axis, of in zip(("pairs", "modalities"), axes, strict=True):
        own = [r for r in rows if r.details.get("axis") == axis]
        at = [r.details[axis] for r in own]
        of.plot(at, [r.value for r in own], marker="o", color="tab:blue")
        of.set_ylabel("seconds", color="tab:blue")
        memory = of.twinx()
        memory.plot(at, [r.details["peak_mb"] for r in own], marker="s", color="tab:orange")
        memory.set_ylabel("peak MB beyond the latents", color="tab:orange")
        of.set_xlabel(axis)
        if axis == "pairs":
            of.set_xscale("log")
            of.set_yscale("log")


def latents(pairs: int, width: int, causes: Tensor, seed: int) -> Tensor:
    """float16 `[pairs, width]`: the causes and as much noise, on axes of falling variance."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.arange(1, width + 1).float().pow(-0.5)
    turn = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q
    place = torch.randperm(width // 2, generator=generator)[:CAUSES]
    out = torch.empty(pairs, width, dtype=torch.float16)
    for at in range(0, pairs, CHUNK):
        part = causes[at : at + CHUNK]
        rows = torch.randn(len(part), width, generator=generator)
        rows[:, place] = (rows[:, place] + part) / math.sqrt(2)
        out[at : at + CHUNK] = (rows * spread) @ turn
    return out


def held(pairs: int, modalities: int) -> PairedLatents:
    """Generated latents in memory."""
    causes = torch.randn(pairs, CAUSES, generator=torch.Generator().manual_seed(0))
    tables = {
        f"m{k}": ResidentLatents(latents(pairs, width, causes, k + 1))
        for k, width in enumerate(WIDTHS[:modalities])
    }
    return PairedLatents(tables, torch.arange(pairs)[:, None].repeat(1, modalities))


def main(pairs: int, of: str, threads: int) -> None:
    """Print seconds, peak MB beyond the latents, and the validation score, of one fit."""
    torch.set_num_threads(threads)
    held_out = min(pairs // 10, 5_000)
    if of.isdigit():
        data, changes = held(pairs + held_out, int(of)), ["adapter=none"]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    else:
        data, changes = open_pairs(Path(of), pairs), ["aligner.budget=100 steps"]
        drop_cache(Path(of))
        before, pairs = 0, pairs - held_out
    parts = data.links.split([pairs, held_out])
    train, validation = (PairedLatents(data.tables, part) for part in parts)
    recipe = find_recipe("auto", changes)
    aligner = registry.build("aligner", recipe.aligner)
    start = time.perf_counter()
    adapters = aligner.fit(train, validation, recipe, FitContext())
    seconds = time.perf_counter() - start
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(seconds, peak, mean_recall(recalls(adapters, validation)))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
