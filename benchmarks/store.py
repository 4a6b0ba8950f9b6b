"""What a large latent store and a large table of pairs cost in memory and time.

python -m benchmarks.store --keys 50000000 --rows 20000000      # other sizes; nothing is kept
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.generated import keys_of
from benchmarks.harness import Bar, Options, Row

TITLE = "Large stores and tables"
ABOUT = """
A generated store (latents of one float16 number, so that keys and look-ups are all there is) and
generated tables of pairs. Each line is a process of its own. Memory is the peak that the process
takes for itself, less what it had before; pages of files that are mapped don't count, as the system
takes them back when it needs them. Times are processor seconds of one core, as the machine may be
shared. `sorted in memory` is how keys were looked up before the store had an index. The tables have
two different texts a row, about 70 bytes together; `row by row` is how small tables are read, and
how all were before. Files were written just before, so that they are read from the system's cache.
Files and mapped pages compete for the machine's memory and cores with whatever else runs there.
"""

KEYS, ROWS = 50_000_000, 20_000_000
OTHERS = 2_000_000
"""Rows of the tables in other formats than the first."""
REFERENCE = 200_000
"""Rows that are read one by one."""
LOOK_UPS = 10_000_000
SHARD = 1 << 18
FINGERPRINT = "0" * 32
WORDS = ("red dog", "cat", "old, small bicycle", "harbour", "blue bird", "tree", "map of a town")


def measure(options: Options) -> Iterator[Row]:
    small = options.quick
    yield from of_keys(options.scratch / "home", 1_000_000 if small else KEYS)
    yield from of_rows(options.scratch / "tables", 300_000 if small else ROWS)


@dataclass(frozen=True)
class Took:
    """Processor seconds, peak bytes of the process's own memory and those held at the end, and what
    the step returned."""

    seconds: float
    bytes: int
    held: int
    result: Any


def of_keys(home: Path, keys: int) -> Iterator[Row]:
    """Index, look-ups and opening of a store of so many keys."""
    asked = min(LOOK_UPS, keys)
    generate(home, keys)
    size, name = f"{keys:,} keys", f"{asked:,} of {keys:,} keys"
    made = child("index", home, keys)
    yield Row(f"{size}, the index is made", made.seconds, "s")
    yield Row(f"{size}, the index is made, memory", made.bytes / 1e6, "MB")
    each = made.result / keys
    yield Row(f"{size}, the index on disk", each, "B/key", "24 B", each / 24, Bar(1.1))
    first = child("open", home, 1000)
    yield Row(f"1,000 of {size}, verified and opened for the first time", first.seconds, "s")
    found = child("find", home, asked)
    before = child("sorted", home, asked)
    bar = Bar(20)
    yield Row(f"{name} looked up", found.seconds, "s", f"sorted in memory ({asked:,} keys stored)",
              found.seconds / before.seconds)  # fmt: skip
    yield Row(f"{name} looked up, memory", found.bytes / asked, "B/key", "1 B",
              found.bytes / asked, bar)  # fmt: skip
    yield Row(f"{name} sorted in memory, memory", before.bytes / asked, "B/key")
    whole = child("open", home, keys)
    yield Row(f"{size} opened", whole.seconds, "s")
    yield Row(f"{size} opened, memory", whole.bytes / keys, "B/key", "1 B", whole.bytes / keys, bar)


def of_rows(folder: Path, rows: int) -> Iterator[Row]:
    """Reading of tables of so many rows."""
    folder.mkdir()
    before = {}
    for suffix, count in (
        ("csv", rows),
        ("jsonl", min(rows, OTHERS)),
        ("parquet", min(rows, OTHERS)),
    ):
        path = folder / f"pairs.{suffix}"
        write_table(path, min(REFERENCE, count))
        plain = child("row_by_row", path, count)
        before = plain.result / plain.seconds
        write_table(path, count)
        took = child("read", path, count)
        name, rate = f"{count:,} rows of {suffix}", took.result / took.seconds
        yield Row(f"{name}, read", rate, "rows/s", f"row by row ({before:,.0f} rows/s)",
                  rate / before, Bar(10, at_least=True))  # fmt: skip
        each = took.held / count
        yield Row(f"{name}, held", each, "B/row", "1 B", each, Bar(60))
        yield Row(f"{name}, at most", took.bytes / count, "B/row")
        path.unlink()


def write_table(path: Path, rows: int) -> None:
    """Questions and answers, some with commas."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    def part(first: int, count: int) -> pa.Table:
        number = pc.cast(pa.array(np.arange(first, first + count)), pa.string())
        kinds = pa.array(WORDS).take(np.arange(first, first + count) * 7 % len(WORDS))
        query = pc.binary_join_element_wise("which", kinds, "is", number, " ")
        text = pc.binary_join_element_wise("the", kinds, "in the house of number", number, " ")
        return pa.table({"query": query, "text": text})

    tables = (part(at, min(1 << 18, rows - at)) for at in range(0, rows, 1 << 18))
    if path.suffix == ".jsonl":
        with open(path, "w") as file:
            for table in tables:
                file.writelines(json.dumps(row) + "\n" for row in table.to_pylist())
        return
    schema = pa.schema({"query": pa.string(), "text": pa.string()})
    if path.suffix == ".csv":
        writer = pa_csv.CSVWriter(
            path, schema, write_options=pa_csv.WriteOptions(quoting_style="needed")
        )
    else:
        writer = pq.ParquetWriter(path, schema)
    with writer:
        for table in tables:
            writer.write_table(table)


