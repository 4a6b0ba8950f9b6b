"""The `soft-infonce` objective: not all negatives are wrong alike."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fusemix_core.errors import ConfigError
from fusemix_objectives.pairs import WithTemperature


class SoftInfoNCE(WithTemperature):
    """InfoNCE with soft targets, after SoftCLIP (arXiv 2303.17561).

    The target of row i among the columns y is (1 - share) δ_ij + share · softmax_j(y_i·y_j /
    sharpness), without gradient: texts that say nearly the same may both be right for a picture.
    Likewise the other way; the loss is the mean of both cross-entropies. With share 0 it is
    `infonce`. Raises `ConfigError` for options out of range.
    """

    def __init__(
        self,
        *,
        temperature: float = 0.07,
        learnable: bool = True,
        share: float = 0.3,
        sharpness: float = 0.07,
    ) -> None:
        super().__init__(temperature, learnable)
        if not 0 <= share < 1 or not sharpness > 0:
            raise ConfigError(
                f"soft-infonce can't have share={share} and sharpness={sharpness}.",
                "share is from 0 to below 1, sharpness above 0.",
            )
        self.share, self.sharpness = share, sharpness

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        logits = x @ y.T / self.temperature
        forward = cross_entropy(logits, self._targets(y))
        return (forward + cross_entropy(logits.T, self._targets(x))) / 2

    @torch.no_grad()
    def _targets(self, rows: Tensor) -> Tensor:
        """`[n, n]`, rows sum to 1."""
        soft = (rows @ rows.T / self.sharpness).softmax(dim=1).mul_(self.share)
        soft.diagonal().add_(1 - self.share)
        return soft
