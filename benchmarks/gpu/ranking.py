"""Retrieval metrics of large splits, both ways."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch.nn.functional import normalize

from benchmarks.gpu.case import Case, Jobs
from benchmarks.harness import Row
from fusemix_core.evaluation.retrieval import retrieval

WIDTH = 512
ITEMS = (20_000, 100_000)
SCORES = (1 << 22, 1 << 28)
"""Scores in a tile."""


def jobs(case: Case) -> Jobs:
    for items in (300,) if case.quick else ITEMS:
        for scores in SCORES:
            yield f"{items:,}, {scores:,}", partial(measured, case, items, scores)


def measured(case: Case, items: int, scores: int) -> Iterable[Row]:
    torch.manual_seed(0)
    first = normalize(torch.randn(items, WIDTH, device=case.device), dim=1)
    second = normalize(first + 0.04 * torch.randn(items, WIDTH, device=case.device), dim=1)
    links = torch.arange(items)[:, None].repeat(1, 2)

    def run() -> None:
        both = {"image": first, "text": second}
        retrieval(both, links, resamples=0, max_scores=scores, device=case.device)

    found = case.timed(run, 2, 1)
    name = f"{items:,} items both ways, tiles of {scores // 2**20:,} M scores"
    yield Row(name, found.seconds, "s", details={"peak_gb": found.peak_gb})
