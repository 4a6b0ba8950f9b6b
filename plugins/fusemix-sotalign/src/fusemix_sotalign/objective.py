"""The `klot` objective: any other on the pairs, and KLOT to a teacher on all items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from fusemix_core.config import Part, Recipe
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import (
    Adapter,
    FitContext,
    Objective,
    Padded,
    PairedLatents,
    Step,
    as_rows,
    as_tokens,
    takes_tokens,
)
from fusemix_core.registry import registry
from fusemix_sotalign.klot import klot


class KLOTObjective(Objective):
    """objective + weight · mean over pairs of modalities of `klot(K, K*)` (arXiv 2602.23353).

    K are the cosines of the embeddings of a batch's items, unpaired and paired; K* those that a
    teacher gives the latents behind them. The teacher is a map in closed form, fitted on the
    training pairs before the first step.

    objective, options: the other objective by its registered name; teacher, teacher_options: an
    aligner by its own. epsilon, teacher_epsilon: of the plans; iterations, tolerance: see
    `klot.potentials`. Of more than `rows` items of a modality the first `rows` count, unpaired ones
    first: the plans are matrices `[rows, rows]`. A modality's rows that are missing have no part.

    Raises `ConfigError` for options out of range.
    """

    uses = ("latents", "unpaired")

    def __init__(
        self,
        *,
        objective: str = "infonce",
        options: Mapping[str, Any] = {},  # noqa: B006
        weight: float = 1.0,
        teacher: str = "cca",
        teacher_options: Mapping[str, Any] = {},  # noqa: B006
        epsilon: float = 0.05,
        teacher_epsilon: float = 0.02,
        iterations: int = 50,
        tolerance: float = 1e-6,
        rows: int = 1024,
    ) -> None:
        super().__init__()
        if min(weight, tolerance) < 0 or min(epsilon, teacher_epsilon) <= 0:
            raise ConfigError(
                "klot needs weight and tolerance ≥ 0, epsilon and teacher_epsilon > 0; not "
                f"{weight}, {tolerance}, {epsilon}, {teacher_epsilon}."
            )
        if iterations < 1 or rows < 2:
            raise ConfigError(f"klot can't have iterations={iterations} and rows={rows}.")
        self.objective = registry.build("objective", Part(objective, options))
        self.uses = (*self.objective.uses, *type(self).uses)
        self.weight, self.rows = weight, rows
        self.teacher_part = Part(teacher, teacher_options)
        self.teacher = nn.ModuleDict()
        self.how = {
            "epsilon": epsilon,
            "teacher_epsilon": teacher_epsilon,
            "iterations": iterations,
            "tolerance": tolerance,
        }
        self._logged: dict[str, Tensor] = {}

    def start(
        self,
        adapters: Mapping[str, Adapter],
        train: PairedLatents,
        validation: PairedLatents,
        context: FitContext,
    ) -> None:
        """Fit the teacher on the pairs."""
        self.objective.start(adapters, train, validation, context)
        if context.fixed and "fixed" not in registry.uses("aligner", self.teacher_part):
            raise ConfigError(
                f"klot's teacher '{self.teacher_part.name}' moves every modality, and "
                f"{', '.join(context.fixed)} stays as it is.",
                "Take another teacher, such as --set objective.teacher=cca",
            )
        aligner = registry.build("aligner", self.teacher_part)
        alone = replace(context, checkpoints=None, resume=False, callbacks=())
        recipe = Recipe("the teacher of klot", self.teacher_part)
        found = aligner.fit(train, validation, recipe, alone)
        self.teacher = nn.ModuleDict(found).requires_grad_(False)
        self.dims = train.dims

    def forward(self, step: Step) -> Tensor:
        loss = self.objective(step)
        students, teachers = {}, {}
        for k, (modality, rows) in enumerate(step.embeddings.items()):
            own = step.rows_with(k)
            own = slice(None) if own is None else own
            parts = [(rows[own], step.latents[modality][own])]
            if modality in step.unpaired:
                parts.insert(0, step.unpaired[modality])
            x = torch.cat([found for found, _ in parts])[: self.rows]
            if len(x):
                students[modality] = normalize(x, dim=1)
                teachers[modality] = self._taught(modality, [latents for _, latents in parts])
        found = [
            klot(students[a] @ students[b].T, teachers[a] @ teachers[b].T, **self.how)
            for a, b in combinations(students, 2)
        ]
        if not found:
            return loss
        value = torch.stack(found).mean()
        self._logged = {"klot": value.detach()}
        return loss + self.weight * value

    @torch.no_grad()
    def _taught(self, modality: str, parts: Sequence[Tensor | Padded]) -> Tensor:
        """The teacher's unit-norm embeddings of the first `rows` latents of all parts."""
        teacher = self.teacher[modality].eval()
        if takes_tokens(teacher):  # one that is fixed: closed forms give others
            latents = Padded.cat([as_tokens(part) for part in parts])
        else:
            latents = torch.cat([as_rows(part, self.dims[modality]) for part in parts])
        return normalize(teacher(latents[: self.rows]), dim=1)

    def log(self) -> dict[str, Tensor]:
        return {**self.objective.log(), **self._logged}
