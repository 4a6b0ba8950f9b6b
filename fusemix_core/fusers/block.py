"""`block` and `concat`: one ridge regression on the features of all modalities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from fusemix_core.context import FitContext
from fusemix_core.fuser import Fitted, Labelled
from fusemix_core.fusers.blocks import Blocks
from fusemix_core.fusers.linear import RANK, LinearFuser, subsets
from fusemix_core.prediction import Task


class BlockRidge(LinearFuser):
    """Ridge regression with a penalty for each modality, all chosen by exact leave-one-out: a sum
    of weighted linear kernels. Each subset of the modalities has its own exact solution.

    Rows of one group are left out together.
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
        fuser.extend(blocks)
        decades = cls.decades(blocks)
        scores = torch.zeros(len(train), task.outputs, dtype=torch.float64)
        for subset in subsets(len(train.modalities)):
            terms = fuser.terms_of(subset)
            found = blocks.fit(terms, [decades[k] for k in terms])
            rows = whole(train, subset)
            calibration = task.calibrate(found.scores[rows], train.targets[rows])
            own = calibration(found.scores)
            offsets = calibration(found.offsets[None])[0]
            fuser.set(subset, calibration.scale * found.weights, offsets)
            exact = train.has_exactly(subset)
            scores[exact] = own[exact]
        return Fitted(fuser.eval(), scores.float())

    def extend(self, blocks: Blocks) -> None:
        """Learn further terms of the training rows, and add them."""

    @classmethod
    def decades(cls, blocks: Blocks) -> list[float]:
        """The penalty of each term as an exponent of ten."""
        every = list(range(len(blocks.rows)))
        start = [blocks.choice([k]).together() for k in every]
        return blocks.choice(every).each(start) if len(every) > 1 else start


class ConcatRidge(BlockRidge):
    """Ridge regression on all standardised latents side by side with one penalty: the baseline.

    A modality with more columns has more weight.
    """

    @classmethod
    def decades(cls, blocks: Blocks) -> list[float]:
        columns = [-math.log10(one.columns) for one in blocks.features]
        best = blocks.choice(range(len(columns))).together(columns)
        return [best + one for one in columns]


def whole(train: Labelled, subset: Sequence[int]) -> torch.Tensor:
    """int64: the rows with a target that have all these modalities; any of them, if so few do."""
    own = train.present[:, list(subset)]
    known = train.targets.rows
    rows = own.all(dim=1) & known
    if int(rows.sum()) < 30:
        rows = own.any(dim=1) & known
    return rows.nonzero()[:, 0]
