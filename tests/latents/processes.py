"""Processes that a run started, as long as they live."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import started

from fusemix_core.latents import child

TESTS = Path(__file__).parents[1]


@contextlib.contextmanager
def children_of_a_run(*arguments):
    """A process that runs a script which calls `tell_children`, and the two that it starts."""
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    with started.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": path},
    ) as run:  # fmt: skip
        yield run, [int(run.stdout.readline()) for _ in range(2)]


def tell_children(forked):
    """In a script: print the id of each process that extraction starts, forked or fresh."""
    base = started.Popen if forked else subprocess.Popen

    class Telling(base):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            print(self.pid, flush=True)

    child.subprocess = SimpleNamespace(**{**vars(started.forked), "Popen": Telling})


def all_end(processes):
    """Soon none of them is alive."""
    until = time.monotonic() + 20
    while any(map(_alive, processes)):
        assert time.monotonic() < until
        time.sleep(0.1)


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
