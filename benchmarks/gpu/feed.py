"""What a batch of 40,960 rows costs by where the latents are."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch

from benchmarks.gpu.case import Case, Jobs
from benchmarks.gpu.step import SMALL, WIDTHS
from benchmarks.harness import Row
from fusemix_core.config import Training
from fusemix_core.engine.feed import feed
from fusemix_core.engine.plan import plan_steps

HOST = torch.device("cpu")


def jobs(case: Case) -> Jobs:
    yield "resident", partial(measured, case, case.device, False)
    yield "main memory", partial(measured, case, HOST, False)
    yield "main memory, by blocks", partial(measured, case, HOST, True)


def measured(case: Case, where: torch.device, blocks: bool) -> Iterable[Row]:
    """Batches one after another, with nothing else to do."""
    batch = case.size(20_480, 64)
    pairs = case.pairs(8 * batch, SMALL if case.quick else WIDTHS, where)
    plan = plan_steps(len(pairs), 2, Training(epochs=1_000_000, batch_size=batch))
    batches = feed(pairs, plan, 0, case.device, blocks=blocks)
    try:
        found = case.timed(lambda: next(batches), 8, 3)
    finally:
        batches.close()
    name = "the device" if where == case.device and case.cuda else "main memory"
    size = 2 * batch * sum(pairs.dims.values()) * 2
    details = {"gb_per_second_as_float16": size / found.seconds / 1e9}
    how = ", by blocks" if blocks else ""
    yield Row(f"a batch from {name}{how}", found.ms, "ms", details=details)
