"""Which rows of the data a recipe is fitted to."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor

from fusemix_core.config import Recipe
from fusemix_core.data.facts import Fact, trust_of
from fusemix_core.engine.distributed import from_first
from fusemix_core.errors import DataError
from fusemix_core.interfaces import FitContext, PairedLatents
from fusemix_core.needs import trusts_all
from fusemix_core.runs.reporter import Reporter
from fusemix_core.runs.selection import choose


def training_rows(
    recipe: Recipe, train: PairedLatents, context: FitContext, reporter: Reporter
) -> Tensor:
    """The training pairs that a recipe is fitted to: those it may trust, that have something to
    fit, and of these the ones that it chooses. Collective: every process calls it.

    Returns:
        Rows of `train`, int64, in their order; in the order taken where the recipe chooses.
    """
    able = rows_to_fit(train, context.fixed)
    trusted = torch.from_numpy(trusted_rows(recipe, train.facts, len(train)))
    rows = able[trusted[able]]
    if recipe.pairs is None:
        return rows
    pairs, k = train.select(rows), min(recipe.pairs, len(rows))
    chosen = from_first(lambda: choose(recipe.selector, pairs, k, context, reporter).tolist())
    return rows[torch.tensor(chosen, dtype=torch.int64)]


def trusted_rows(recipe: Recipe, facts: Mapping[str, Fact], count: int) -> np.ndarray:
    """bool `[count]`: the rows of trust above 0; all of them if the objective uses trust."""
    if trusts_all(recipe):
        return np.ones(count, bool)
    return trust_of(facts, count) > 0


def rows_to_fit(pairs: PairedLatents, fixed: Collection[str]) -> Tensor:
    """The rows, int64, that have something to fit: not fixed modalities alone."""
    free = [k for k, m in enumerate(pairs.modalities) if m not in fixed]
    return (pairs.links[:, free] >= 0).any(1).nonzero()[:, 0]


def check_splits(train: PairedLatents, validation: PairedLatents) -> None:
    """Raise `DataError` where there is nothing to fit or to choose on."""
    for name, pairs, least in (("train", train, 2), ("validation", validation, 1)):
        if len(pairs) < least:
            raise DataError(
                f"The {name} split has {len(pairs)} pairs; at least {least} are needed.",
                "Give more pairs, or another split (--split-column, --validation-fraction).",
            )
