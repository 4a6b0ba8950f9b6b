"""The two decay rates of an optimiser's averages."""

from __future__ import annotations

from collections.abc import Sequence

from fusemix_core.errors import ConfigError


def checked(betas: Sequence[float]) -> tuple[float, float]:
    """Both, or `ConfigError` unless there are two from 0 to below 1."""
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ConfigError(
            f"optimiser.betas is {list(betas)}.", "It is two numbers from 0 to below 1."
        )
    return betas[0], betas[1]
