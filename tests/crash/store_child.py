"""Extractions in forked children that are killed. Run as: store_child.py FOLDER VIEW.

Leaves FOLDER/<how>/ for each way to die, resumed by one more child that lives, FOLDER/whole, made
without a kill, and FOLDER/both, made by two children at once. It forks, to import torch only once.
"""

import os
import signal
import sys
import time
from pathlib import Path

from fusemix_core.latents import extraction, shards
from fusemix_core.latents.encoding import Encoding
from fusemix_core.latents.store import LatentStore
from fusemix_core.userfile import import_file

toy = import_file(Path(__file__).parents[1] / "latents" / "toy.py")
VIEW = sys.argv[2]
extraction.shard_size = lambda items: 100
ITEMS = toy.ToyItems([*toy.texts(300), toy.damaged(300), *toy.texts(340, start=300)])


def run(home: Path, delay: float = 0.0) -> None:
    spec = toy.spec()
    encoder = toy.ToyEncoder(toy.spec(options={"delay": delay}))
    store = LatentStore(home)
    extraction.extract(spec, ITEMS, store, Encoding(batch_size=8), view=VIEW, encoder=encoder)


def child(work) -> int:
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return pid


def code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def dying(home: Path, name: str, after: int, count: int):
    """Run until `name` of the os module has been called `count` times, `after` it or before."""

    def work() -> None:
        real, calls = getattr(os, name), 0

        def deadly(*args):
            nonlocal calls
            calls += 1
            if after:
                real(*args)
            if calls == count:
                os.kill(os.getpid(), signal.SIGKILL)
            if not after:
                real(*args)

        setattr(shards.os, name, deadly)
        run(home)

    return work


def main(folder: Path) -> None:
    assert code(child(lambda: run(folder / "whole"))) == 0
    ways = [
        ("fsync", 0, 6),
        ("fsync", 1, 7),
        ("replace", 0, 1),
        ("replace", 0, 3),
        ("replace", 1, 2),
    ]
    for name, after, count in ways:
        home = folder / f"{name}-{after}-{count}"
        assert code(child(dying(home, name, after, count))) == -signal.SIGKILL
        assert code(child(lambda home=home: run(home))) == 0
    for i in range(4):
        home = folder / f"random-{i}"
        pid = child(lambda home=home: run(home, delay=0.002))
        time.sleep(0.03 + 0.08 * i)
        os.kill(pid, signal.SIGKILL)
        code(pid)
        assert code(child(lambda home=home: run(home))) == 0
    both = [child(lambda: run(folder / "both", delay=0.001)) for _ in range(2)]
    assert [code(pid) for pid in both] == [0, 0]


main(Path(sys.argv[1]))
