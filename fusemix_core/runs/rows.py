"""Which training rows a recipe is given, where the data say how far each is to be trusted: all of
them for an objective that takes trust, else those of trust above 0."""

from __future__ import annotations

import torch

from fusemix_core.config import Recipe
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.facts import TRUST, trust_of
from fusemix_core.errors import DataError
from fusemix_core.interfaces import PairedLatents
from fusemix_core.registry import registry


def dataset_for(recipe: Recipe, dataset: PairedDataset) -> PairedDataset:
    """The dataset with such rows alone in its training split."""
    if TRUST not in dataset.facts or _takes_trust(recipe):
        return dataset
    rows = dataset.splits["train"]
    return dataset.with_split("train", rows[trust_of(dataset.facts, len(dataset))[rows] > 0])


def rows_for(recipe: Recipe, train: PairedLatents) -> PairedLatents:
    """Such rows of the training pairs."""
    if TRUST not in train.facts or _takes_trust(recipe):
        return train
    trusted = torch.from_numpy(trust_of(train.facts, len(train)) > 0)
    return train.select(trusted.nonzero()[:, 0])


def _takes_trust(recipe: Recipe) -> bool:
    part = recipe.objective
    target = part and registry.target_of(registry.check("objective", part))
    return getattr(target, "takes_trust", False)


def check_splits(train: PairedLatents, validation: PairedLatents) -> None:
    """Raise `DataError` where there is nothing to fit or to choose on."""
    for name, pairs, least in (("train", train, 2), ("validation", validation, 1)):
        if len(pairs) < least:
            raise DataError(
                f"The {name} split has {len(pairs)} pairs; at least {least} are needed.",
                "Give more pairs, or another split (--split-column, --validation-fraction).",
            )
