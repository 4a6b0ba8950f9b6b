"""How a network's score is mixed with that of the fused model, by a weight chosen on validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fusemix_core.reranking.split import Shortlist

ALPHAS = (0.0, 0.0625, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""The weights that are tried; 1 makes both scores vary as much within a short list."""
_LEAST = 1e-12


@dataclass(frozen=True)
class Mix:
    """The weight of a network's score.

    Attributes:
        alpha: the chosen one of `ALPHAS`; 0 leaves the order of the fused model.
        weights: direction → the factor of the network's score in the sum.
        tried: alpha → mean reciprocal rank on validation, of 100, mean of both directions.
    """

    alpha: float
    weights: Mapping[str, float]
    tried: Mapping[float, float]

    @property
    def score(self) -> float:
        """The best mean reciprocal rank."""
        return self.tried[self.alpha]


def choose(lists: Sequence[Shortlist], found: Sequence[Tensor]) -> Mix:
    """The mix that ranks best; of equal ones the one with less of the network.

    Args:
        lists: the short lists of validation, one for each direction.
        found: the network's scores `[n, k]` of each.
    """
    units = {
        one.name: _spread(one.scores) / max(_spread(scores), _LEAST)
        for one, scores in zip(lists, found, strict=True)
    }
    tried = {}
    for alpha in ALPHAS:
        ranks = [
            reciprocal_ranks(one.scores + alpha * units[one.name] * scores, one.positive)
            for one, scores in zip(lists, found, strict=True)
        ]
        tried[alpha] = 100 * float(torch.stack([rank.mean() for rank in ranks]).mean())
    best = max(ALPHAS, key=lambda alpha: (tried[alpha], -alpha))
    return Mix(best, {name: best * unit for name, unit in units.items()}, tried)


def reciprocal_ranks(scores: Tensor, positive: Tensor) -> Tensor:
    """float64 `[n]`: 1 / rank of the best positive of each row, 0 if it has none. A negative that
    ties with it is ahead of it."""
    best = scores.masked_fill(~positive, -torch.inf).amax(dim=1)
    ahead = ((scores >= best[:, None]) & ~positive).sum(dim=1)
    return positive.any(dim=1) / (1.0 + ahead.double())


def _spread(scores: Tensor) -> float:
    """The standard deviation of scores `[n, k]` within a row, the mean of all rows."""
    if not scores.numel():
        return 0.0
    return float(scores.double().std(dim=1, correction=0).mean())
