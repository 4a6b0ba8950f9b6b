"""Whole fits of linear and kernel CCA."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial

import torch

from benchmarks.gpu.case import Case, Jobs
from benchmarks.gpu.step import SMALL, WIDTHS
from benchmarks.harness import Row
from fusemix_core.config import Part, Recipe
from fusemix_core.interfaces import FitContext
from fusemix_core.registry import registry

FITS = ((1_000_000, 0), (100_000, 4_096), (100_000, 16_384))
"""Pairs, and landmarks; none is linear CCA."""
HELD_OUT = 2_000


def jobs(case: Case) -> Jobs:
    for pairs, landmarks in ((400, 0), (400, 64)) if case.quick else FITS:
        yield f"{pairs:,}, {landmarks:,}", partial(measured, case, pairs, landmarks)


def measured(case: Case, count: int, landmarks: int) -> Iterable[Row]:
    held_out = case.size(HELD_OUT, 50)
    pairs = case.pairs(count + held_out, SMALL if case.quick else WIDTHS)
    train, validation = (
        pairs.select(rows) for rows in torch.arange(len(pairs)).split([count, held_out])
    )
    part = Part("cca", {"landmarks": landmarks})
    aligner, reached = registry.build("aligner", part), _Best()
    context = FitContext(device=case.device, callbacks=[reached])
    found = case.once(lambda: aligner.fit(train, validation, Recipe("closed", part), context))
    name = f"kernel CCA, {landmarks:,} landmarks" if landmarks else "linear CCA"
    details = {"recall_at_1": reached.recall, "peak_gb": found.peak_gb}
    yield Row(f"{name}, {count:,} pairs", found.seconds, "s", details=details)


class _Best:
    """The R@1 of the best map, as a callback hears of it."""

    recall = math.nan

    def on_evaluation(self, step: int, metrics: dict[str, float]) -> None:
        self.recall = metrics["recall_at_1"]

    def on_pairs(self, done: int, total: int) -> None: ...
