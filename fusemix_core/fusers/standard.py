"""Latents standardised column by column, in which outliers stay small."""

from __future__ import annotations

import torch
from torch import Tensor

_LEAST = 1e-6
"""A column whose spread is less than this share of the largest one's is constant."""
_LONGEST = 4.0
"""Medians of length. A standardised row that is longer is an outlier, and is shortened to it."""
_PASSES = 3
"""How often spreads are taken, each time of rows that are shortened by the last."""


class Standardising(torch.nn.Module):
    """Mean and scale of each column of latents, as training items have them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.zeros(width))
        self.register_buffer("longest", torch.ones(()))

    @torch.no_grad()
    def learn(self, rows: Tensor) -> Tensor:
        """Take mean and spread from training items `[n, d]`.

        Returns:
            These items without what is too long, float64 `[n, d]`, neither centred nor scaled.
        """
        given = rows = rows.double()
        for _ in range(_PASSES if len(rows) else 0):
            mean, spread = rows.mean(dim=0), rows.std(dim=0, correction=0)
            varies = spread > _LEAST * spread.max().clamp_min(1e-30)
            scale = torch.where(varies, 1 / spread.clamp_min(1e-30), 0.0)
            length = ((given - mean) * scale).norm(dim=1)
            longest = _LONGEST * length.median().clamp_min(1e-30)
            rows = mean + _shortened(given - mean, scale, longest)
            self.mean.copy_(mean)
            self.scale.copy_(scale)
            self.longest.copy_(longest)
        return rows

    @property
    def columns(self) -> int:
        """How many columns vary."""
        return max(1, int((self.scale > 0).sum()))

    def standardised(self, latents: Tensor) -> Tensor:
        """`[…, d]`, in the type of the weights."""
        centred = latents.to(self.mean.dtype) - self.mean
        return _shortened(centred, self.scale, self.longest) * self.scale


class Standard(Standardising):
    """Standardises latents `[…, d]`: each column has mean 0 and variance 1 on the training items,
    and constant ones are 0.

    An outlier counts as the row of the same direction that is four times as long as usual.

    Example:
        standard = Standard(512)
        standard.learn(train.latents("image"))
        rows = standard(test.latents("image"))
    """

    def forward(self, latents: Tensor) -> Tensor:
        """`[…, d]`, in the type of the weights."""
        return self.standardised(latents)


def _shortened(centred: Tensor, scale: Tensor, longest: Tensor) -> Tensor:
    """The rows, those of more than a length, once scaled, shortened to it."""
    length = (centred * scale).norm(dim=-1, keepdim=True)
    return centred * (longest / length.clamp_min(1e-30)).clamp(max=1.0)