def generate(home: Path, keys: int) -> None:
    """A store of so many items."""
    from fusemix_core.latents.shards import write_shard

    values = np.ones((SHARD, 1), np.float16)
    for first in range(0, keys, SHARD):
        some = keys_of(first, min(first + SHARD, keys))
        write_shard(home / "latents" / FINGERPRINT / "pooled", some, values[: len(some)], {})


# -- steps, each in a process of its own -----------------------------------------------------------


def index(home: Path, keys: int) -> Callable[[], int]:
    """Ask for one key, so that the index is made; its bytes."""
    from fusemix_core.latents.store import LatentStore

    one = keys_of(0, 1)

    def run() -> int:
        assert not LatentStore(home).missing(FINGERPRINT, "pooled", one, "float16").any()
        return sum(p.stat().st_size for p in home.rglob("*.idx"))

    return run


def find(home: Path, keys: int) -> Callable[[], int]:
    """Look up so many keys, from anywhere in the store."""
    from fusemix_core.latents.store import LatentStore

    store, asked = LatentStore(home), keys_of(0, keys)
    store.missing(FINGERPRINT, "pooled", asked[:1], "float16")
    return lambda: int(store._find(FINGERPRINT, "pooled", asked, "float16")[0].row.sum())


def sorted_(home: Path, keys: int) -> Callable[[], int]:
    """The same where only these keys are stored, and are sorted in memory for each look-up."""
    stored, asked = keys_of(0, keys), keys_of(0, keys)

    def run() -> int:
        held = np.concatenate([stored[:SHARD], stored[SHARD:]])
        order = np.argsort(np.ascontiguousarray(held[:, 0]), kind="stable")
        high, low = held[order, 0], held[order, 1]
        at, by_key = np.empty(len(asked), np.int64), np.argsort(np.ascontiguousarray(asked[:, 0]))
        at[by_key] = np.searchsorted(high, asked[by_key, 0])
        assert (low[at] == asked[:, 1]).all()
        return int(order[at].sum())

    return run


def open_(home: Path, keys: int) -> Callable[[], int]:
    """Open a table of so many keys and read a few rows."""
    import torch

    import fusemix_core.latents.tables  # noqa: F401  not part of what is measured
    from fusemix_core.latents.store import LatentStore

    store, asked = LatentStore(home), keys_of(0, keys)

    def run() -> int:
        table = store.open(FINGERPRINT, "pooled", asked, "float16")
        return int(table.rows(torch.arange(0, keys, max(1, keys // 1000))).sum())

    return run


def read(path: Path, rows: int) -> Callable[[], Any]:
    """Read a table."""
    from fusemix_core.config import DataConfig
    from fusemix_core.data.reading import read_pairs

    home = path.parent / "home"
    os.environ["FUSEMIX_HOME"] = str(home)
    warm = path.with_name(f"warm{path.suffix}")
    write_table(warm, 100)
    takes = {"query": "text", "text": "text"}
    read_pairs(DataConfig((str(warm),)), takes)
    warm.unlink()
    return lambda: read_pairs(DataConfig((str(path),)), takes)


def row_by_row(path: Path, rows: int) -> Callable[[], Any]:
    """Read a table without taking rows together."""
    from fusemix_core.data import parquet, runs

    runs.FROM = 1 << 62
    parquet._is_plain = lambda schema: False
    return read(path, rows)


STEPS = {f.__name__.strip("_"): f for f in (index, find, sorted_, open_, read, row_by_row)}


def child(step: str, path: Path, count: int) -> Took:
    """A step of `STEPS` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.store", "--step", step, "--at", str(path)]
    done = subprocess.run(
        [*command, "--keys", str(count)], check=True, stdout=subprocess.PIPE, text=True
    )
    return Took(**json.loads(done.stdout.splitlines()[-1]))


def measured(job: Callable[[], Any]) -> Took:
    """Run a job and watch the memory of this process."""
    before, peak, ended = own_memory(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.02):
            peak = max(peak, own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.process_time()
    result = job()
    seconds = time.process_time() - began
    peak = max(peak, own_memory())
    ended.set()
    watcher.join()
    give_back()
    value = result if isinstance(result, int) else len(result)
    return Took(seconds, peak - before, own_memory() - before, value)


def give_back() -> None:
    """Give freed memory back to the system, so that what is held is what is needed."""
    import pyarrow

    gc.collect()
    pyarrow.default_memory_pool().release_unused()
    ctypes.CDLL(None).malloc_trim(0)


def own_memory() -> int:
    """Bytes of memory that this process has for itself, without mapped files."""
    with open("/proc/self/status") as file:
        fields = dict(line.split(":") for line in file)
    return int(fields["RssAnon"].split()[0]) * 1024


def main() -> None:
    """Print the rows for stores and tables of other sizes."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--keys", type=int, default=KEYS)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--folder", type=Path, help="where files are generated")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--at", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        print(json.dumps(vars(measured(STEPS[args.step](args.at, args.keys)))))
        return
    from benchmarks.results import print_row

    with tempfile.TemporaryDirectory(prefix="fusemix-benchmark-", dir=args.folder) as scratch:
        for row in of_keys(Path(scratch) / "home", args.keys) if args.keys else ():
            print_row(row)
        for row in of_rows(Path(scratch) / "tables", args.rows) if args.rows else ():
            print_row(row)


if __name__ == "__main__":
    main()
