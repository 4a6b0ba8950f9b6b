"""Whether this process is one of several that torchrun started; told without importing torch."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """This process among those started together: its number, its number on this machine, the count
    of all."""

    rank: int = 0
    local_rank: int = 0
    processes: int = 1


def launched() -> Launch:
    """What torchrun told this process; one of one if nothing is told."""
    try:
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
        return Launch(*(int(os.environ[name]) for name in names))
    except (KeyError, ValueError):
        return Launch()
