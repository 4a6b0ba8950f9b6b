"""The corrections of a fused model among its parts."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from fusemix_core.errors import ArtefactError
from fusemix_core.interfaces import Correction
from fusemix_core.saved.components import Built, as_artefact_error

PREFIX = "correction."
"""The names of these parts begin with it."""


def corrections_in(parts: Mapping[str, Built]) -> dict[str, Correction]:
    """name → correction."""
    return {
        name.removeprefix(PREFIX): built.component
        for name, built in parts.items()
        if name.startswith(PREFIX)
    }


def without_corrections(parts: Mapping[str, Built]) -> dict[str, Built]:
    """The other parts."""
    return {name: built for name, built in parts.items() if not name.startswith(PREFIX)}


def with_corrections(
    parts: Mapping[str, Built], corrections: Mapping[str, Correction]
) -> dict[str, Built]:
    """The parts with these corrections in place of those that are there."""
    own = {f"{PREFIX}{name}": Built(one) for name, one in corrections.items()}
    return {**without_corrections(parts), **own}


def check_corrections(
    corrections: Mapping[str, Correction], modalities: tuple[str, ...], dim: int
) -> None:
    """Raise `ArtefactError` unless each can correct what it has learnt of."""
    rows = torch.zeros(2, dim)
    rows[:, 0] = 1
    for name, correction in corrections.items():
        if not isinstance(correction, Correction):
            raise ArtefactError(f"'{name}' is not a subclass of Correction.")
        for source, target in correction.learnt:
            if source not in modalities or target not in modalities:
                raise ArtefactError(
                    f"The correction '{name}' is of {source} and {target}; the model has "
                    f"{', '.join(modalities)}."
                )
            with as_artefact_error(f"The correction '{name}' can't correct {source} to {target}"):
                found = correction(rows, source, target, (0, 1))
            if found.shape != rows.shape or not found.isfinite().all():
                raise ArtefactError(f"The correction '{name}' gives no finite rows for {source}.")
