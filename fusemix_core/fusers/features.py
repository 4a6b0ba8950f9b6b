"""Latents as features of a linear model: standardised, and reduced to their leading directions."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

_LEAST = 1e-6
"""A column whose spread is less than this share of the largest one's is constant."""
_LONGEST = 4.0
"""Medians of length. A standardised row that is longer is an outlier, and is shortened to it."""
_PASSES = 3
"""How often spreads are taken, each time of rows that are shortened by the last."""


class Features(torch.nn.Module):
    """Standardises latents `[n, d]`, and turns them into `[n, rank]`, whose columns are
    uncorrelated on the training items and have a total variance of 1.

    An item that is missing has zeros, which is the mean. An outlier counts as the row of the same
    direction that is four times as long as usual.
    """

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.zeros(width))
        self.register_buffer("longest", torch.ones(()))
        self.register_buffer("map", torch.zeros(width, rank))

    @classmethod
    def of(cls, latents: Tensor, present: Tensor, most: int) -> Self:
        """Those of training items.

        Args:
            latents: `[n, d]`.
            present: bool `[n]`, the rows that have one.
            most: the most directions to keep.
        """
        given = rows = latents[present].double()
        for _ in range(_PASSES):
            mean, spread = rows.mean(dim=0), rows.std(dim=0, correction=0)
            varies = spread > _LEAST * spread.max().clamp_min(1e-30)
            scale = torch.where(varies, 1 / spread.clamp_min(1e-30), 0.0)
            longest = _LONGEST * ((given - mean) * scale).norm(dim=1).median().clamp_min(1e-30)
            rows = mean + _shortened(given - mean, scale, longest)
        values, directions = _principal((rows - rows.mean(dim=0)) * scale)
        rank = max(1, min(most, int((values > 1e-10 * values[0]).sum())))
        total = (values[:rank].sum() / len(rows)).clamp_min(1e-30).sqrt()
        made = cls(latents.shape[1], rank)
        made.mean.copy_(mean)
        made.scale.copy_(scale)
        made.longest.copy_(longest)
        made.map.copy_(scale[:, None] * directions[:, :rank] / total)
        return made

    @property
    def columns(self) -> int:
        """How many columns vary."""
        return max(1, int((self.scale > 0).sum()))

    def forward(self, latents: Tensor, present: Tensor) -> Tensor:
        """`[n, rank]` of latents `[n, d]`, zeros where not present."""
        rows = _shortened(latents - self.mean, self.scale, self.longest) @ self.map
        return torch.where(present[:, None], rows, 0.0)


def _shortened(centred: Tensor, scale: Tensor, longest: Tensor) -> Tensor:
    """The rows, those of more than a length, once scaled, shortened to it."""
    length = (centred * scale).norm(dim=1, keepdim=True)
    return centred * (longest / length.clamp_min(1e-30)).clamp(max=1.0)


def _principal(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(sums of squares along the principal directions of `rows` `[n, d]`, the largest first; the
    directions `[d, r]`)."""
    if len(rows) > rows.shape[1]:
        values, directions = torch.linalg.eigh(rows.T @ rows)
        return values.flip(0), directions.flip(1)
    values, vectors = torch.linalg.eigh(rows @ rows.T)  # fewer rows than columns
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    return values, rows.T @ vectors / values.clamp_min(1e-30).sqrt()
