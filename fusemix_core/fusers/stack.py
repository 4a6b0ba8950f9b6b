"""`stack`: the modalities' own predictions, weighted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fusemix_core.context import FitContext
from fusemix_core.fuser import Fitted, Labelled
from fusemix_core.fusers.block import whole
from fusemix_core.fusers.blocks import Blocks
from fusemix_core.fusers.linear import RANK, LinearFuser, subsets
from fusemix_core.prediction import Targets, Task


class Stack(LinearFuser):
    """Each modality predicts by a ridge regression of its own, fitted to all rows that have it. The
    calibrated scores are added with weights that are not negative (Breiman 1996, Stacked
    Regressions), fitted to scores of rows that were left out with their group. Each subset of the
    modalities has its own weights.

    Args:
        inputs, outputs, ranks: as in `LinearFuser`.
    """

    @classmethod
    def fit(
        cls,
        train: Labelled,
        validation: Labelled,
        task: Task,
        context: FitContext,
        **options: Any,
    ) -> Fitted:
        blocks = Blocks(train, task, options.get("rank", RANK))
        fuser = cls.of(train, blocks, task.outputs, **options)
        own, scores = [], []
        for k in range(len(train.modalities)):
            found = blocks.fit([k], [blocks.choice([k]).together()])
            rows = whole(train, [k])
            calibration = task.calibrate(found.scores[rows], train.targets[rows])
            weights = calibration.scale * found.weights
            own.append((weights, calibration(found.offsets[None])[0]))
            scores.append(calibration(found.scores))
        out = torch.zeros(len(train), task.outputs, dtype=torch.float64)
        for subset in subsets(len(own)):
            rows = whole(train, subset)
            shares, offsets = non_negative(
                task, [scores[k][rows] for k in subset], train.targets[rows]
            )
            weights = [a * own[k][0] for a, k in zip(shares, subset, strict=True)]
            shift = sum(a * own[k][1] for a, k in zip(shares, subset, strict=True))
            fuser.set(subset, torch.cat(weights), shift + offsets)
            exact = train.has_exactly(subset)
            mixed = sum(a * scores[k] for a, k in zip(shares, subset, strict=True)) + offsets
            out[exact] = mixed[exact]
        parts = {m: one.float() for m, one in zip(train.modalities, scores, strict=True)}
        return Fitted(fuser.eval(), out.float(), parts)


def non_negative(task: Task, scores: Sequence[Tensor], targets: Targets) -> tuple[Tensor, Tensor]:
    """The weights and offsets that minimise the task's loss, none of the weights negative.

    Args:
        task: whose loss is minimised.
        scores: calibrated scores `[n, C]` of each model, which has not seen the rows.
        targets: of the rows.

    Returns:
        (`[len(scores)]`, `[C]`), float64.
    """
    stacked = torch.stack(list(scores)).double()
    found = torch.zeros(len(stacked), dtype=torch.float64)
    active = list(range(len(stacked)))
    while active:
        weights, offsets = _minimised(task, stacked[active], targets)
        if (weights >= 0).all():
            found[active] = weights
            return found, offsets
        active = [k for k, a in zip(active, weights.tolist(), strict=True) if a >= 0]
    return found, task.baseline(targets).double()


def _minimised(task: Task, scores: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """The weights and offsets of the least loss, by L-BFGS; a prior that weighs as much as one row
    keeps them near equal shares."""
    count, outputs = scores.shape[1:]
    start = torch.full((len(scores),), 1 / len(scores), dtype=torch.float64)
    weights = start.clone().requires_grad_()
    offsets = torch.zeros(outputs, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [weights, offsets], max_iter=200, tolerance_grad=1e-9, tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def value() -> Tensor:
        search.zero_grad()
        prior = (weights - start).square().sum() + offsets.square().sum()
        mixed = torch.einsum("m,mnc->nc", weights, scores) + offsets
        total = task.loss(mixed, targets) + prior / (2 * count)
        total.backward()
        return total

    with torch.enable_grad():
        search.step(value)
    return weights.detach(), offsets.detach()
