"""The `barlow` objective: features of both sides alike, and unlike each other."""

from __future__ import annotations

import torch
from torch import Tensor

from fusemix_core.errors import ConfigError
from fusemix_core.objectives.pairwise import PairwiseObjective


class BarlowTwins(PairwiseObjective):
    """Σ_d (C_dd - 1)² + weight · Σ_d≠e C_de² (arXiv 2103.03230), as SAIL's code has it.

    C is the correlation of the embeddings' features over the rows that have both modalities, the
    columns standardised by the unbiased deviation, products divided by their number; a feature that
    is the same in all rows correlates with nothing. It contains `[d, d]`, and nothing of rows
    against rows. With several modalities the loss is a mean over their pairs; 0 where none has two
    rows. Raises `ConfigError` for a weight below 0.
    """

    unit = False

    def __init__(self, *, weight: float = 0.0051) -> None:
        super().__init__()
        if weight < 0:
            raise ConfigError(f"barlow can't use weight={weight}.", "It is 0 or more.")
        self.weight = weight

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        c = _standardised(x).T @ _standardised(y) / len(x)
        own = c.diagonal()
        return (own - 1).square().sum() + self.weight * (c.square().sum() - own.square().sum())


def _standardised(x: Tensor) -> Tensor:
    """Columns of mean 0 and deviation 1; zeros, without gradient, of one that does not vary."""
    variance = x.var(dim=0)
    varies = variance > (8 * torch.finfo(x.dtype).eps * x.abs().amax(dim=0)) ** 2
    return torch.where(varies, (x - x.mean(dim=0)) / torch.where(varies, variance, 1).sqrt(), 0)
