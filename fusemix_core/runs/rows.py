"""Which rows of the data a recipe is fitted to."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from fusemix_core.config import Recipe
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.engine.distributed import from_first
from fusemix_core.interfaces import FitContext, LatentTable, Padded, PairedLatents
from fusemix_core.runs.checks import check_count, one_latent, trusted_rows
from fusemix_core.runs.reporter import Reporter
from fusemix_core.runs.selection import choose

_LOOKED_AT = 1_000
"""Latents that are compared at once."""


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


def rows_to_fit(pairs: PairedLatents, fixed: Collection[str]) -> Tensor:
    """The rows, int64, that have something to fit: not only fixed modalities."""
    free = [k for k, m in enumerate(pairs.modalities) if m not in fixed]
    return (pairs.links[:, free] >= 0).any(1).nonzero()[:, 0]


def check_splits(train: PairedLatents, validation: PairedLatents) -> None:
    """Raise `DataError` if there is nothing to fit or to choose on."""
    check_count("train", len(train))
    check_count("validation", len(validation))


def check_latents(dataset: PairedDataset, tables: Mapping[str, LatentTable]) -> None:
    """Raise `DataError` if all items of a modality that the training rows link have one latent.

    Args:
        dataset: The data that were encoded.
        tables: modality → latents; there may be fewer modalities than the data have.
    """
    links = torch.from_numpy(dataset.links[dataset.splits["train"]])
    for modality, table in tables.items():
        ids = links[:, dataset.modalities.index(modality)]
        ids = ids[ids >= 0]
        if len(ids) > 1 and _all_alike(table, ids := ids.unique()):
            raise one_latent(modality, f"its encoder gives the same for each of {len(ids):,}")


def _all_alike(table: LatentTable, ids: Tensor) -> bool:
    """Whether the latents of all items are the same but for rounding."""
    first, *_ = firsts = _values(table.rows(ids[:1]))
    for some in ids.split(_LOOKED_AT):
        values = _values(table.rows(some))
        if [v.shape[1:] for v in values] != [v.shape[1:] for v in firsts]:
            return False
        if not torch.allclose(values[0], first.expand_as(values[0]), rtol=2e-3, atol=1e-7):
            return False
        if len(values) > 1 and not (values[1] == firsts[1]).all():
            return False
    return True


def _values(rows: Tensor | Padded) -> list[Tensor]:
    """The numbers of latents, and which of them are there if items differ in length."""
    return [rows.filled(), rows.mask] if isinstance(rows, Padded) else [rows]
