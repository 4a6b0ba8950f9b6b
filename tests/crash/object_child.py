"""Extractions into an object store by forked children that are killed.

Run as: object_child.py FOLDER URL. Leaves URL/<how>/ for each way to die, resumed by one more child
that lives, on the same machine (the same cache) or on another, and URL/whole, made without a kill.
It forks, to import torch only once.
"""

import os
import signal
import sys
import time
from pathlib import Path

from fusemix_core.latents import bucket, extraction, shards
from fusemix_core.latents.encoding import Encoding
from fusemix_core.latents.remote import RemoteStore
from fusemix_core.userfile import import_file

toy = import_file(Path(__file__).parents[1] / "latents" / "toy.py")
extraction.shard_size = lambda items: 100
ITEMS = toy.ToyItems([*toy.texts(300), toy.damaged(300), *toy.texts(340, start=300)])


def run(url: str, home: Path, delay: float = 0.0) -> None:
    encoder = toy.ToyEncoder(toy.spec(options={"delay": delay}))
    store = RemoteStore(url, home)
    extraction.extract(toy.spec(), ITEMS, store, Encoding(batch_size=8), encoder=encoder)


def child(work) -> int:
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return pid


def code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def dying(url: str, home: Path, where, name: str, after: int, count: int):
    """Run until `where.name` has been called `count` times, `after` it or before."""

    def work() -> None:
        real, calls = getattr(where, name), 0

        def deadly(*args):
            nonlocal calls
            calls += 1
            if after:
                real(*args)
            if calls == count:
                os.kill(os.getpid(), signal.SIGKILL)
            if not after:
                real(*args)

        setattr(where, name, deadly)
        run(url, home)

    return work


def main(folder: Path, url: str) -> None:
    assert code(child(lambda: run(f"{url}/whole", folder / "whole"))) == 0
    ways = [
        (shards.os, "replace", 0, 2, "other"),
        (shards.os, "replace", 1, 3, "same"),
        (bucket.Bucket, "put", 0, 3, "same"),
        (bucket.Bucket, "put", 0, 3, "other"),
        (bucket.Bucket, "put", 1, 3, "other"),
    ]
    for where, name, after, count, machine in ways:
        way = f"{name}-{after}-{count}-{machine}"
        work = dying(f"{url}/{way}", folder / way, where, name, after, count)
        assert code(child(work)) == -signal.SIGKILL
        home = folder / (way if machine == "same" else f"{way}-2")
        assert code(child(lambda way=way, home=home: run(f"{url}/{way}", home))) == 0
    for i in range(2):
        way = f"random-{i}"
        pid = child(lambda way=way: run(f"{url}/{way}", folder / way, delay=0.002))
        time.sleep(0.08 + 0.1 * i)
        os.kill(pid, signal.SIGKILL)
        code(pid)
        assert code(child(lambda way=way: run(f"{url}/{way}", folder / way))) == 0


main(Path(sys.argv[1]), sys.argv[2])
