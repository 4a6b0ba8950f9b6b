"""Whether the same fit gives the same adapters again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import torch

from benchmarks.gpu.case import Case, Jobs
from benchmarks.gpu.step import SMALL, WIDTHS
from benchmarks.harness import Row
from fusemix_core.config import Part, Recipe
from fusemix_core.interfaces import FitContext
from fusemix_core.recipes.fusemix import fusemix
from fusemix_core.registry import registry


def jobs(case: Case) -> Jobs:
    yield "linear CCA", partial(measured, case, "linear CCA", closed())
    recipe = fusemix()
    training = replace(recipe.training, epochs=2, batch_size=case.size(4096, 32), warmup_steps=0)
    recipe = replace(recipe, training=training, dim=case.size(512, 32))
    yield "training", partial(measured, case, "two epochs of training", recipe)


def closed() -> Recipe:
    return Recipe("closed", Part("cca", {"landmarks": 0}))


def measured(case: Case, name: str, recipe: Recipe) -> Iterable[Row]:
    """The largest difference of a weight between two fits of the same pairs and seed."""
    count = case.size(65_536, 400)
    pairs = case.pairs(count, SMALL if case.quick else WIDTHS)
    train, validation = (
        pairs.select(rows) for rows in torch.arange(count).split([count * 7 // 8, count // 8])
    )

    def weights() -> torch.Tensor:
        aligner = registry.build("aligner", recipe.aligner)
        adapters = aligner.fit(train, validation, recipe, FitContext(device=case.device))
        return torch.cat([p.flatten() for a in adapters.values() for p in a.parameters()])

    first, second = weights(), weights()
    details = {"largest_weight": first.abs().max().item(), "same": torch.equal(first, second)}
    difference = (first - second).abs().max().item()
    yield Row(f"{name}, largest difference of a weight", difference, "", details=details)
