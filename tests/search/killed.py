"""Writers of indexes and collections that are killed:

    killed.py FOLDER vectors|lists|collection EVERY

Kills at every EVERY-th call only. Prints a line for each thing that is found wrong. It forks, to
import only once.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from forked import child
from search.conftest import ENCODERS, Heard
from search.vectors import keys_of, naive, queries_of, rows_of

import fusemix_core.search.lists  # noqa: F401  that children need not import it
import fusemix_core.search.updating  # noqa: F401
from fusemix_core.runs.models import load_model
from fusemix_core.search import Collection, exporting
from fusemix_core.search.flat import FlatIndex
from fusemix_core.search.ivf import FaissIndex
from fusemix_core.search.network import QueryNetwork

COUNT = 200
MOST = 60
"""Calls, of which each is the last one of some process."""
CALLS = ("replace", "fsync", "unlink", "open")


def dying(work, name: str, after: bool, count: int, place: str):
    """`work` that is killed before or after the count-th call of a function of the os module that
    is about a path below `place` (fsync: any)."""

    def run() -> None:
        real, calls = getattr(os, name), 0

        def deadly(*args, **options):
            nonlocal calls
            ours = name == "fsync" or str(args[0]).startswith(place)
            calls += ours
            if ours and calls == count and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            done = real(*args, **options)
            if ours and calls == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        setattr(os, name, deadly)
        work()

    return run


def every_kill(work, place: Path, start, check) -> int:
    """Kill `work` at its calls in turn, each time from the state that `start` makes."""
    killed = 0
    for name in CALLS:
        for after in (False, True):
            for count in range(1, MOST, EVERY):
                start()
                code = child(dying(work, name, after, count, str(place)))
                killed += code == -signal.SIGKILL
                if code not in (0, -signal.SIGKILL):
                    print(f"{name} {count}: ended with {code}", flush=True)
                for line in check():
                    print(f"{name} {count} {'after' if after else 'before'}: {line}", flush=True)
                if code == 0:
                    break
    return killed


# -- vectors ---------------------------------------------------------------------------------------


def vectors(folder: Path) -> int:
    rows, queries = rows_of(COUNT), queries_of(3)
    first, place = folder / "first", folder / "i"
    states = [set(range(100)), set(range(200)), set(range(50, 200))]

    def opened(at=place) -> FlatIndex:
        return FlatIndex(at, 24, 2, segment=64)

    def work() -> None:
        index = opened()
        index.add(keys_of(range(100, 200)), rows[100:])
        index.remove(keys_of(range(50)))
        index.compact()

    def start() -> None:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(first, place)

    def check() -> list[str]:
        index = opened()
        there = set((index.keys[:, 0] >> np.uint64(40)).tolist())
        wrong = [f"{len(there)} vectors"] if there not in states else []
        found = (index.search(queries, 5)[0][..., 0] >> np.uint64(40)).tolist()
        allowed = [i in there for i in range(COUNT)]
        wrong += ["other answers"] * (found != naive(rows, queries, 5, allowed))
        wrong += index.check()
        work()
        index = opened()
        wrong += ["it can't be gone on with"] * (len(index) != 150)
        left = [p.name for p in place.iterdir() if p.name.startswith(".")]
        return wrong + [f"{name} was left" for name in left]

    opened(first).add(keys_of(range(100)), rows[:100])
    return every_kill(work, place, start, check)


def lists(folder: Path) -> int:
    """An index whose lists are made anew, or grow, after rows came and went."""
    queries, place, first = queries_of(3), folder / "i", folder / "first"
    rows = rows_of(COUNT)
    states = [set(range(120)), set(range(COUNT)), set(range(20, COUNT))]

    def opened(at=place) -> FaissIndex:
        return FaissIndex(at, 24, 2, segment=64, least=100, probes=1000)

    def work() -> None:
        index = opened()
        index.add(keys_of(range(120, COUNT)), rows[120:])
        index.settle()
        index.remove(keys_of(range(20)))
        index.compact()
        index.settle()

    def start() -> None:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(first, place)

    def answers(index: FaissIndex) -> list[str]:
        there = set((index.keys[:, 0] >> np.uint64(40)).tolist())
        wrong = [f"{len(there)} vectors"] if there not in states else []
        found = (index.search(queries, 5)[0][..., 0] >> np.uint64(40)).tolist()
        allowed = [i in there for i in range(COUNT)]
        wrong += ["other answers"] * (found != naive(rows, queries, 5, allowed))
        return wrong + index.check()

    def check() -> list[str]:
        wrong = answers(opened())
        work()
        index = opened()
        wrong += ["it can't be gone on with"] * (len(index) != COUNT - 20) + answers(index)
        wrong += ["there are no lists"] * (index.recall() is None)
        left = [p.name for p in place.iterdir() if p.name.startswith(".")]
        left += [p.name for p in place.glob("*.ivf")][1:]
        return wrong + [f"{name} was left" for name in left]

    made = opened(first)
    made.add(keys_of(range(120)), rows[:120])
    made.settle()
    return every_kill(work, place, start, check)


# -- a collection ----------------------------------------------------------------------------------


def collection(folder: Path) -> int:
    """`folder` has the run `run`, and its world, a folder of images, in `world`."""
    model = load_model(folder / "run", "cpu", ENCODERS)
    world, place, first = folder / "world", folder / "i", folder / "first"
    from fusemix_core.config import DataConfig

    def network(*_) -> QueryNetwork:
        return QueryNetwork({}, b"weights", b"model", b"tokenizer")

    exporting._made = network
    made = Collection.create(place, model, DataConfig((str(world),)), ["image"])
    vector = made.encode("text", "a red car")
    before = {one.key for one in made.search(vector, "text", 100)}
    shutil.copytree(place, first)
    (query,) = first.glob("*.query")
    query.unlink()  # an update makes it again
    for i in range(4):
        os.rename(world / f"{i}.png", world / f"moved{i}.png")
        os.unlink(world / f"{10 + i}.png")
        shutil.copy(folder / f"spare/{20 + i}.png", world)
    made.update()
    after = {one.key for one in made.search(vector, "text", 100)}

    def start() -> None:
        shutil.rmtree(place)
        shutil.copytree(first, place)

    def work() -> None:
        Collection.open(place, model).update()

    def check() -> list[str]:
        found = {one.key for one in Collection.open(place, model).search(vector, "text", 100)}
        wrong = [] if found in (before, after) else ["neither the old nor the new items"]
        faults = Collection.open(place, model).check()
        wrong += [fault for fault in faults if query.name not in fault]
        heard = Heard()
        again = Collection.open(place, model)
        again.update(heard)
        found = {one.key for one in again.search(vector, "text", 100)}
        wrong += ["it can't be gone on with"] * (found != after)
        wrong += again.check()
        left = [p.name for p in place.rglob(".*")] + [
            p.name for p in place.glob("*.sqlite") if p.stem != again.state.items
        ]
        wrong += ["no query network"] * (list(place.glob("*.query")) != [place / query.name])
        return wrong + [f"{name} was left" for name in left]

    return every_kill(work, place, start, check)


if __name__ == "__main__":
    torch.set_num_threads(1)
    EVERY = int(sys.argv[3])
    print(f"killed {globals()[sys.argv[2]](Path(sys.argv[1]))}", flush=True)
