"""Processes that make the index of a store and are killed. Run as: index_child.py FOLDER.

Prints a line for each thing that is found wrong. It forks, to import only once.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
from forked import begin, code

from fusemix_core.latents import index
from fusemix_core.latents.shards import write_shard
from fusemix_core.latents.store import LatentStore

FP, ITEMS, SHARD = "0" * 32, 240, 10
KEYS = np.random.default_rng(0).integers(0, 2**64, (ITEMS, 2), np.uint64)
index.SEGMENT_ITEMS, index.FAN_IN, index._AT_ONCE = 40, 3, 40


def fill(home: Path, first: int, end: int) -> None:
    for start in range(first, end, SHARD):
        keys = KEYS[start : start + SHARD]
        values = (keys[:, 1] % np.uint64(997)).astype(np.float16)[:, None]
        write_shard(LatentStore(home).folder / FP / "pooled", keys, values, {})


def work(home: Path) -> None:
    """Open the store as it grows; its answers must be right at any time."""
    store = LatentStore(home)
    for end in range(80, ITEMS + 1, 80):
        fill(home, end - 80, end)
        store.repair(FP, "pooled", KEYS, "float16")
        assert not store.missing(FP, "pooled", KEYS[:end], "float16").any()


def check(home: Path) -> list[str]:
    """What is wrong with a store after one more process worked on it undisturbed."""
    wrong = []
    if code(begin(lambda: work(home))):
        wrong.append("it can't be opened")
    store = LatentStore(home)
    places, bad = store._find(FP, "pooled", KEYS, "float16")
    found = np.concatenate([places.shards[s].keys[r][None] for s, r in
                            zip(places.shard, places.row, strict=True)])  # fmt: skip
    if bad or (found != KEYS).any():
        wrong.append("items are found in the wrong places")
    wrong += [one.reason for one in store.verify()]
    folder = home / "latents" / FP / "pooled"
    wrong += [f"{p.name} was left" for p in folder.rglob(".*") if p.is_file()]
    known = [s.path.name for one in index.segment_paths(folder / "index")
             for s in index.Segment(one).shards]  # fmt: skip
    if len(known) != len(set(known)) or len(known) < (ITEMS - 40) / SHARD:
        wrong.append(f"the index has {len(known)} shards, {len(set(known))} of them different")
    return wrong


def dying(home: Path, name: str, after: bool, count: int):
    """`work` until a function of the os module, or `Path.unlink`, was called `count` times for
    the index."""

    def run() -> None:
        real, calls = getattr(os, name), 0

        def deadly(*args, **options):
            nonlocal calls
            about_index = name == "fsync" or "/index/" in str(args[0])
            calls += about_index
            if after:
                real(*args, **options)
            if about_index and calls == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return None if after else real(*args, **options)

        fill(home, 0, ITEMS)
        setattr(os, name, deadly)
        work(home)

    return run


def main(folder: Path) -> None:
    killed = 0
    for name, counts in (("replace", (1, 2, 4, 7)), ("unlink", (1, 2, 3)), ("fsync", (2,))):
        for count in counts:
            for after in (False, True):
                home = folder / f"{name}-{count}-{after}"
                killed += code(begin(dying(home, name, after, count))) == -signal.SIGKILL
                for line in check(home):
                    print(f"{home.name}: {line}", flush=True)
                shutil.rmtree(home)
    home = folder / "both"
    both = [begin(lambda: work(home)) for _ in range(3)]
    ends = [code(pid) for pid in both]
    if any(ends):
        print("three at once: one ended with an error", flush=True)
    for line in check(home):
        print(f"three at once: {line}", flush=True)
    print(f"killed {killed}", flush=True)


main(Path(sys.argv[1]))
