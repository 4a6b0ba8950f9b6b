"""Embeddings of rows by fits that left them out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fusemix_core.config import Recipe
from fusemix_core.errors import DataError
from fusemix_core.fusion.folds import folds_of
from fusemix_core.interfaces import FitContext
from fusemix_core.registry import registry
from fusemix_core.runs.config import find_recipe
from fusemix_core.runs.embeddings import SplitEmbeddings, embed_split
from fusemix_core.runs.encode import Encoded
from fusemix_core.runs.reporter import Reporter
from fusemix_core.runs.targets import groups_of

FOLDS = 5
LEAST = 50
"""Rows that folds are worth fitting to."""
LANDMARKS = 1_024
"""The size of the kernel in place of a recipe that is trained."""


@dataclass(frozen=True)
class HeldOut:
    """Rows that a fit left out: int64 rows of the dataset, and their embeddings."""

    rows: Tensor
    embedded: SplitEmbeddings


def refitted_by(recipe: Recipe | None) -> Recipe:
    """The recipe that folds are fitted by: the given one if it is a closed form, or kernel CCA."""
    if recipe is not None and recipe.objective is None and recipe.aligner.name != "auto":
        return recipe
    return find_recipe("kcca", [f"aligner.landmarks={LANDMARKS}"])


def out_of_fold(
    encoded: Encoded,
    recipe: Recipe,
    *,
    folds: int = FOLDS,
    seed: int = 0,
    device: torch.device,
    reporter: Reporter,
) -> Iterator[HeldOut]:
    """Fit a recipe several times, each time without some of the rows, and embed these.

    Rows that share a group (the fact `GROUP`) or an item that isn't text are left out together.

    Args:
        encoded: the latents of all rows.
        recipe: of a closed form.
        folds: how many fits.

    Raises:
        DataError: there are too few rows, or they all hang together.
    """
    pairs = encoded.paired()
    together = groups_of(encoded.dataset)
    if len(pairs) < LEAST or len(np.unique(together)) < 2 * folds:
        raise DataError(
            f"{len(pairs):,} rows are too few to fit a model to some and look at the others.",
            "Give more rows, or let the model judge rows that it was trained on: --folds 0",
        )
    rows = {"all": np.arange(len(pairs))}
    aligner = registry.build("aligner", recipe.aligner)
    for number, fold in enumerate(folds_of(rows, together, folds, seed), start=1):
        reporter.stage(f"Fitting without part {number} of {folds} ({recipe.name})")
        train, validation = (
            pairs.select(torch.from_numpy(part)) for part in (fold.train, fold.validation)
        )
        context = FitContext(device=device, seed=seed, latents=f"{encoded.digest} {number}")
        adapters = aligner.fit(train, validation, recipe, context)
        test = torch.from_numpy(fold.test)
        yield HeldOut(test, embed_split(adapters, pairs.select(test), device))
