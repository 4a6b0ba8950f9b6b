"""The loss that the engine minimises for a fuser, and its score on validation rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fusemix_core.data.facts import Fact
from fusemix_core.engine.fit import Fit
from fusemix_core.fuser import Fuser, L, Labelled
from fusemix_core.interfaces import PairedLatents, Step
from fusemix_core.mixups.targets import SHARE
from fusemix_core.prediction import Targets, Task

PLACE = "place"
"""The fact that says where the targets of a row are."""
CHUNK = 1_024
"""Rows that are scored at once."""


def with_places(pairs: PairedLatents) -> PairedLatents:
    """The pairs, whose batches say which rows they are and how much of each source they have."""
    places = Fact("class", np.arange(len(pairs), dtype=np.int64))
    share = Fact("number", np.ones(len(pairs), np.float32))
    return replace(pairs, facts={PLACE: places, SHARE: share})


def scores_of(fuser: Fuser, rows: Labelled, device: torch.device | str = "cpu") -> Tensor:
    """Scores float32 CPU `[n, C]` of rows whose latents are as the fuser takes them, without
    gradient; zeros for a row without any modality."""
    found = torch.zeros(len(rows), fuser.outputs)
    some = rows.present.any(dim=1).nonzero()[:, 0]
    with torch.no_grad():
        for part in some.split(CHUNK):
            latents = rows.pairs.batch(part, device).latents
            found[part] = fuser(latents, rows.present[part].to(device)).float().cpu()
    return found


class ScaledFuser(Fuser[L]):
    """A fuser whose raw scores are scaled and shifted by calibration. A subclass defines `raw`."""

    def __init__(self, inputs: Mapping[str, int], outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("offsets", torch.zeros(outputs))

    @abstractmethod
    def raw(self, latents: Mapping[str, L], present: Tensor) -> Tensor:
        """Scores float32 `[n, outputs]` before calibration; arguments as in `forward`."""

    def trained_on(
        self, latents: Mapping[str, L], present: Tensor, targets: Targets
    ) -> tuple[Tensor, Tensor | None]:
        """The raw scores of training rows, and a loss that is added to the task's, if there is one;
        by default there is none.

        Args:
            latents, present: as in `forward`.
            targets: of the rows; of mixed ones, those of the first source.
        """
        return self.raw(latents, present), None

    def forward(self, latents: Mapping[str, L], present: Tensor) -> Tensor:
        return self.scale * self.raw(latents, present) + self.offsets

    def calibrate(self, rows: Labelled, task: Task) -> None:
        """Scale and shift the scores so that the task's loss on these rows is the least."""
        if not rows.targets.rows.any():
            return
        self.scale.fill_(1.0)
        self.offsets.zero_()
        found = task.calibrate(scores_of(self, rows), rows.targets)
        self.scale.fill_(found.scale)
        if found.offsets:
            self.offsets.copy_(torch.tensor(found.offsets))


class FuserFit(Fit[ScaledFuser]):
    """Trains a fuser on a task.

    Args:
        fuser: what is trained.
        targets: of the training rows, on the device that trains.
        validation: rows whose latents are as the fuser takes them.
        task: whose loss is minimised.
        drop: how often a row lacks a modality that it has.
    """

    uses = ("latents", "facts")
    reader = "The training of a fuser"

    def __init__(
        self, fuser: ScaledFuser, targets: Targets, validation: Labelled, task: Task, drop: float
    ) -> None:
        super().__init__({"fuser": fuser})
        self.targets, self.validation, self.task = targets, validation, task
        self.drop = drop

    def loss(self, step: Step) -> Tensor:
        present = self._thinned(step.own.present)
        places, shares = step.facts[PLACE], step.facts[SHARE]
        first = self.targets[step.own.facts[PLACE][:, 0]]
        own, further = self.modules["fuser"].trained_on(step.own.latents, present, first)
        scores = step.rows.gather(own)
        losses = [
            share.mean() * self.task.loss(scores, self.targets[rows])
            for rows, share in zip(places.T, shares.T, strict=True)
        ]
        return torch.stack([*losses, *([] if further is None else [further])]).sum()

    def _thinned(self, present: Tensor) -> Tensor:
        """Modalities left out at random, each row by itself. A row keeps one at least."""
        if not self.drop:
            return present
        chance = torch.rand(present.shape, device=present.device)
        kept = present & (chance >= self.drop)
        return torch.where(kept.any(dim=1, keepdim=True), kept, present)

    def validate(self, modules: Mapping[str, ScaledFuser]) -> Mapping[str, float]:
        """Minus the calibrated loss, and the task's primary metric; nothing if no validation row
        has a target."""
        targets, fuser = self.validation.targets, modules["fuser"]
        if not targets.rows.any():
            return {}
        scores = scores_of(fuser, self.validation, fuser.offsets.device)
        calibrated = self.task.calibrate(scores, targets)(scores)
        loss = float(self.task.loss(calibrated, targets))
        return {
            "score": -loss,
            "validation_loss": loss,
            self.task.primary: self.task.score(calibrated, targets),
        }
