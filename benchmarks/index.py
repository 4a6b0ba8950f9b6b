"""What a query of an index costs, in time and memory: `flat`, and `faiss` beside it.

python -m benchmarks index
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.harness import Bar, Options, Row

TITLE = "Index"
ABOUT = """
Generated vectors of 384 numbers in 50,000 clusters of 500 topics, whose directions fade as those of
CCA do, with two columns as CSLS adds them: half the mean similarity to the ten nearest of 500 other
vectors. Queries are drawn as items are. Each line is a process of its own that opens the index and
asks one query at a time for ten items: the median of 40, in processor milliseconds of one core, as
the machine may be shared. Memory is the process's peak, mapped files included, less what it had
before it opened the index. The lines `without torch` are of a process that has not imported it.
Exact means that the ten are those of products with all vectors.

The lines of `faiss` are of one process that asks `flat` and `faiss` in turn, 200 queries each;
recall@10 is the share of the ten of `flat` that `faiss` finds. `allowed` stands for a condition
that so many items pass, drawn at random; after that a tenth of the items is removed.
"""

ITEMS, DIM, KEPT = 1_000_000, 384, 2
TOPICS, CLUSTERS = 500, 50_000
QUERIES, TRIES = 40, 200
BANK, NEIGHBOURS = 500, 10
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
    yield from faiss_rows(folder, count)


def faiss_rows(folder: Path, count: int) -> Iterator[Row]:
    """The rows of `faiss`, of the index in a folder."""
    said = subprocess.run(
        [sys.executable, "-m", "benchmarks.index", str(folder), "faiss"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(said.stdout)
    yield Row(f"{count:,} items, the lists of faiss are made", found["made"], "CPU s")
    yield Row(f"{count:,} items, faiss, memory", found["bytes"] / 1e6, "MB")
    for name, one in found["asked"].items():
        what, plain = f"{count:,} items, faiss{name}", f"flat, {one['flat']:.3g} ms"
        ratio = one["flat"] / one["ms"]
        if name:
            yield Row(f"{what}, a query", one["ms"], "ms", plain, one["ms"] / one["flat"])
            yield Row(f"{what}, recall@10", one["recall"], "")
        else:
            yield Row(f"{what}, a query", one["ms"], "ms", "6 ms", one["ms"] / 6, Bar(1.0))
            yield Row(f"{what}, beside flat", ratio, "times as fast", plain)
            bar = Bar(1.0, at_least=True)
            yield Row(f"{what}, recall@10", one["recall"], "", "0.95", one["recall"] / 0.95, bar)


def clusters() -> np.ndarray:
    """float32 `[CLUSTERS, DIM]`: the middles of the clusters."""
    fading = (np.arange(1, DIM + 1) ** -0.35).astype(np.float32)
    draw = np.random.default_rng(0)
    topics = draw.standard_normal((TOPICS, DIM), np.float32)[draw.integers(0, TOPICS, CLUSTERS)]
    return (topics + draw.standard_normal((CLUSTERS, DIM), np.float32)) * fading


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
    bank = around(middles, KEPT * BANK, draw)
    for start in range(0, count, _AT_ONCE):
        some = min(_AT_ONCE, count - start)
        rows = around(middles, some, draw)
        near = np.partition((rows @ bank.T).reshape(some, KEPT, BANK), -NEIGHBOURS, axis=2)
        added = -near[:, :, -NEIGHBOURS:].mean(axis=2) / 2
        keys = draw.integers(0, 2**63, (some, 2)).astype(np.uint64)
        index.add(keys, np.concatenate([rows, added], axis=1))


def memory(field: str) -> int:
    """Bytes of the process's memory, mapped files included, as Linux has them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def queries_of(count: int) -> np.ndarray:
    """float32 `[count, DIM + KEPT]`: queries of the first of the modalities that CSLS counts."""
    rows = around(clusters(), count, np.random.default_rng(2))
    asked = np.eye(KEPT, dtype=np.float32)[:1].repeat(count, axis=0)
    return np.concatenate([rows, asked], axis=1)


def ask(folder: Path, how: str) -> None:
    """Print what queries take, as JSON."""
    if how == "torch":
        import torch

        torch.set_num_threads(1)
    from fusemix_core.search.flat import FlatIndex

    queries = queries_of(QUERIES)
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


def beside(folder: Path) -> None:
    """Print what queries of `faiss` and of `flat` take, asked in turn, as JSON."""
    import faiss
    import torch

    from fusemix_core.search.flat import FlatIndex
    from fusemix_core.search.ivf import FaissIndex

    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    start = time.process_time()
    FaissIndex(folder, DIM, KEPT, least=1).settle()
    made = time.process_time() - start
    queries = queries_of(TRIES)
    before = memory("VmRSS")
    lists = FaissIndex(folder, DIM, KEPT, least=1)
    for query in queries:
        lists.search(query[None], 10)
    size = memory("VmRSS") - before
    flat, draw = FlatIndex(folder, DIM, KEPT), np.random.default_rng(3)
    asked = {"": in_turn(flat, lists, queries, None)}
    for share in (0.2, 0.02):
        allowed = draw.random(len(flat)) < share
        asked[f", {share:.0%} allowed"] = in_turn(flat, lists, queries, allowed)
    lists.remove(lists.keys[draw.random(len(lists)) < 0.1])
    flat.refresh()
    asked[", a tenth removed"] = in_turn(flat, lists, queries, None)
    print(json.dumps({"made": made, "bytes": size, "asked": asked}))


def in_turn(flat, lists, queries: np.ndarray, allowed: np.ndarray | None) -> dict[str, float]:
    """Median milliseconds of a query of each index, and the share of the exact ten."""
    seconds: dict[str, list[float]] = {"flat": [], "ms": []}
    shares = []
    for query in queries:
        found = []
        for name, index in (("flat", flat), ("ms", lists)):
            start = time.process_time()
            found.append(index.search(query[None], 10, allowed)[0][0])
            seconds[name].append(time.process_time() - start)
        exact, near = ({key.tobytes() for key in keys} for keys in found)
        shares.append(len(exact & near) / len(exact))
    medians = {name: 1e3 * statistics.median(values) for name, values in seconds.items()}
    return {**medians, "recall": statistics.mean(shares)}


if __name__ == "__main__":
    where, what = Path(sys.argv[1]), sys.argv[2]
    beside(where) if what == "faiss" else ask(where, what)
