"""Fitting the adapters of a recipe to latents."""

from __future__ import annotations

from collections.abc import Mapping

from fusemix_core.config import Recipe
from fusemix_core.context import FitContext
from fusemix_core.digests import digest_modules
from fusemix_core.errors import ContractError
from fusemix_core.interfaces import Adapter
from fusemix_core.registry import registry
from fusemix_core.runs.encode import Encoded
from fusemix_core.runs.rows import check_splits, rows_to_fit


def fit_adapters(recipe: Recipe, encoded: Encoded, context: FitContext) -> dict[str, Adapter]:
    """The adapters by modality, fitted to the training rows of `encoded` and chosen on validation.

    Raises:
        DataError: there is nothing to fit, or to choose on.
        ContractError: the aligner changed a fixed adapter.
    """
    train, validation = encoded.paired("train"), encoded.paired("validation")
    validation = validation.select(rows_to_fit(validation, context.fixed))
    check_splits(train, validation)
    digests = {m: digest_modules([adapter]) for m, adapter in context.fixed.items()}
    aligner = registry.build("aligner", recipe.aligner)
    adapters = aligner.fit(train, validation, recipe, context)
    check_unchanged(recipe.aligner.name, adapters, digests)
    return adapters


def check_unchanged(
    aligner: str, fitted: Mapping[str, Adapter], digests: Mapping[str, str]
) -> None:
    """Raise `ContractError` unless adapters have the weights whose digests are given."""
    for modality, digest in digests.items():
        if digest_modules([fitted[modality]]) != digest:
            raise ContractError(
                f"The aligner '{aligner}'", f"the fixed adapter of {modality} unchanged", "another"
            )
