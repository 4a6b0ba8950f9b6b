"""Counts what a process sends to the others in each step."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager

import torch.distributed as dist

from fusemix_core.engine import loop
from fusemix_core.gathering import processes

GIVEN = {
    "all_reduce": 0,
    "all_gather": 1,
    "all_gather_into_tensor": 1,
    "all_gather_single": 1,
    "reduce_scatter_tensor": 1,
    "reduce_scatter_single": 1,
    "broadcast": 0,
    "send": 0,
    "batch_isend_irecv": 0,
}
"""Which argument of each function is what the process gives."""


def share(name):
    """How often a process sends what it gives, by the best that networks do (a ring)."""
    others = processes() - 1
    if name == "all_reduce":
        return 2 * others / processes()
    if name.startswith("reduce_scatter"):
        return others / processes()
    return others if name.startswith("all_gather") else 1


@contextmanager
def counted():
    """Yields a list of one `Counter` for each step of a fit: calls, and `bytes`."""
    steps, kept = [Counter()], {}

    def wrap(name, function):
        def call(*args, **options):
            steps[-1]["calls"] += 1
            given = args[GIVEN[name]]
            if name == "batch_isend_irecv":
                size = sum(one.tensor.nbytes for one in given if one.op is dist.isend)
            else:
                size = given.nbytes * share(name)
            steps[-1]["bytes"] += round(size)
            return function(*args, **options)

        return call

    def step(*args, **options):
        steps.append(Counter())
        found = train_step(*args, **options)
        steps.append(Counter())
        return found

    train_step, loop.train_step = loop.train_step, step
    for name in GIVEN:
        if function := getattr(dist, name, None):
            kept[name] = function
            setattr(dist, name, wrap(name, function))
    try:
        yield steps
    finally:
        loop.train_step = train_step
        for name, function in kept.items():
            setattr(dist, name, function)
        steps[:] = steps[1::2]
