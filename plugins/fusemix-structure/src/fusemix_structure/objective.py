"""The `structure` objective: any other, and the regulariser on top of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fusemix_core.config import Part
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Adapter, FitContext, PairedLatents, Step, as_rows
from fusemix_core.objectives.calls import CountsCalls
from fusemix_core.registry import registry
from fusemix_structure.regulariser import structure

CHOICES = {
    "weighting": ("none", "inverse"),
    "divergence": ("repo", "js"),
    "kernel": ("cosine", "rbf"),
    "centring": ("mean", "none", "standard"),
}
"""The regulariser's `spearman` has no gradient: it measures, and can't train."""


class StructureObjective(CountsCalls):
    """objective + λ · mean over modalities of `structure(latents, embeddings)` (arXiv 2506.16895).

    objective, options: the other objective by its registered name. λ is weight · min(1, s / warmup)
    at call s = 0, 1, …, so that the first call has none, as in the original. levels, weighting,
    temperature, divergence, kernel, centring, centre_first, margin: see `regulariser.structure`;
    the divergence "repo" is what the original computes, "js" what the paper names. Of a batch of
    more than `rows` rows the first `rows` are regularised: the regulariser keeps matrices
    `[rows, rows]`. A modality's rows that are missing have no part.

    Raises `ConfigError` for options out of range.
    """

    uses = ("latents",)

    def __init__(
        self,
        *,
        objective: str = "infonce",
        options: Mapping[str, Any] = {},  # noqa: B006
        weight: float = 10.0,
        warmup: int = 1000,
        levels: int = 1,
        weighting: str = "none",
        temperature: float = 0.05,
        divergence: str = "repo",
        kernel: str = "cosine",
        centring: str = "mean",
        centre_first: bool = False,
        margin: float = 0.0,
        rows: int = 2048,
    ) -> None:
        super().__init__()
        if min(weight, margin) < 0 or min(warmup, levels, rows) < 1 or not temperature > 0:
            raise ConfigError(
                "structure needs weight and margin ≥ 0, temperature > 0, and warmup, levels and "
                f"rows ≥ 1; not {weight}, {margin}, {temperature}, {warmup}, {levels}, {rows}.",
            )
        words = dict(zip(CHOICES, (weighting, divergence, kernel, centring), strict=True))
        for option, word in words.items():
            if word not in CHOICES[option]:
                raise ConfigError(
                    f"structure has no {option} '{word}'.",
                    f"It is one of {', '.join(CHOICES[option])}.",
                )
        self.objective = registry.build("objective", Part(objective, options))
        self.uses = (*self.objective.uses, *type(self).uses)
        self.weight, self.warmup, self.rows = weight, warmup, rows
        self.how: dict[str, Any] = {
            **words,
            "levels": levels,
            "temperature": temperature,
            "centre_first": centre_first,
            "margin": margin,
        }
        self._logged: dict[str, float | Tensor] = {}

    def start(
        self,
        adapters: Mapping[str, Adapter],
        train: PairedLatents,
        validation: PairedLatents,
        context: FitContext,
    ) -> None:
        self.objective.start(adapters, train, validation, context)

    def forward(self, step: Step) -> Tensor:
        loss = self.objective(step)
        share = self.weight * min(1.0, self.called() / self.warmup)
        self._logged = {"structure_weight": share}
        found = self._of_each(step) if share else []
        if not found:
            return loss
        kept = torch.stack(found).mean()
        self._logged["structure"] = kept.detach()
        return loss + share * kept

    def _of_each(self, step: Step) -> list[Tensor]:
        """The regulariser of each modality that has two rows or more."""
        found = []
        for k, (modality, rows) in enumerate(step.embeddings.items()):
            own = step.rows_with(k)
            own = slice(self.rows) if own is None else own[: self.rows]
            if len(rows[own]) > 1:
                behind = as_rows(step.latents[modality][own]).to(rows.dtype)
                found.append(structure(behind, rows[own], **self.how))
        return found

    def log(self) -> dict[str, float | Tensor]:
        return {**self.objective.log(), **self._logged}
