"""What can be known of the data before anything is encoded."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from fusemix_core.config import Recipe
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.facts import Fact, trust_of
from fusemix_core.errors import DataError
from fusemix_core.needs import trusts_all

LEAST = {"train": 2, "validation": 1}
"""How many pairs a split must have for a fit."""


def trusted_rows(recipe: Recipe, facts: Mapping[str, Fact], count: int) -> np.ndarray:
    """bool `[count]`: the rows of trust above 0; all of them if the objective uses trust."""
    if trusts_all(recipe):
        return np.ones(count, bool)
    return trust_of(facts, count) > 0


def check_data(
    dataset: PairedDataset, recipe: Recipe | None = None, fixed: Collection[str] = ()
) -> None:
    """Raise `DataError` if there is nothing to fit or to choose on, whatever the latents are.

    Args:
        dataset: The data, as they were read.
        recipe: What is fitted; without it rows of trust 0 count.
        fixed: The modalities that stay as they are.
    """
    free = [k for k, m in enumerate(dataset.modalities) if m not in fixed]
    able = np.any(dataset.links[:, free] >= 0, axis=1)
    trusted = np.ones(len(dataset), bool)
    if recipe is not None:
        trusted = trusted_rows(recipe, dataset.facts, len(dataset))
    train = dataset.splits["train"]
    fitted = train[(able & trusted)[train]]
    check_count("train", len(fitted))
    check_count("validation", int(able[dataset.splits["validation"]].sum()))
    for modality, column in zip(dataset.modalities, dataset.links[fitted].T, strict=True):
        linked = column[column >= 0]
        if len(linked) > 1 and len(np.unique(linked)) == 1:
            raise one_latent(modality, "the training pairs have only one")


def check_count(split: str, count: int) -> None:
    """Raise `DataError` if a split has too few pairs for a fit."""
    if count < LEAST[split]:
        raise DataError(
            f"The {split} split has {count} pairs; at least {LEAST[split]} are needed.",
            "Give more pairs, or another split (--split-column, --validation-fraction).",
        )


def one_latent(modality: str, why: str) -> DataError:
    """The error for a modality whose latents are all the same, because of `why`."""
    return DataError(
        f"There is nothing to fit: all {modality} items have one latent ({why}).",
        f"Is it the right column (--column {modality}=NAME), and the right encoder?",
    )
