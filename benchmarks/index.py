"""What a query of the flat index costs, in time and memory.

python -m benchmarks index
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.harness import Bar, Options, Row

TITLE = "Index"
ABOUT = """
Generated vectors of 384 numbers in 5,000 clusters, whose directions fade as those of CCA do, with
two columns as CSLS adds them; queries are near to items. Each line is a process of its own that
opens the index and asks one query at a time for ten items: the median of 40, in processor
milliseconds of one core, as the machine may be shared. Memory is the process's peak, mapped files
included, less what it had before it opened the index. The lines `without torch` are of a process
that has not imported it. Exact means that the ten are those of products with all vectors.
"""

ITEMS, DIM, KEPT, CLUSTERS = 1_000_000, 384, 2, 5000
QUERIES = 40
_AT_ONCE = 65_536


def measure(options: Options) -> Iterator[Row]:
    count = 50_000 if options.quick else ITEMS
    folder = options.scratch / "index"
    build(folder, count)
    for name, how in (("with torch", "torch"), ("without torch", "numpy")):
        said = subprocess.run(
            [sys.executable, "-m", "benchmarks.index", str(folder), how],
            capture_output=True,
            text=True,
            check=True,
        )
        found = json.loads(said.stdout)
        what = f"{count:,} items, {name}"
        bar = Bar(1.0) if how == "torch" else None
        yield Row(f"{what}, a query", found["ms"], "ms", "50 ms", found["ms"] / 50, bar)
        megabytes = found["bytes"] / 1e6
        yield Row(f"{what}, memory", megabytes, "MB", "500 MB", megabytes / 500, Bar(1.0))
        yield Row(f"{what}, queries with the exact ten", found["exact"], "of 10")


def clusters() -> np.ndarray:
    """float32 `[CLUSTERS, DIM]`: the middles of the clusters."""
    fading = np.arange(1, DIM + 1) ** -0.35
    draw = np.random.default_rng(0)
    return (draw.standard_normal((CLUSTERS, DIM)) * fading).astype(np.float32)


def around(middles: np.ndarray, count: int, draw: np.random.Generator) -> np.ndarray:
    """float32 `[count, DIM]`: unit vectors near the middles of clusters."""
    fading = (np.arange(1, DIM + 1) ** -0.35).astype(np.float32)
    rows = middles[draw.integers(0, len(middles), count)]
    rows = rows + 0.7 * draw.standard_normal((count, DIM), np.float32) * fading
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def build(folder: Path, count: int) -> None:
    """Write an index of so many vectors."""
    from fusemix_core.search.flat import FlatIndex

    index, middles, draw = FlatIndex(folder, DIM, KEPT), clusters(), np.random.default_rng(1)
    for start in range(0, count, _AT_ONCE):
        some = min(_AT_ONCE, count - start)
        added = -draw.uniform(0.1, 0.3, (some, KEPT)).astype(np.float32)
        keys = draw.integers(0, 2**63, (some, 2)).astype(np.uint64)
        index.add(keys, np.concatenate([around(middles, some, draw), added], axis=1))


def memory(field: str) -> int:
    """Bytes of the process's memory, mapped files included, as Linux has them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def ask(folder: Path, how: str) -> None:
    """Print what queries take, as JSON."""
    import time

    if how == "torch":
        import torch

        torch.set_num_threads(1)
    from fusemix_core.search.flat import FlatIndex

    rows = around(clusters(), QUERIES, np.random.default_rng(2))
    asked = np.tile(np.float32([1, 0]), (QUERIES, 1))
    queries = np.concatenate([rows, asked], axis=1)
    before = memory("VmRSS")
    index = FlatIndex(folder, DIM, KEPT)
    seconds, found = [], []
    for query in queries:
        start = time.process_time()
        found.append(index.search(query[None], 10)[0][0])
        seconds.append(time.process_time() - start)
    peak = memory("VmHWM") - before
    every = np.concatenate(
        [queries[:10] @ index.rows(index.keys[i : i + _AT_ONCE]).T
         for i in range(0, len(index), _AT_ONCE)], axis=1
    )  # fmt: skip
    best = index.keys[np.argsort(-every, axis=1)[:, :10]]
    exact = sum(np.array_equal(a, b) for a, b in zip(best, found, strict=False))
    print(json.dumps({"ms": 1e3 * statistics.median(seconds), "bytes": peak, "exact": exact}))


if __name__ == "__main__":
    ask(Path(sys.argv[1]), sys.argv[2])
