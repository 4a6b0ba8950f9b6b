"""Modalities that stay as they are: whether a recipe can fit to them, and their adapters."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from fusemix_core.config import Recipe
from fusemix_core.digests import digest_modules
from fusemix_core.errors import ConfigError, ContractError
from fusemix_core.interfaces import Adapter, PairedLatents
from fusemix_core.registry import registry


def check_takes_fixed(recipe: Recipe) -> None:
    """Raise `ConfigError` for a recipe whose aligners can't leave a modality as it is."""
    for part in (recipe.aligner, recipe.start):
        if part is None:
            continue
        aligner = registry.target_of(registry.check("aligner", part))
        if not getattr(aligner, "takes_fixed", False):
            raise ConfigError(
                f"The aligner '{part.name}' of the recipe '{recipe.name}' moves every modality: it "
                "can't fit to one that stays as it is.",
                "Take the recipe auto (closed form), fusemix (by gradient), or another "
                "whose aligner takes fixed modalities.",
            )


def rows_to_fit(pairs: PairedLatents, fixed: Collection[str]) -> Tensor:
    """The rows, int64, that have something to fit: not fixed modalities alone."""
    free = [k for k, m in enumerate(pairs.modalities) if m not in fixed]
    return (pairs.links[:, free] >= 0).any(1).nonzero()[:, 0]


def check_unchanged(
    aligner: str, fitted: Mapping[str, Adapter], digests: Mapping[str, str]
) -> None:
    """Raise `ContractError` unless adapters have the weights whose digests are given."""
    for modality, digest in digests.items():
        if digest_modules([fitted[modality]]) != digest:
            raise ContractError(
                f"The aligner '{aligner}'", f"the fixed adapter of {modality} unchanged", "another"
            )
