"""What a text query of an index costs a process that has just started.

    python -m benchmarks cold

Needs fusemix-starter and fusemix[fast].
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.harness import Bar, Options, Row
from benchmarks.serving import starter_index

TITLE = "Cold query"
ABOUT = """
`fusemix search INDEX "a map of the world"` as a process of its own, from its start to its end, on
an index of the sample by the model of fusemix-starter (MiniLM for texts, csls). The encoder, the
adapter and the scorer's columns run as the query network in the index. `by the model` is the same
search with `--device cpu`, which loads the model and its encoder. `import torch` is a process that
does nothing else, for scale. They run in turn, on one thread each. Processor seconds are medians,
user and system. Of the times on the clock the least is shown, as the machine may be shared.
"""

LIMIT = 1.5
"""Seconds that a search may take."""
TURNS, QUICK_TURNS = 5, 1


@dataclass(frozen=True)
class Spent:
    """Seconds on the clock, and of the processor."""

    wall: float
    processor: float


def measure(options: Options) -> Iterator[Row]:
    search = ["-m", "fusemix_core.cli", "search", str(starter_index(options.scratch))]
    search += ["a map of the world"]
    forms = {
        "by the query network": search,
        "by the model": [*search, "--device", "cpu"],
        "import torch": ["-c", "import torch"],
    }
    found: dict[str, list[Spent]] = {name: [] for name in forms}
    for turn in range(1 + (QUICK_TURNS if options.quick else TURNS)):
        for name, words in forms.items():
            spent = spend(words)
            if turn:  # the first reads files from the disk
                found[name].append(spent)
    for name, runs in found.items():
        processor = statistics.median(one.processor for one in runs)
        wall = min(one.wall for one in runs)
        bar = Bar(1.0) if name == "by the query network" else None
        against = f"{LIMIT} s"
        yield Row(f"{name}, processor", processor, "s", against, processor / LIMIT, bar)
        yield Row(f"{name}, on the clock", wall, "s", against, wall / LIMIT, bar)


def spend(words: list[str]) -> Spent:
    """What a process of Python with these arguments takes."""
    single = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, *words], check=True, capture_output=True, env={**os.environ, **single}
    )
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Spent(wall, processor)
