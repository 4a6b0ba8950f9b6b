"""A base for losses of two modalities at a time."""

from __future__ import annotations

from abc import abstractmethod
from itertools import combinations

import torch
from torch import Tensor

from fusemix_core.interfaces import Objective, Step
from fusemix_core.objectives.pairs import no_loss, unit_rows


class PairwiseObjective(Objective):
    """The mean of `loss` over the pairs of modalities, each on the rows that have both.

    A pair of modalities with fewer than two such rows is left out; the loss is 0 if none is left.
    Rows have unit norm unless `unit` is False.

    Example:
        class Cosine(PairwiseObjective):
            def loss(self, x, y):
                return 1 - (x * y).sum(dim=1).mean()
    """

    unit = True

    def forward(self, step: Step) -> Tensor:
        losses = []
        for (i, x), (j, y) in combinations(enumerate(step.embeddings.values()), 2):
            both = step.rows_with(i, j)
            if both is not None:
                x, y = x[both], y[both]
            if len(x) > 1:
                losses.append(self.loss(self._rows(x), self._rows(y)))
        return torch.stack(losses).mean() if losses else no_loss(step.embeddings)

    @abstractmethod
    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss of the rows `[n, d]` of two modalities, n ≥ 2; row i of both are partners.

        They are float32, or float64 if the embeddings are.
        """

    def _rows(self, x: Tensor) -> Tensor:
        if self.unit:
            return unit_rows(x)
        return x if x.dtype == torch.float64 else x.float()
