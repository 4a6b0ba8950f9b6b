"""Whether the parts of a recipe can do what a run asks of them. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from fusemix_core.config import Recipe
from fusemix_core.errors import ConfigError
from fusemix_core.registry import Registry, registry


def check_needs(
    recipe: Recipe,
    modalities: Iterable[str],
    fixed: Collection[str] = (),
    registry: Registry = registry,
) -> None:
    """Raise `ConfigError` for a recipe that can't work, by what its components declare (`USES`).

    Args:
        modalities: those of the run.
        fixed: those of them that stay as they are.
    """
    if fixed:
        _check_fixed(recipe, registry)
    if recipe.objective is None:
        return
    uses = registry.uses("objective", recipe.objective)
    unpaired = recipe.training.unpaired if recipe.training else 0
    if unpaired and "unpaired" not in uses:
        raise ConfigError(
            f"training.unpaired is {unpaired}, and the objective '{recipe.objective.name}' uses no "
            "unpaired items.",
            "Set it to 0, or take an objective that uses them.",
        )
    for modality in modalities if "tokens" in uses else ():
        adapter = None if modality in fixed else recipe.adapter_of(modality)
        if adapter and "tokens" not in registry.uses("adapter", adapter):
            raise ConfigError(
                f"The objective '{recipe.objective.name}' uses tokens, and the {modality} adapter "
                f"'{adapter.name}' has none.",
                "Take an adapter with tokens, or another objective.",
            )


def trusts_all(recipe: Recipe) -> bool:
    """Whether the recipe is given training rows of trust 0, too: its objective uses trust."""
    return recipe.objective is not None and "trust" in registry.uses("objective", recipe.objective)


def _check_fixed(recipe: Recipe, registry: Registry) -> None:
    for part in (recipe.aligner, recipe.start):
        if part is not None and "fixed" not in registry.uses("aligner", part):
            raise ConfigError(
                f"The aligner '{part.name}' of the recipe '{recipe.name}' moves every modality: it "
                "can't fit to one that stays as it is.",
                "Take the recipe auto (closed form), fusemix (by gradient), or another whose "
                "aligner uses `fixed`.",
            )
