"""Latents as features of a linear model: standardised, and reduced to their leading directions."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from fusemix_core.fusers.standard import Standard, Standardising


class Features(Standardising):
    """Standardises latents `[n, d]`, and turns them into `[n, rank]`, whose columns are
    uncorrelated on the training items and have a total variance of 1.

    An item that is missing has zeros, which is the mean.
    """

    def __init__(self, width: int, rank: int) -> None:
        super().__init__(width)
        self.register_buffer("map", torch.zeros(width, rank))

    @classmethod
    def of(cls, latents: Tensor, present: Tensor, most: int) -> Self:
        """Those of training items.

        Args:
            latents: `[n, d]`.
            present: bool `[n]`, the rows that have one.
            most: the most directions to keep.
        """
        standard = Standard(latents.shape[1])
        rows = standard.learn(latents[present])
        scale = standard.scale.double()
        values, directions = _principal((rows - rows.mean(dim=0)) * scale)
        rank = max(1, min(most, int((values > 1e-10 * values[0]).sum())))
        total = (values[:rank].sum() / len(rows)).clamp_min(1e-30).sqrt()
        made = cls(latents.shape[1], rank)
        made.load_state_dict({**standard.state_dict(), "map": directions[:, :rank] / total})
        return made

    def forward(self, latents: Tensor, present: Tensor) -> Tensor:
        """`[n, rank]` of latents `[n, d]`, zeros where not present."""
        return torch.where(present[:, None], self.standardised(latents) @ self.map, 0.0)


def _principal(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(sums of squares along the principal directions of `rows` `[n, d]`, the largest first; the
    directions `[d, r]`)."""
    if len(rows) > rows.shape[1]:
        values, directions = torch.linalg.eigh(rows.T @ rows)
        return values.flip(0), directions.flip(1)
    values, vectors = torch.linalg.eigh(rows @ rows.T)  # fewer rows than columns
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    return values, rows.T @ vectors / values.clamp_min(1e-30).sqrt()
